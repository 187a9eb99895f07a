"""What the text of a field becomes in its column, as SQL of DuckDB.

1. A field arrives as text: the content of a JSON string, or the JSON text of any other value. NULL stands for a missing
   value.
2. A value that its column cannot hold exactly becomes NULL, and its text is rescued. So each kind has an expression
   that is NULL for every text that does not fit, however willing DuckDB is to cast it: it rounds 1.6 to an integer,
   reads "1_000", takes a date without a time, and cuts nanoseconds.
3. Which texts fit is defined in `cells`. The same rules are applied to rows that DuckDB does not read itself.
"""

from asyncexport.core.warehouse.cells import LEAST_REAL, MOST_DIGITS, REAL, TIME
from asyncexport.core.warehouse.columns import ColumnKind

FIRST_TIME, LAST_TIME = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"


def cast(text: str, kind: ColumnKind) -> str:
    """Return the expression of a column's value, from the expression of its text."""
    match kind:
        case ColumnKind.INTEGER:
            return f"CASE WHEN CAST(TRY_CAST({text} AS BIGINT) AS VARCHAR) = {text} THEN TRY_CAST({text} AS BIGINT) END"
        case ColumnKind.TIME:
            time = f"TRY_CAST({text} AS TIMESTAMPTZ)"
            years = f"{time} BETWEEN TIMESTAMPTZ '{FIRST_TIME}' AND TIMESTAMPTZ '{LAST_TIME}'"
            return f"CASE WHEN regexp_full_match({text}, '{TIME}') THEN CASE WHEN {years} THEN {time} END END"
        case ColumnKind.REAL:
            return _real(text)
        case ColumnKind.SWITCH:
            return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"
        case _:
            return text


def _real(text: str) -> str:
    real = f"TRY_CAST({text} AS DOUBLE)"
    digits = f"length(trim(replace(regexp_extract({text}, '[0-9.]+'), '.', ''), '0'))"
    is_shortest = f"CAST({real} AS VARCHAR) IN ({text}, {text} || '.0')"
    is_short = f"{digits} <= {MOST_DIGITS} AND ({digits} = 0 OR abs({real}) >= {LEAST_REAL!r})"
    fits = f"isfinite({real}) AND ({is_shortest} OR ({is_short}))"
    return f"CASE WHEN regexp_full_match({text}, '{REAL}') THEN CASE WHEN {fits} THEN {real} END END"


def may_fail(kind: ColumnKind) -> bool:
    """Whether some texts do not fit a column of this kind."""
    return kind in {ColumnKind.INTEGER, ColumnKind.TIME, ColumnKind.REAL, ColumnKind.SWITCH}
