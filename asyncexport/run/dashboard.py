"""Serves the status page during a run (`--dashboard`, `[dashboard]`).

1. Nothing here stops or fails a run: an address that cannot be used is logged as a warning.
2. The page is read from the ledger in a thread, as `status --html` does it. The run's events say what has changed
   since, and its snapshots how far it is.
3. Without an address, nothing is imported and nothing is done.
"""

import asyncio
import errno
import logging
import os
import secrets
import shlex
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from asyncexport.config import ApiKey, Settings
from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.events import Event, Joining, Listener
from asyncexport.core.exits import MEANINGS
from asyncexport.core.health.export_report import ExportFacts
from asyncexport.core.health.missing import Again
from asyncexport.core.health.report import DirectoryFacts, StatusReport, Verdict, status_report
from asyncexport.core.masking import Mask
from asyncexport.core.states import BundleRecord
from asyncexport.core.summary import Snapshot, Summary
from asyncexport.display import plain
from asyncexport.errors import ExportError
from asyncexport.ledger import LedgerReader, present
from asyncexport.run.run import Watch
from asyncexport.run.status import nothing_of, read_status
from asyncexport.run.survey import time_at_service

if TYPE_CHECKING:
    from asyncexport.monitor.dashboard_server import DashboardServer
    from asyncexport.monitor.live_changes import LiveChanges

log = logging.getLogger(__name__)

STARTING = "the run is starting"


def listen_fault(error: OSError) -> str:
    """Say why an address cannot be used.

    asyncio puts the address into the text again, and the number of a failed name lookup is none of the system's.
    """
    known = error.errno if error.errno in errno.errorcode else None
    return (os.strerror(known) if known else error.strerror or "no reason given").lower()


def _log_url(url: str) -> None:
    log.info("the status page is served at %s", url)


class Dashboard:
    """The page of one run.

    Args:
        settings: The settings.
        key: The API key, which is masked in the page.
        again: Makes a command line from a command and its arguments. None: for a program that uses the library.
        clean: Makes foreign text printable and hides secrets in it. None: hides the key.
        announce: Called with the URL. By default it is logged.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        key: ApiKey,
        again: Again | None = None,
        clean: Callable[[str], str] | None = None,
        announce: Callable[[str], None] = _log_url,
    ) -> None:
        self._settings = settings
        mask = Mask([key.reveal()])
        self._again = again or self._command
        self._clean = clean or (lambda text: plain(mask(text)))
        self._announce = announce
        self._address = settings.dashboard.address
        self._snapshot: Callable[[], Snapshot] | None = None
        self._text = STARTING
        self._server: DashboardServer | None = None
        self._changes = None if self._address is None else _no_changes(self._clean)

    @property
    def listeners(self) -> Sequence[Listener]:
        """The listeners that the run needs."""
        return () if self._changes is None else (self._changes.on_event, self._on_event)

    def watched(self, watch: Watch) -> Watch:
        """Return what watches the run for the page as well."""
        if self._address is None:
            return watch

        async def both(snapshot: Callable[[], Snapshot]) -> None:
            self._snapshot = snapshot
            try:
                await watch(snapshot)
                await asyncio.Event().wait()
            finally:
                self._snapshot = None

        return both

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve the page, if that is configured and works."""
        address, changes = self._address, self._changes
        if address is None or changes is None:
            yield
            return
        from asyncexport.monitor.dashboard_server import DashboardServer, serving_dashboard  # noqa: PLC0415 - rule 3
        from asyncexport.monitor.live_page import LivePages  # noqa: PLC0415 - rule 3

        async with AsyncExitStack() as stack:
            pages = LivePages(changes, self._page, token=secrets.token_hex(8))
            stack.push_async_callback(pages.close)
            server = DashboardServer(changes, pages, self._progress)
            try:
                url = await stack.enter_async_context(serving_dashboard(address, server))
            except OSError as error:
                reason = listen_fault(error)
                log.warning("the status page is not served: [dashboard] listen %s cannot be used: %s", address, reason)
            else:
                self._server = server
                self._announce(url)
            yield

    async def end(self, summary: Summary) -> None:
        """Show how the run has ended on all pages that are open."""
        code = summary.exit_code
        self._text = f"the run has ended with exit code {int(code)}: {MEANINGS[code]}"
        if self._server is None:
            return
        try:
            await self._server.end()
        except Exception as error:  # noqa: BLE001 - rule 1
            log.warning("the status page could not show the end of the run: unexpected %s", type(error).__name__)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Joining):
            self._text = event.text

    def _progress(self) -> str:
        """Return the progress of the run in one line."""
        from asyncexport.display.progress_text import sentence  # noqa: PLC0415 - rule 3

        text = self._text if self._snapshot is None else sentence(self._snapshot(), now=time.time())
        return self._clean(text)

    def _page(self, name: str) -> tuple[str, bool]:
        """Return the page and whether there is a ledger; `name` is that of the state it shows."""
        from asyncexport import __version__  # noqa: PLC0415 - the package imports this module on first use
        from asyncexport.monitor.page import Page, page_html  # noqa: PLC0415 - rule 3

        directory = self._settings.output.directory
        archives: dict[str, list[BundleRecord]] = {}
        has_ledger = present(directory)
        try:
            report = self._read(archives) if has_ledger else self._nothing_yet()
        except ExportError as error:
            verdict, has_ledger = Verdict(healthy=False, reason=str(error)), False
            report = StatusReport(verdict, (), None, (), (), in_progress=True, now=time.time())
        page = Page(report, archives, str(directory), __version__, name)
        return page_html(page, again=self._again, clean=self._clean), has_ledger

    def _read(self, archives: dict[str, list[BundleRecord]]) -> StatusReport:
        now = time_at_service(self._settings)
        with LedgerReader(self._settings.output.directory) as ledger:
            report = read_status(self._settings, ledger, names=(), now=now, again=self._again)
            for one in report.exports:
                archives[one.overview.name] = list(ledger.stored(one.overview.name, ALL_TIME))
        return report

    def _nothing_yet(self) -> StatusReport:
        facts = tuple(ExportFacts(nothing_of(export), export) for export in self._settings.exports)
        return status_report(DirectoryFacts(facts, in_progress=True), now=time.time(), again=self._again)

    def _command(self, command: str, *arguments: str) -> str:
        return shlex.join(["asyncexport", command, *arguments, "-d", str(self._settings.output.directory)])


def _no_changes(clean: Callable[[str], str]) -> "LiveChanges":
    from asyncexport.monitor.live_changes import LiveChanges  # noqa: PLC0415 - rule 3

    return LiveChanges(clean=clean)
