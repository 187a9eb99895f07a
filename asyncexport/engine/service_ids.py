"""Checks which bundle an operation id or export id belongs to.

1. If the service gives one id for two different ranges, it belongs to the bundle that had it first. The ledger knows
   all bundles for which an id was ever recorded, in earlier runs too. It is asked after the bundle's own row is
   durable, so that of two bundles that get the same id at the same time only the first keeps it.
2. Bundles with equal creates (the same range of the same definition) may share an operation and its file. Any other
   bundle that gets the id needs a new export: otherwise two archives would hold the same file.
"""

from collections.abc import Iterable, Mapping

from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Definition
from asyncexport.engine.moves import StateLog


class IdOwners:
    """Finds the bundle that an id belongs to.

    Args:
        records: The record of ids.
        definitions: The definitions of the exports, by name.
    """

    def __init__(self, records: StateLog, definitions: Mapping[str, Definition]) -> None:
        self._records = records
        self._definitions = definitions

    async def of_operation(self, bundle: Bundle, operation_id: str) -> Bundle | None:
        """Return the other bundle that this bundle's recorded operation belongs to; None if it is this bundle's own."""
        return self._owner(bundle, await self._records.bundles_of_operation(operation_id))

    async def of_export(self, bundle: Bundle, export_id: str) -> Bundle | None:
        """Return the other bundle that this bundle's recorded export belongs to; None if it is this bundle's own."""
        return self._owner(bundle, await self._records.bundles_of_export(export_id))

    def _owner(self, bundle: Bundle, recorded: Iterable[Bundle]) -> Bundle | None:
        for one in recorded:
            if one == bundle:
                return None
            if not self._have_equal_creates(one, bundle):
                return one
        return None

    def _have_equal_creates(self, one: Bundle, other: Bundle) -> bool:
        """Whether the creates of two bundles have equal bodies."""
        definition = self._definitions.get(one.export)
        return one.range == other.range and definition is not None and definition == self._definitions.get(other.export)
