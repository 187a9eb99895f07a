"""Inspecting archives from bytes in memory."""

from collections.abc import Iterable

from asyncexport.core.archive.inspection import Inspector
from asyncexport.core.exports import Format
from asyncexport.core.states import Archive


def inspect_pieces(pieces: Iterable[bytes], container: Format, *, path: str = "") -> Archive:
    """Check an archive given as bytes; it must be one layer of gzip.

    Raises:
        IncompleteError: it is cut.
        CorruptError: it is damaged, or not one layer of gzip.
    """
    inspector = Inspector(container, path=path)
    for piece in pieces:
        inspector.feed(piece)
    return inspector.close().archive
