"""The stored bundles that an audit may choose from.

Only the table `bundle`, and for recent exports the revision in `state`, is read: a hundred thousand bundles take some
tenths of a second.
"""

from asyncexport.core.auditing import AuditCandidate
from asyncexport.core.bundles import Range
from asyncexport.ledger.writers import WriterQueries

_CANDIDATES = (
    "SELECT start, stop, exported >= ?3 AND"
    " (SELECT archived.{revision} > 0 FROM state AS archived WHERE archived.seq = bundle.stored) FROM bundle"
    " WHERE export = ?1 AND start >= ?4 AND stop <= ?2 AND stored = latest ORDER BY start, stop"
)
"""Bundles whose newest revision is stored, and whether it is a later one that was exported recently."""


class SampleQueries(WriterQueries):
    """Reads the candidates for an audit."""

    def audit_candidates(self, export: str, span: Range, *, ended_by: float, lately: float) -> list[AuditCandidate]:
        """Return the bundles in the span that have an archive and no unfinished revision, in order of time.

        Args:
            export: The name of the export; one that the ledger does not know has none.
            span: The range that they lie in.
            ended_by: Only bundles that end at this time or earlier.
            lately: Since when a bundle that was exported again counts as compared lately.
        """
        with self._snapshot() as head:
            if export not in head.exports:
                return []
            self._check_sums(head)
            number = head.exports[export].number
            query = _CANDIDATES.format(revision="take" if head.version < 2 else "revision")
            rows = self._connection.execute(query, (number, min(ended_by, span.end), lately, span.start))
            return [AuditCandidate(export, start, stop, bool(again)) for start, stop, again in rows]
