"""A few lines at the bottom of a terminal, drawn over again and again.

1. One write a frame, each line over the one before it and nothing erased first: nothing flickers.
2. A terminal that gets narrower breaks the lines it shows: how far up the last frame begins is reckoned anew from the
   present width before the next is drawn.
3. Lines that are to stay go above. Whoever writes holds the lock: log lines may come from other threads.
4. No line is as wide as the terminal: at the last column terminals do not agree on where the cursor is.
5. A frame is left out while the terminal has not taken what was written before it.
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
"""A terminal that knows these shows what stands between them at once; others pass over them."""


class LiveView:
    """Where a picture is drawn.

    Args:
        outlet: A terminal.
        size: Its columns and lines; None: as the terminal says.
    """

    def __init__(self, outlet: Outlet, *, size: Callable[[], tuple[int, int]] | None = None) -> None:
        self._outlet = outlet
        self._size = size or outlet.size
        # It makes the colours and writes nothing by itself: when the terminal is gone, rich would end the program.
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False, legacy_windows=False)
        self._lock = threading.RLock()
        self._shown: list[str] = []
        self._widths: list[int] = []

    @property
    def width(self) -> int:
        """How wide a line may be."""
        return max(self._size()[0] - 1, 1)

    def has(self, letters: str) -> bool:
        """Whether these can be written."""
        return self._outlet.has(letters)

    def draw(self, lines: Sequence[Text]) -> None:
        """Draw a frame over the last one; one that looks the same costs nothing."""
        with self._lock:
            columns, rows = self._size()
            lines = lines[: max(rows - 1, 1)]
            shown = [self._rendered(line) for line in lines]
            if shown == self._shown and max(self._widths, default=0) < columns:
                return
            if self._write(self._to_the_top(columns) + self._frame(shown), most_waiting=0):
                self._shown, self._widths = shown, [line.cell_len for line in lines]

    def draw_plain(self, lines: Sequence[str]) -> None:
        """Draw lines without any style, cut to the terminal's width."""
        texts = [Text(plain(line)) for line in lines]
        for text in texts:
            text.truncate(self.width)
        self.draw(texts)

    def above(self, text: str, most_waiting: int | None = None) -> bool:
        """Write a line that stays; the picture moves down. False: it was left out, see `Outlet.write`."""
        with self._lock:
            lines = "".join(f"{line}{REST_OF_LINE}\n" for line in text.split("\n"))
            whole = self._to_the_top(self._size()[0]) + REST_OF_SCREEN + lines + self._frame(self._shown)
            return self._write(whole, most_waiting=most_waiting)

    def clear(self) -> None:
        """Take the picture away."""
        with self._lock:
            self._write(self._to_the_top(self._size()[0]) + REST_OF_SCREEN)
            self._shown, self._widths = [], []

    def _to_the_top(self, columns: int) -> str:
        """Rule 2."""
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
