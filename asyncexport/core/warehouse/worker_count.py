"""How many days are made at the same time."""

WORKER_OVERHEAD = 200 << 20
"""Memory of a worker beside DuckDB's limit, in bytes."""


def worker_count(asked: int, *, cores: int, available: int | None, memory: int) -> int:
    """Return the number of workers, at least one.

    Args:
        asked: `[load] workers`; 0 for as many as cores and memory allow.
        cores: The cores that this process may use.
        available: The memory that is available, in bytes. None if that is not known.
        memory: `[load] memory`, in bytes.
    """
    if asked:
        return asked
    fitting = cores if available is None else available // (memory + WORKER_OVERHEAD)
    return max(1, min(cores, fitting))
