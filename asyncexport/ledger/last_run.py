"""How the newest run ended, as the ledger remembers it for whoever asks later."""

from dataclasses import asdict, dataclass

import orjson

LAST_RUN = "last_run"
"""The key of the remark that holds it."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the ledger remembers of the newest run: a small JSON object.

    Attributes:
        command: Which.
        began: When, in seconds since 1970.
        ended: The same; None where it did not get that far, or has not yet.
        exit_code: How it ended; None likewise.
        error: Why, in a line; "" where no error ended it.
    """

    command: str
    began: float
    ended: float | None = None
    exit_code: int | None = None
    error: str = ""

    @classmethod
    def read(cls, text: str | None) -> "LastRun | None":
        """What `to_json` made; None where there is nothing, or what another version wrote."""
        try:
            return cls(**orjson.loads(text)) if text else None
        except (TypeError, ValueError):
            return None

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return orjson.dumps(asdict(self)).decode()
