"""The way out: text on its way to stdout and stderr, which their readers may leave unread or close.

1. Nobody who has something to say waits for a reader. Text goes into a queue, and one thread writes it.
2. The thread writes the oldest text whose stream can take some. One unread stream does not hold up the other, and
   where both are read, lines keep their order.
3. A result is never dropped: it waits in memory. What says how things stand at a moment (a picture, progress, a log
   line) is left out while more than a limit waits.
4. A stream without a file descriptor of its own, such as an `io.StringIO`, takes text at once.
5. Secrets are masked here, in whatever spelling they come.
"""

import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TextIO

from asyncexport.core.masking import Mask

CHUNK_BYTES = select.PIPE_BUF
"""A pipe that can take anything takes this much at once; a longer write could block."""

PAUSE_SECONDS = 0.01
"""Until a stream that refused to take text, though it said that it could, is tried again."""

LOOK_AGAIN_SECONDS = 0.05
"""Until the thread looks for more text where nothing can wake it."""


class OutputThread:
    """Writes text for several streams; the thread starts with the first text, and never holds up the program's end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Outlet, deque[tuple[int, bytes]]] = {}
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wake_reader = self._wake_writer = -1

    def submit(self, outlet: "Outlet", data: bytes, *, most_waiting: int | None) -> bool:
        """Queue bytes for a stream; False: left out, since more than `most_waiting` texts wait (None: no limit)."""
        with self._changed:
            texts = self._waiting.setdefault(outlet, deque())
            if most_waiting is not None and len(texts) > most_waiting:
                return False
            texts.append((next(self._numbers), data))
            if self._thread is None:
                self._start()
            self._wake()
        return True

    def drain(self, *, seconds: float | None = None) -> bool:
        """Wait until all text is written or nobody reads it any more; False: it is not after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._waiting.values()), seconds)

    def close(self) -> None:
        """End the thread once nothing waits; it is not waited for."""
        with self._changed:
            self._closing = True
            self._wake()

    def _start(self) -> None:
        # Where no handles are left, the thread looks again and again.
        with suppress(OSError):
            self._wake_reader, self._wake_writer = os.pipe()
            os.set_blocking(self._wake_reader, False)
            os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        if self._wake_writer < 0:
            return
        try:
            os.write(self._wake_writer, b".")
        except OSError:
            # The pipe is full, and so the thread wakes up anyway.
            return

    def _run(self) -> None:
        while True:
            with self._changed:
                outlets = {outlet.number: outlet for outlet, texts in self._waiting.items() if texts}
                if not outlets and self._closing:
                    self._end()
                    return
            try:
                woken, ready, _ = self._select(list(outlets))
            except (OSError, ValueError):
                # One of them was closed under our feet; a write says which.
                woken, ready = [], list(outlets)
            if woken:
                os.read(self._wake_reader, CHUNK_BYTES)
            if ready:
                self._write_oldest([outlets[number] for number in ready])

    def _select(self, outlets: list[int]) -> tuple[list[int], list[int], list[int]]:
        """Wait for more text, or for a stream that takes some."""
        if self._wake_reader < 0:
            return select.select([], outlets, [], LOOK_AGAIN_SECONDS)
        return select.select([self._wake_reader], outlets, [])

    def _end(self) -> None:
        if self._wake_reader >= 0:
            os.close(self._wake_reader)
            os.close(self._wake_writer)
        self._wake_reader = self._wake_writer = -1
        self._thread = None

    def _write_oldest(self, outlets: "list[Outlet]") -> None:
        with self._changed:
            outlet = min(outlets, key=lambda one: self._waiting[one][0][0])
            number, data = self._waiting[outlet][0]
        try:
            written = os.write(outlet.number, data[:CHUNK_BYTES])
        except BlockingIOError:
            time.sleep(PAUSE_SECONDS)
            return
        except OSError as error:
            outlet.lose(error)
            written = None
        with self._changed:
            texts = self._waiting[outlet]
            if written is None:
                texts.clear()
            elif written < len(data):
                texts[0] = (number, data[written:])
            else:
                texts.popleft()
            if not any(self._waiting.values()):
                self._changed.notify_all()


class Outlet:
    """One stream, as the rest of the program writes to it.

    Args:
        stream: Where.
        thread: Who writes; None: the stream takes text at once.
        mask: What replaces secrets in a text.

    Attributes:
        number: The stream's file descriptor; -1: it has none.
        gone: Nothing can be written any more.
        failure: Why, where it is not that a reader has closed it.
    """

    def __init__(
        self, stream: TextIO, *, thread: OutputThread | None = None, mask: Callable[[str], str] | None = None
    ) -> None:
        self._stream = stream
        self._thread = thread
        self._mask = mask
        self.encoding = stream.encoding or "utf-8"
        self.number = _descriptor(stream)
        self.gone = False
        self.failure: OSError | None = None

    def write(self, text: str, *, most_waiting: int | None = None) -> bool:
        """Write text as it is.

        Args:
            text: What.
            most_waiting: Leave it out if more texts than this wait to be written. None: never leave it out.

        Returns:
            Whether it was written or queued.
        """
        if self.gone:
            return False
        if self._mask is not None:
            text = self._mask(text)
        data = _encoded(text, self.encoding)
        if self._thread is not None and self.number >= 0:
            return self._thread.submit(self, data, most_waiting=most_waiting)
        try:
            if (buffer := getattr(self._stream, "buffer", None)) is None:
                self._stream.write(data.decode(self.encoding, "backslashreplace"))
            else:
                buffer.write(data)
            self._stream.flush()
        except OSError as error:
            self.lose(error)
        except ValueError:
            self.gone = True
        return not self.gone

    def lose(self, error: OSError) -> None:
        """Nothing can be written any more."""
        self.gone = True
        self.failure = None if error.errno == errno.EPIPE else error

    def has(self, letters: str) -> bool:
        """Whether these can be written."""
        try:
            letters.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal; 80 and 24 where it does not say."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return columns or 80, rows or 24


class StandardStreams:
    """stdout and stderr of a program, written to by one thread.

    Attributes:
        stdout, stderr: Where text is written to.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._thread = OutputThread()
        self._masks: list[Mask] = []
        self.stdout = Outlet(stdout, thread=self._thread, mask=self._masked)
        self.stderr = Outlet(stderr, thread=self._thread, mask=self._masked)

    def hide(self, mask: Mask) -> None:
        """Replace these secrets, too, in all that is written from now on."""
        self._masks.append(mask)

    def deliver(self, *, seconds: float | None = None) -> bool:
        """Wait until all is read, or its readers are gone; False: it is not after so many seconds (None: no limit)."""
        return self._thread.drain(seconds=seconds)

    def close(self) -> None:
        """Nothing more will be written; what waits is not waited for."""
        self._thread.close()

    def _masked(self, text: str) -> str:
        for mask in self._masks:
            text = mask(text)
        return text


def _encoded(text: str, encoding: str) -> bytes:
    """Text in the stream's encoding; a file's name has its own bytes, whatever they are."""
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        # A terminal of another age may not have all letters; nothing is left out for that.
        return text.encode(encoding, "backslashreplace")


def _descriptor(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
