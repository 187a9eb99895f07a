"""Reads what the metrics are made from: the ledger, the settings and the disk. It changes nothing."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asyncexport.client.clock import time_by
from asyncexport.config import Settings
from asyncexport.core.admission import BudgetScope
from asyncexport.core.bundles import ALL_TIME
from asyncexport.core.summary import Summary
from asyncexport.display import plain
from asyncexport.errors import ConfigError, ExportError, Problem
from asyncexport.ledger import LedgerReader
from asyncexport.run.planner import CLOCK_CHECK
from asyncexport.run.status import read_status
from asyncexport.run.wiring import quota_of

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text format."""

MISSING_LIBRARY = "the library prometheus_client, which writes them, is not installed"

HOW_TO_INSTALL = "install it: pip install 'asyncexport[metrics]'"


def read_metrics(
    settings: Settings, *, ended: Summary | None = None, unreadable: Callable[[ExportError], None] = lambda _error: None
) -> bytes:
    """Return the metrics in Prometheus' text format.

    Args:
        settings: The settings, with the directory.
        ended: The summary of the run that asks for them. None if none asks.
        unreadable: Called with the error if the ledger cannot be read. The metrics then say that.

    Raises:
        ConfigError: the library that writes them is not installed.
    """
    try:
        from asyncexport.monitor.metrics import EndedRun, MetricsFacts, metrics_text  # noqa: PLC0415 - an optional library
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise ConfigError([Problem("metrics", MISSING_LIBRARY)], hint=HOW_TO_INSTALL) from None

    where, now = settings.output.directory, time_by(None, trust=settings.api.clock)
    run = None if ended is None else EndedRun(ended.command, int(ended.exit_code), now)
    facts = MetricsFacts(plain(str(where.absolute())), now, disk=_disk(where), ended=run)
    try:
        with LedgerReader(where) as ledger:
            now = time_by(ledger.recall(CLOCK_CHECK), trust=settings.api.clock)
            report = read_status(settings, ledger, names=(), now=now, again=_no_command, looks_up_files=False)
            history, quota = ledger.request_history(now=now), quota_of(settings)
            scopes = (BudgetScope.ALL, BudgetScope.CREATE)
            used = {scope.value: history.tokens_used(quota, scope, now=now) for scope in scopes}
            facts = replace(
                facts,
                now=now,
                report=report,
                operations=ledger.durations(),
                tokens={scope: max(0.0, quota.usable_burst - count) for scope, count in used.items()},
                burst=quota.usable_burst,
                split={name: len(ledger.recorded_range(name, ALL_TIME).split) for name in ledger.exports()},
            )
    except ExportError as error:
        unreadable(error)
    return metrics_text(facts)


def _disk(directory: Path) -> tuple[int, int] | None:
    """Return the free bytes and the size of the disk of a directory, which may not exist yet."""
    for path in (directory.absolute(), *directory.absolute().parents):
        try:
            usage = shutil.disk_usage(path)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return usage.free, usage.total
    return None


def _no_command(*_words: str) -> str:
    return ""
