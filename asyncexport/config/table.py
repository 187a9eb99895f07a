"""What all tables of settings have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of settings: frozen, with no other keys than its own. `seconds` in a name is not part of the key."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        alias_generator=lambda name: name.removesuffix("_seconds"),
    )


def default(written: Any) -> Any:
    """Return a default as written in the file; it is validated like any other value."""
    return written
