"""Runs the command line: `python -m asyncexport`."""

import sys

from asyncexport.cli import main

if __name__ == "__main__":
    sys.exit(main())
