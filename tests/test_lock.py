"""Who holds an output directory."""

import os
import socket

import orjson
import pytest

from asyncexport.errors import LedgerLockedError
from asyncexport.ledger import hold, holder


def written(directory, **holder):
    folder = directory / ".asyncexport"
    folder.mkdir()
    (folder / "lock").write_bytes(orjson.dumps(holder))


def test_a_directory_that_nobody_ever_held_has_no_holder(tmp_path):
    """Looking makes nothing."""
    assert holder(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_holder_is_named_while_it_holds(tmp_path):
    """While a run goes on, others are told which, since when, and by which process; afterwards nobody is named."""
    with hold(tmp_path, command="backfill"):
        found = holder(tmp_path)
        assert found is not None
        assert (found.command, found.pid, found.host) == ("backfill", os.getpid(), socket.gethostname())
        with (
            pytest.raises(LedgerLockedError, match=f"backfill, process {os.getpid()} on "),
            hold(tmp_path, command="x"),
        ):
            raise AssertionError("two hold it")
    assert holder(tmp_path) is None


def test_a_process_of_this_machine_that_has_ended_holds_nothing(tmp_path):
    """What a killed run left in the file does not pass for a run that goes on."""
    written(tmp_path, command="backfill", pid=2**22 + 7, host=socket.gethostname(), since=1.0)
    assert holder(tmp_path) is None


def test_a_process_of_another_machine_is_believed(tmp_path):
    """On a shared disk it cannot be asked."""
    written(tmp_path, command="backfill", pid=2**22 + 7, host="elsewhere.example", since=1.0)
    assert str(holder(tmp_path)) == "backfill, process 4194311 on elsewhere.example, since 1970-01-01T00:00:01Z"


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"pid": 1}', b'{"command":"a","pid":1,"host":"b","since":1e99}'])
def test_what_cannot_be_read_names_nobody(tmp_path, text):
    """Half a line that a crash left is no holder, and no error."""
    (tmp_path / ".asyncexport").mkdir()
    (tmp_path / ".asyncexport" / "lock").write_bytes(text)
    assert holder(tmp_path) is None
