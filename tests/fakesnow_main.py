"""Runs fakesnow, an emulator of Snowflake, on a free port of this machine, and prints the port.

It runs in an environment of its own (`tests.snowflake_rig`), so it imports nothing of ours.
"""

import socket
import sys

import uvicorn
from fakesnow.server import app


def main() -> None:
    """Serve until the process is ended."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sys.stdout.write(f"{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main()
