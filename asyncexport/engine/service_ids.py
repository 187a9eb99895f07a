"""Whose operation, and whose export: an id that the service gives for two different ranges is the first one's.

1. The ledger knows for which bundles an id was ever recorded, also by earlier runs. It is asked once the row is
   durable, so that of two bundles that are given one id at the same moment only the first keeps it.
2. Bundles whose creates are equal may share an operation, and then its file as well: the same range of the same
   definition. Any other that is given the id costs a new export, since two archives of one file would be one too many.
"""

from collections.abc import Iterable, Mapping

from asyncexport.core.bundles import Bundle
from asyncexport.core.exports import Definition
from asyncexport.engine.moves import StateLog


class IdOwners:
    """Says whose an id is.

    Args:
        records: Where the ids are on record.
        definitions: What is asked for by an export, by its name.
    """

    def __init__(self, records: StateLog, definitions: Mapping[str, Definition]) -> None:
        self._records = records
        self._definitions = definitions

    async def of_operation(self, bundle: Bundle, operation_id: str) -> Bundle | None:
        """The other bundle that the operation on record for this one belongs to; None: it is this one's."""
        return self._owner(bundle, await self._records.bundles_of_operation(operation_id))

    async def of_export(self, bundle: Bundle, export_id: str) -> Bundle | None:
        """The same of an export's id."""
        return self._owner(bundle, await self._records.bundles_of_export(export_id))

    def _owner(self, bundle: Bundle, recorded: Iterable[Bundle]) -> Bundle | None:
        for one in recorded:
            if one == bundle:
                return None
            if not self._is_asked_equally(one, bundle):
                return one
        return None

    def _is_asked_equally(self, one: Bundle, other: Bundle) -> bool:
        """Whether the creates of two bundles have equal bodies."""
        definition = self._definitions.get(one.export)
        return one.range == other.range and definition is not None and definition == self._definitions.get(other.export)
