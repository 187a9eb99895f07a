"""The bundles of a run in the order in which they are taken up; the newest of an export may be taken ahead of its turn.

Bundles are made lazily, as they are asked for.
"""

from collections.abc import Iterator, Sequence

from asyncexport.core.bundles import Bundle
from asyncexport.core.coverage import ExportPlan, in_order
from asyncexport.core.states import BundleRecord


class WorkQueue:
    """What several exports have to do; iterates over bundles as the ledger has them, each once."""

    def __init__(self, plans: Sequence[ExportPlan]) -> None:
        self._plans = {plan.export.name: plan for plan in plans}
        self._in_order = in_order(plans)
        self._given: set[Bundle] = set()

    def __iter__(self) -> Iterator[BundleRecord]:
        """Over what was not given yet."""
        for record in self._in_order:
            if record.bundle not in self._given:
                self._given.add(record.bundle)
                yield record

    def newest(self, export: str) -> BundleRecord | None:
        """The newest bundle of an export that was not given yet and is not claimed, which is given by this."""
        found: BundleRecord | None = None
        for record in self._plans[export].unclaimed():
            if record.bundle not in self._given:
                found = record
        if found is not None:
            self._given.add(found.bundle)
        return found
