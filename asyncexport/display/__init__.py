"""The output of the program: results on stdout, everything else on stderr.

1. A result is one line on stdout: text, or a JSON object with `--json`. Everything else goes to stderr.
2. Each message is one line. Text from elsewhere (the service, a path) is made printable first, so that it cannot
   control the terminal.
3. A live view of the progress is drawn only on a terminal, with messages above it. Elsewhere a status line once a
   minute shows the same.
4. Slow or missing readers never hold up a run: a thread does the writing, and output to a closed pipe is dropped.

    formatting     numbers, times and tables as text
    output         stdout and stderr, and the thread that writes to them
    lines          writes results, messages and log lines
    event_records  events of a run as JSON
    progress_text  the progress of a run in words
    progress_view  the progress of a run as the lines of the live view
    live_view      draws the live view on a terminal
    viewers        show the progress of a run or of a long check
    closing_text   the text at the end of a run
    audit_text     the result of an audit in words
    load_text      what a load did, in words and as JSON
    mirror_text    what a mirror did, in words and as JSON
"""

from asyncexport.core.text import show_bytes
from asyncexport.display.audit_text import audit_lines, compared_nothing
from asyncexport.display.closing_text import closing_line, closing_lines, look_command, merged_problems
from asyncexport.display.formatting import count_of, fitted_table, plain, show_count, show_minute, table, wrapped
from asyncexport.display.lines import MessageLines, ResultLines, listening
from asyncexport.display.load_text import days_text, load_hints, load_lines, load_record
from asyncexport.display.mirror_text import mirror_hints, mirror_lines, mirror_record
from asyncexport.display.output import Outlet, StandardStreams
from asyncexport.display.viewers import ProgressCounter, RunViewer

__all__ = [
    "MessageLines",
    "Outlet",
    "ProgressCounter",
    "ResultLines",
    "RunViewer",
    "StandardStreams",
    "audit_lines",
    "closing_line",
    "closing_lines",
    "compared_nothing",
    "count_of",
    "days_text",
    "fitted_table",
    "listening",
    "load_hints",
    "load_lines",
    "load_record",
    "look_command",
    "merged_problems",
    "mirror_hints",
    "mirror_lines",
    "mirror_record",
    "plain",
    "show_bytes",
    "show_count",
    "show_minute",
    "table",
    "wrapped",
]
