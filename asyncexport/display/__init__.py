"""What people and programs see: results on stdout, all else on stderr.

1. A result is a line on stdout: of text, or with `--json` one JSON object. Everything else goes to stderr.
2. One matter is one line. What others wrote (a service, a path) is made printable first: no text can move the cursor.
3. A picture of the progress is drawn on a terminal only, and the lines that come meanwhile go above it. Elsewhere a
   line a minute says the same.
4. Whether anybody reads makes no difference to a run: a thread writes, a closed pipe swallows what is written to it.

    formatting     numbers as people read them
    output         the way out: stdout and stderr, and the thread that writes to them
    lines          lines on stdout and stderr, log lines among them
    event_records  what happens during a run, as JSON
    progress_text  a run as it stands, in words
    progress_view  what the progress looks like
    live_view      where it is drawn
    viewers        shows a run, or a long look at many things
    closing_text   what is said at the end of a run
"""

from asyncexport.display.closing_text import closing_lines, look_command
from asyncexport.display.formatting import count_of, plain, show_bytes, show_count, show_minute, table
from asyncexport.display.lines import MessageLines, ResultLines, listening
from asyncexport.display.output import Outlet, StandardStreams
from asyncexport.display.viewers import Counter, RunViewer

__all__ = [
    "Counter",
    "MessageLines",
    "Outlet",
    "ResultLines",
    "RunViewer",
    "StandardStreams",
    "closing_lines",
    "count_of",
    "listening",
    "look_command",
    "plain",
    "show_bytes",
    "show_count",
    "show_minute",
    "table",
]
