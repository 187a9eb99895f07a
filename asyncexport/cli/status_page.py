"""`status --html`: write the report as a page.

The page is also written if the ledger cannot be read, so that no older page goes on saying that all is well.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.errors import LedgerError, Problem, StorageError

if TYPE_CHECKING:
    from asyncexport.cli.options import Asked
    from asyncexport.cli.session import Session
    from asyncexport.core.health.report import StatusReport
    from asyncexport.core.states import BundleRecord
    from asyncexport.ledger import LedgerReader

BEGINNING = b"<!doctype html>"
"""The first bytes of a page."""

Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write the report as a page for a browser, in one file."),
]


def page_problems(path: Path | None) -> list[Problem]:
    """Return what is wrong with the name of a page: a file of another kind must not be overwritten by mistake."""
    if path is None:
        return []
    if str(path) in ("-", "."):
        return [Problem("--html", "needs the name of a file")]
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            first = file.read(len(BEGINNING))
    except OSError:
        # Writing it fails with a better message.
        return []
    if first and first.lower() != BEGINNING:
        return [Problem("--html", f"{path} exists and is not an HTML page; choose another name")]
    return []


class PageWriter:
    """Writes the page of a report.

    Args:
        session: The session.
        asked: The settings.
        path: The page's file; None if no page is wanted.
    """

    def __init__(self, session: "Session", asked: "Asked", path: Path | None) -> None:
        self._session = session
        self._directory = asked.settings.output.directory
        self._path = path
        self._archives: dict[str, list[BundleRecord]] = {}
        self._size = 0

    def read(self, ledger: "LedgerReader", report: "StatusReport") -> None:
        """Read what the page shows beyond the report.

        Raises:
            LedgerError: the ledger is damaged.
        """
        from asyncexport.core.bundles import ALL_TIME

        if self._path is not None:
            names = [one.overview.name for one in report.exports]
            self._archives = {name: list(ledger.stored(name, ALL_TIME)) for name in names}

    def write(self, report: "StatusReport") -> None:
        """Write the page.

        Raises:
            StorageError: it cannot be written.
        """
        from asyncexport import __version__
        from asyncexport.display import plain
        from asyncexport.monitor.files import replace_file
        from asyncexport.monitor.page import Page, page_html

        if self._path is None:
            return
        session = self._session
        page = Page(report, self._archives, str(self._directory), __version__)
        html = page_html(page, again=session.invocation.again, clean=lambda text: plain(session.streams.masked(text)))
        content = html.encode()
        replace_file(self._path, content)
        self._size = len(content)

    def write_reason(self, reason: str) -> None:
        """Write a page without a report: not healthy, for this reason.

        Raises:
            StorageError: it cannot be written.
        """
        from asyncexport.core.health.report import StatusReport, Verdict

        self.write(
            StatusReport(Verdict(healthy=False, reason=reason), (), None, (), (), in_progress=False, now=time.time())
        )

    @contextmanager
    def when_unreadable(self) -> Iterator[None]:
        """If the report cannot be read, write a page that says so."""
        try:
            yield
        except (LedgerError, StorageError) as error:
            try:
                self.write_reason(str(error))
            except StorageError as second:
                self._session.lines.hint(f"no page was written: {second}")
            raise

    def announce(self) -> None:
        """Say where the page is, as part of the result."""
        if self._path is None:
            return
        if not self._session.quiet:
            self._session.say(f"wrote {self._path}: open it in a browser")
        self._session.record("page", path=str(self._path), bytes=self._size)
