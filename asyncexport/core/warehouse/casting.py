"""What the text of a field becomes in its column, as SQL of DuckDB.

1. A field arrives as text: the content of a JSON string, or the JSON text of any other value. NULL stands for a missing
   value.
2. A value that its column cannot hold exactly becomes NULL, and its text is rescued. So each kind has an expression
   that is NULL for every text that does not fit, however willing DuckDB is to cast it: it rounds 1.6 to an integer,
   reads "1_000", and takes a date without a time.
3. Integers fit if they are written as DuckDB writes them: `12`, but neither `012` nor `1e3`.
4. Times fit in the form of RFC 3339 with at most six digits of a second. An offset is converted to UTC, since the
   column keeps the exact instant.
5. Reals fit if they are finite, and if DuckDB writes the same number again.
"""

from asyncexport.core.warehouse.columns import ColumnKind

RFC_3339 = r"\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
"""The times that fit. Leap seconds do not: the column has no place for them."""


def cast(text: str, kind: ColumnKind) -> str:
    """Return the expression of a column's value, from the expression of its text."""
    match kind:
        case ColumnKind.INTEGER:
            return f"CASE WHEN CAST(TRY_CAST({text} AS BIGINT) AS VARCHAR) = {text} THEN TRY_CAST({text} AS BIGINT) END"
        case ColumnKind.TIME:
            return f"CASE WHEN regexp_full_match({text}, '{RFC_3339}') THEN TRY_CAST({text} AS TIMESTAMPTZ) END"
        case ColumnKind.REAL:
            real = f"TRY_CAST({text} AS DOUBLE)"
            return f"CASE WHEN isfinite({real}) AND CAST({real} AS VARCHAR) IN ({text}, {text} || '.0') THEN {real} END"
        case ColumnKind.SWITCH:
            return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"
        case _:
            return text


def may_fail(kind: ColumnKind) -> bool:
    """Whether some texts do not fit a column of this kind."""
    return kind in {ColumnKind.INTEGER, ColumnKind.TIME, ColumnKind.REAL, ColumnKind.SWITCH}
