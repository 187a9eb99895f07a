"""The live view: a few lines at the bottom of a terminal that are redrawn in place.

1. Each frame is one write that overwrites the last frame line by line. Nothing is erased first, so nothing flickers.
2. When the terminal becomes narrower, it wraps the lines on the screen. The start of the last frame is therefore
   computed from the current width before each frame.
3. Permanent lines are written above the view. A lock protects all writes, since log lines may come from other threads.
4. No line is as wide as the terminal, because terminals disagree on the position of the cursor at the last column.
5. A frame is skipped while the terminal has not yet accepted the previous output.
"""

import io
import threading
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from asyncexport.display.formatting import plain
from asyncexport.display.output import Outlet

START_OF_LINE = "\r"
UP = "\x1b[{}A"
REST_OF_LINE = "\x1b[K"
REST_OF_SCREEN = "\x1b[J"
HOLD, LET_GO = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronized output: a terminal that knows these shows everything between them in one step; others ignore them."""


class LiveView:
    """Draws a few lines at the bottom of a terminal.

    Args:
        outlet: The terminal.
        size: Returns its columns and lines. None: ask the terminal.
    """

    def __init__(self, outlet: Outlet, *, size: Callable[[], tuple[int, int]] | None = None) -> None:
        self._outlet = outlet
        self._size = size or outlet.size
        # Rich only renders the colours and writes nothing itself: it would exit the program if the terminal is gone.
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False, legacy_windows=False)
        self._lock = threading.RLock()
        self._shown: list[str] = []
        self._widths: list[int] = []

    @property
    def width(self) -> int:
        """The maximum width of a line."""
        return max(self._size()[0] - 1, 1)

    def has(self, letters: str) -> bool:
        """Return whether the terminal's encoding has these characters."""
        return self._outlet.has(letters)

    def draw(self, lines: Sequence[Text]) -> None:
        """Draw a frame over the last one, unless both look the same."""
        with self._lock:
            columns, rows = self._size()
            lines = lines[: max(rows - 1, 1)]
            shown = [self._rendered(line) for line in lines]
            if shown == self._shown and max(self._widths, default=0) < columns:
                return
            if self._write(self._to_the_top(columns) + self._frame(shown), most_waiting=0):
                self._shown, self._widths = shown, [line.cell_len for line in lines]

    def draw_plain(self, lines: Sequence[str]) -> None:
        """Draw lines without style, truncated to the terminal's width."""
        texts = [Text(plain(line)) for line in lines]
        for text in texts:
            text.truncate(self.width)
        self.draw(texts)

    def above(self, text: str, most_waiting: int | None = None) -> bool:
        """Write a permanent line above the view; return False if it was dropped (see `Outlet.write`)."""
        with self._lock:
            lines = "".join(f"{line}{REST_OF_LINE}\n" for line in text.split("\n"))
            output = self._to_the_top(self._size()[0]) + REST_OF_SCREEN + lines + self._frame(self._shown)
            return self._write(output, most_waiting=most_waiting)

    def clear(self) -> None:
        """Remove the view from the screen."""
        with self._lock:
            self._write(self._to_the_top(self._size()[0]) + REST_OF_SCREEN)
            self._shown, self._widths = [], []

    def _to_the_top(self, columns: int) -> str:
        """Return the sequence that moves the cursor to the start of the last frame (rule 2)."""
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return START_OF_LINE + (UP.format(rows) if rows else "")

    def _frame(self, shown: Sequence[str]) -> str:
        return "".join(f"{line}{REST_OF_LINE}\n" for line in shown) + REST_OF_SCREEN

    def _rendered(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", soft_wrap=True)
        return captured.get()

    def _write(self, text: str, *, most_waiting: int | None = None) -> bool:
        return self._outlet.write(f"{HOLD}{text}{LET_GO}", most_waiting=most_waiting)
