"""What is known of a body besides its bytes, and what that proves.

1. A hash is of the file as it is stored. Where the body has it, nothing else need prove its end. Where it has another
   one, the file is wrong, unless it was inflated or compressed again on the way (`BodyForm`): then its framing and its
   structure have to prove it. Where that is told by no header, the same file must come twice.
2. A file without rows is easily mistaken: any box can send nothing, a line end, or `[]`. It is believed where the hash
   fits or whole gzip is around it. Else it must be said twice, through two links, with a while in between.
"""

from dataclasses import dataclass
from enum import Enum


class BodyForm(Enum):
    """Whether a body is in the form that the store holds, of which its hash is."""

    STORED = "as it is stored"
    CHANGED = "inflated or compressed again on the way"
    PLAIN_IS_CHANGED = "as it is stored, if it is gzip; else perhaps inflated on the way"
    UNKNOWN = "perhaps changed on the way"


@dataclass(frozen=True, slots=True)
class BodyProof:
    """What is known of a body that has ended; the default is that of an archive on disk.

    Args:
        end_proved: Its framing proved that it ended there; of an archive on disk, who gave it its name knew.
        hashed: Whether it has the hash that the storage host names; None where none was named.
        form: Whether that hash is of this form of it.
        came_before: The SHA-256 of the archive that was made of it when it last came under another hash; "" if it did
            not.
        nothing_before: It was looked at before, and had no rows then either, or need not be.
    """

    end_proved: bool = True
    hashed: bool | None = None
    form: BodyForm = BodyForm.STORED
    came_before: str = ""
    nothing_before: bool = True

    @property
    def proves_end(self) -> bool:
        """Whether it ends where it should."""
        return self.end_proved or self.hashed is True

    def may_have_changed(self, *, is_plain: bool) -> bool:
        """Whether a hash that it does not have may be that of another form of it; `is_plain`: it is not gzip."""
        match self.form:
            case BodyForm.STORED:
                return False
            case BodyForm.PLAIN_IS_CHANGED:
                return is_plain
            case _:
                return True

    def believes(self, sha256: str) -> bool:
        """Whether the archive that was made of it may be taken, though its hash is another."""
        return self.form is BodyForm.CHANGED or self.came_before == sha256

    def believes_nothing(self, *, is_plain: bool) -> bool:
        """Whether it may be taken without rows."""
        return self.hashed is True or not is_plain or self.nothing_before
