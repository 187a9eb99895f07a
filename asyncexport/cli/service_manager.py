"""Reports a run to systemd (sd_notify): that it has begun, what it does, that it is alive, and that it stops.

1. Nothing is sent unless systemd asks for it with $NOTIFY_SOCKET. Messages that cannot be sent are dropped.
2. The event loop that carries out the run also says that it is alive, so systemd notices a loop that hangs.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

log = logging.getLogger(__name__)


class ServiceManager:
    """The connection to systemd.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._alive_seconds = _alive_seconds(environ)
        self._has_failed = False

    @asynccontextmanager
    async def run(self, heading: str) -> AsyncIterator[None]:
        """Report that a run has begun, that it is alive until the body is done, and then that it ends."""
        if not self._address:
            yield
            return
        self._send("READY=1", f"STATUS={heading}")
        alive = asyncio.create_task(self._keep_alive(), name="watchdog")
        try:
            yield
        finally:
            alive.cancel()
            self.report_stopping()

    def report(self, text: str) -> None:
        """Report what the run does."""
        self._send(f"STATUS={' '.join(text.split())}")

    def report_stopping(self) -> None:
        """Report that the run stops."""
        self._send("STOPPING=1")

    async def _keep_alive(self) -> None:
        while self._alive_seconds:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._alive_seconds)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except (OSError, ValueError) as error:
            if not self._has_failed:
                self._has_failed = True
                log.info("systemd cannot be reached through NOTIFY_SOCKET: %s", error)


def _alive_seconds(environ: Mapping[str, str]) -> float:
    """Return the interval of signs of life: half of what systemd allows. 0 if it expects none from this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    with suppress(ValueError):
        return max(0.0, int(environ.get("WATCHDOG_USEC", "0")) / 2e6)
    return 0.0
