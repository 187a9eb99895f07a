"""Whether everything that was older than 30 days when it was exported came without rows.

The segment `everyone` covers only the last 30 days unless an export asks for more, a segment may be limited in time by
its own definition, and accounts keep their data for a limited time. In all three cases the service answers with empty
files and no error. A week of old data is enough to judge: a quiet site may have days without visits. If any of it has a
row, the service does give old data.
"""

from typing import NamedTuple

from asyncexport.core.bundles import DAY, Bundle, Range
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule

OLD_SECONDS = 30 * DAY

LEAST_SECONDS = 7 * DAY
"""How much old data must be stored before it is judged."""


class OldData(NamedTuple):
    """The bundles of an export that were older than 30 days when they were exported.

    Attributes:
        span: From the beginning of the first to the end of the last.
        seconds: Their time, added up.
        rows: Their rows, added up.
    """

    span: Range
    seconds: int
    rows: int


def empty_old_data(export: str, old: OldData | None) -> Shortfall | None:
    """Return the shortfall if all old data of an export is empty; None if it is not, or there is too little of it."""
    if old is None or old.rows or old.seconds < LEAST_SECONDS:
        return None
    return Shortfall(Bundle(export, old.span), ShortfallRule.OLD_EMPTY, None, 0)
