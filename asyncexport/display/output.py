"""Writes text to stdout and stderr, whose readers may be slow or close them.

1. Writing never waits for a reader: text goes into a queue, and one thread writes it.
2. The thread writes the oldest text whose stream accepts some. An unread stream does not hold up the other one, and if
   both are read, lines keep their order.
3. A result is never dropped: it waits in memory. Text that only describes the current state (a frame of the live view,
   progress, a log line) is dropped while too much waits.
4. A stream without a file descriptor, such as an `io.StringIO`, is written to directly.
5. Secrets are masked here, in every encoding in which they may appear.
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
"""A pipe that is ready for writing accepts this many bytes without blocking."""

PAUSE_SECONDS = 0.01
"""Pause before the next attempt to write to a stream that was reported as ready but would have blocked."""

CHECK_SECONDS = 0.05
"""How often the thread checks for more text if there is no pipe to wake it."""


class OutputThread:
    """A thread that writes text to several streams. It starts with the first text and does not delay program exit."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Outlet, deque[tuple[int, bytes]]] = {}
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wake_reader = self._wake_writer = -1

    def submit(self, outlet: "Outlet", data: bytes, *, most_waiting: int | None) -> bool:
        """Queue bytes for a stream; return False if they are dropped because more than `most_waiting` texts wait."""
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
        """Wait until all text is written or its readers are gone; return False if that takes longer than `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._waiting.values()), seconds)

    def close(self) -> None:
        """Let the thread end when all text is written, without waiting for it."""
        with self._changed:
            self._closing = True
            self._wake()

    def _start(self) -> None:
        # Without a pipe, because the process has no file descriptors left, the thread checks periodically.
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
            # The pipe is full, so the thread will wake up anyway.
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
                # One of the streams was closed meanwhile; writing will show which one.
                woken, ready = [], list(outlets)
            if woken:
                os.read(self._wake_reader, CHUNK_BYTES)
            if ready:
                self._write_oldest([outlets[number] for number in ready])

    def _select(self, outlets: list[int]) -> tuple[list[int], list[int], list[int]]:
        """Wait for more text, or for a stream that is ready for writing."""
        if self._wake_reader < 0:
            return select.select([], outlets, [], CHECK_SECONDS)
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
    """One output stream.

    Args:
        stream: The stream.
        thread: The thread that writes. None: text is written directly.
        mask: Replaces the secrets in a text.

    Attributes:
        encoding: The stream's encoding.
        number: The stream's file descriptor, or -1 if it has none.
        gone: Whether nothing can be written any more.
        failure: Why nothing can be written; None if the reader closed the stream.
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
            text: The text.
            most_waiting: Drop the text if more texts than this wait to be written. None: never drop it.

        Returns:
            Whether the text was written or queued.
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
        """Record that nothing can be written any more."""
        self.gone = True
        self.failure = None if error.errno == errno.EPIPE else error

    def has(self, letters: str) -> bool:
        """Return whether the stream's encoding has these characters."""
        try:
            letters.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def columns(self) -> int | None:
        """Return the columns of the terminal; None if the stream is not a terminal."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or None
        except (OSError, ValueError):
            return None

    def size(self) -> tuple[int, int]:
        """Return the columns and lines of the terminal; 80 and 24 if unknown."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return columns or 80, rows or 24


class StandardStreams:
    """stdout and stderr of the program, written to by one thread.

    Attributes:
        stdout, stderr: The two streams.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._thread = OutputThread()
        self._masks: list[Mask] = []
        self.stdout = Outlet(stdout, thread=self._thread, mask=self.masked)
        self.stderr = Outlet(stderr, thread=self._thread, mask=self.masked)

    def hide(self, mask: Mask) -> None:
        """Also mask these secrets in everything that is written from now on."""
        self._masks.append(mask)

    def deliver(self, *, seconds: float | None = None) -> bool:
        """Wait until all output is read or its readers are gone; return False if that takes longer than `seconds`."""
        return self._thread.drain(seconds=seconds)

    def close(self) -> None:
        """Let the thread end when all output is written, without waiting for it."""
        self._thread.close()

    def masked(self, text: str) -> str:
        """Replace the secrets in a text."""
        for mask in self._masks:
            text = mask(text)
        return text


def _encoded(text: str, encoding: str) -> bytes:
    """Encode text for the stream; file names keep their original bytes, even if these are not valid text."""
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        # The encoding lacks some characters: replace them by escapes instead of dropping the text.
        return text.encode(encoding, "backslashreplace")


def _descriptor(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
