"""Compares the columns that a table should have with those that it has; and reads the receipts of days."""

from collections.abc import Callable, Iterable, Mapping

from asyncexport.core.warehouse.columns import Column


def missing_columns(
    columns: Iterable[Column],
    types: Mapping[str, str],
    *,
    name_of: Callable[[Column], str],
    type_of: Callable[[Column], str],
    fits: Callable[[Column, str], bool],
) -> tuple[Column, ...]:
    """Return the columns that a table lacks.

    Args:
        columns: The columns that it should have.
        types: Those that it has, with their types as the destination writes them.
        name_of: Returns the name of a column in the destination.
        type_of: Returns the type that the destination gives a column.
        fits: Returns whether a column's values can be stored in another type without loss.

    Raises:
        ValueError: a column has a type that cannot hold its values.
    """
    lacks = []
    for column in columns:
        name = name_of(column)
        if name not in types:
            lacks.append(column)
        elif not fits(column, types[name]):
            raise ValueError(f"its column {name} is {types[name]}, not {type_of(column)}")
    return tuple(lacks)


def lacking_names(wanted: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of columns that one of our own tables lacks: it may be from another version."""
    there = set(names)
    return tuple(name for name in wanted if name not in there)


def single_receipts(found: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return the receipt of each day; none for a day that is being loaded, or that has two different ones."""
    by_day: dict[str, set[str | None]] = {}
    for day, receipt in found:
        by_day.setdefault(day, set()).add(receipt)
    return {day: one for day, those in by_day.items() if len(those) == 1 and (one := next(iter(those))) is not None}
