"""What is known about a body besides its bytes, and what that proves.

1. The storage host's hash is of the file as stored. If it matches, the body is complete. If it differs, the file is
   wrong, unless it was decompressed or compressed again on the way (`BodyForm`): then its framing and its structure
   have to prove it. If no header reports that, the same file must come twice.
2. A file without rows is easily a mistake: any proxy can send nothing, a newline, or `[]`. It is accepted if the hash
   matches or if it is intact gzip. Otherwise a second download, through another link and a while later, must have no
   rows either.
"""

from dataclasses import dataclass
from enum import Enum


class BodyForm(Enum):
    """Whether a body has the form that the storage host stores and hashes."""

    STORED = "as stored"
    CHANGED = "decompressed or compressed again on the way"
    PLAIN_IS_CHANGED = "as stored if it is gzip; otherwise perhaps decompressed on the way"
    UNKNOWN = "perhaps changed on the way"


@dataclass(frozen=True, slots=True)
class BodyProof:
    """What is known about a body that has ended. The default describes an archive on disk.

    Args:
        end_proved: Whether its framing confirms that it is complete; true of an archive on disk, since only complete
            files get their final name.
        hashed: Whether it matches the storage host's hash. None if the host reports none.
        form: Whether it has the form that this hash is of.
        sha256_before: The SHA-256 of the archive made of it when it last came with a different hash. "" if it did not.
        empty_before: Whether an earlier download had no rows either, or none is needed.
    """

    end_proved: bool = True
    hashed: bool | None = None
    form: BodyForm = BodyForm.STORED
    sha256_before: str = ""
    empty_before: bool = True

    @property
    def proves_end(self) -> bool:
        """Whether it is known to be complete."""
        return self.end_proved or self.hashed is True

    def may_have_changed(self, *, is_plain: bool) -> bool:
        """Whether a hash that differs may be that of another form of it. `is_plain`: it is not gzip."""
        match self.form:
            case BodyForm.STORED:
                return False
            case BodyForm.PLAIN_IS_CHANGED:
                return is_plain
            case _:
                return True

    def accepts(self, sha256: str) -> bool:
        """Whether the archive made of it is accepted although the hash differs."""
        return self.form is BodyForm.CHANGED or self.sha256_before == sha256

    def accepts_no_rows(self, *, is_plain: bool) -> bool:
        """Whether it is accepted without rows."""
        return self.hashed is True or not is_plain or self.empty_before
