"""Reports a run to Prometheus (`[metrics]`), to a monitoring service (`[ping]`), and on a page (`[dashboard]`).

1. Nothing here stops or fails a run: what does not work is logged as a warning.
2. The text file is written and the last ping sent when the ledger is closed and the lock is released. This takes little
   time, and at most `[ping] timeout` if the monitoring service does not answer.
3. A run ends as it should with 0, or with 9 because of its maximum duration. Everything else is reported as a failure,
   also an unexpected exception. A run that is cancelled, as by a second signal, reports nothing: the monitoring service
   notices that no success came.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

from asyncexport.config import ApiKey, Settings
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.service.requests import Kind
from asyncexport.core.summary import Summary, Tally
from asyncexport.errors import ExportError
from asyncexport.monitor.files import replace_file
from asyncexport.run.dashboard import Dashboard, listen_fault
from asyncexport.run.metrics import METRICS_TYPE, read_metrics
from asyncexport.run.pings import RunPings
from asyncexport.run.spec import RunSpec

log = logging.getLogger(__name__)

FRESH_SECONDS = 10.0
"""Metrics that were read from the ledger less than this long ago are served again, however many readers ask: with
20,000 bundles, reading them takes a third of a second."""


def ends_as_it_should(summary: Summary, spec: RunSpec) -> bool:
    """Whether a run ended with 0, or with 9 because of its maximum duration.

    With 9 because its end is not settled, it has not done what `--require-end` asks for.
    """
    if summary.exit_code is Exit.TIME_UP:
        return spec.max_duration_seconds is not None and not summary.ends_unsettled
    return summary.exit_code is Exit.DONE


async def monitored(
    settings: Settings,
    spec: RunSpec,
    work: Callable[[], Awaitable[Summary]],
    *,
    key: ApiKey | None,
    dashboard: Dashboard | None = None,
) -> Summary:
    """Carry out a run and report it.

    Args:
        settings: The settings.
        spec: The run.
        work: Carries out the run.
        key: The API key, which is masked in what is reported.
        dashboard: The page that the run serves; None if it serves none.
    """
    pings = RunPings(settings, key)
    try:
        async with _served(settings), nullcontext() if dashboard is None else dashboard.served():
            pings.begin(spec.command)
            try:
                summary = await work()
            except Exception as error:
                failure = {"command": spec.command, "exit_code": 1, "error": f"unexpected {type(error).__name__}"}
                await pings.end(failure, is_success=False)
                raise
            if dashboard is not None:
                await dashboard.end(summary)
        await report_end(settings, spec, summary, pings)
    finally:
        pings.abandon()
    return summary


async def report_unstarted(settings: Settings, spec: RunSpec, error: ExportError) -> None:
    """Report a run that could not begin, because there is no API key for instance."""
    requests = {kind.value: 0 for kind in Kind}
    directory = str(settings.output.directory)
    summary = Summary(spec.command, exit_of(error), 0.0, Tally(), requests, 0, directory, error)
    await report_end(settings, spec, summary, RunPings(settings, None))


async def report_end(settings: Settings, spec: RunSpec, summary: Summary, pings: RunPings) -> None:
    """Write the text file and send the last ping, after a run."""
    if settings.metrics.textfile is not None:
        try:
            text = await asyncio.to_thread(read_metrics, settings, ended=summary)
            await asyncio.to_thread(replace_file, settings.metrics.textfile, text)
        except Exception as error:  # noqa: BLE001 - rule 1
            _warn("the metrics could not be written to [metrics] textfile", error)
    await pings.end(summary.to_dict(), is_success=ends_as_it_should(summary, spec))


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[None]:
    """Serve the metrics, if that is configured and works."""
    address = settings.metrics.address
    if address is None:
        yield
        return
    from asyncexport.monitor.metrics_server import serving_metrics  # noqa: PLC0415 - aiohttp is slow to import

    async with AsyncExitStack() as stack:
        try:
            await asyncio.to_thread(read_metrics, settings)
            server = serving_metrics(address, _FreshMetrics(settings).text, content_type=METRICS_TYPE)
            url = await stack.enter_async_context(server)
        except OSError as error:
            log.warning(
                "the metrics are not served: [metrics] listen %s cannot be used: %s", address, listen_fault(error)
            )
        except Exception as error:  # noqa: BLE001 - rule 1
            _warn("the metrics are not served", error)
        else:
            log.info("the metrics are served at %s", url)
        yield


class _FreshMetrics:
    """Reads the metrics when they are asked for, but not more often than every `FRESH_SECONDS`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reading = asyncio.Lock()
        self._text = b""
        self._read_at: float | None = None

    async def text(self) -> bytes:
        """Return the metrics."""
        time = asyncio.get_running_loop().time
        async with self._reading:
            if self._read_at is None or time() - self._read_at > FRESH_SECONDS:
                self._text = await asyncio.to_thread(read_metrics, self._settings)
                self._read_at = time()
        return self._text


def _warn(what: str, error: Exception) -> None:
    if isinstance(error, ExportError):
        log.warning("%s: %s", what, f"{error}; {error.hint}" if error.hint else error)
    else:
        log.warning("%s: unexpected %s", what, type(error).__name__)
