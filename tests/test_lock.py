"""Who holds an output directory, and for how long."""

import errno
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from asyncexport.core.bundles import show
from asyncexport.errors import LedgerError, LedgerLockedError, StorageError
from asyncexport.ledger import Ledger, LedgerReader, hold, holder
from tests.failpoints import telling
from tests.ledger_rig import given_away, locks_that_do_nothing, without_rights

ROOT = Path(__file__).parents[1]

HOLDING = """
import pathlib, sys
from asyncexport.ledger import hold

with hold(pathlib.Path(sys.argv[1]), command="nightly"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(directory):
    """By another process, which ends when it is told to, or killed."""
    command = [sys.executable, "-c", HOLDING, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


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


def test_the_loser_is_told_who_holds_it(tmp_path):
    """Which command, which process on which machine, and since when; and what to do."""
    before = int(time.time())
    with held_elsewhere(tmp_path) as process:
        moments = {show(at) for at in range(before, int(time.time()) + 1)}
        with pytest.raises(LedgerLockedError) as told, hold(tmp_path, command="backfill"):
            raise AssertionError("two hold it")
    told_since = str(told.value).rpartition(" since ")[2]
    assert str(told.value) == (
        f"another run holds {tmp_path}: nightly, process {process.pid} on {socket.gethostname()}, since {told_since}"
    )
    assert told_since in moments
    assert told.value.hint


def test_a_killed_holder_holds_nothing(tmp_path):
    """The lock ends with the process, whatever it left in the file; the next one is named in its place."""
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        assert b"nightly" in (tmp_path / ".asyncexport" / "lock").read_bytes()
        with hold(tmp_path, command="backfill"):
            found = holder(tmp_path)
            assert found
            assert (found.command, found.pid) == ("backfill", os.getpid())


def test_a_holder_that_ends_leaves_the_file_and_nothing_in_it(tmp_path):
    """A file is never taken away under somebody who waits for its lock; after an error, too."""
    for error in (None, ZeroDivisionError):
        try:
            with hold(tmp_path, command="backfill"):
                number = (tmp_path / ".asyncexport" / "lock").stat().st_ino
                if error:
                    raise error
        except ZeroDivisionError:
            pass
        lock = tmp_path / ".asyncexport" / "lock"
        assert (lock.read_bytes(), lock.stat().st_ino) == (b"", number)


def test_an_old_lock_file_is_nothing(tmp_path):
    """However much it says; nor is one that is no longer readable as what we write."""
    written(tmp_path, command="a long name " * 500, pid=1, host=socket.gethostname(), since=1.0)
    with hold(tmp_path, command="backfill"):
        found = holder(tmp_path)
        assert found
        assert found.command == "backfill"


def test_the_lock_is_not_inherited(tmp_path):
    """A program that a run starts does not hold the directory after it."""
    with hold(tmp_path, command="backfill"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with hold(tmp_path, command="backfill"):
            pass
    finally:
        child.kill()
        child.wait()


def test_holding_makes_the_directory(tmp_path):
    """With all above it; what is ours in it is for its owner alone."""
    directory = tmp_path / "a" / "b"
    with hold(directory, command="backfill"):
        assert stat.S_IMODE((directory / ".asyncexport").stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / ".asyncexport" / "lock").stat().st_mode) == 0o600


def test_a_relative_directory_is_held_where_it_was(tmp_path):
    """Wherever the process goes meanwhile."""
    with chdir(tmp_path), hold(Path("exports"), command="backfill"), chdir("/"):
        assert holder(tmp_path / "exports")
    assert not holder(tmp_path / "exports")


def test_a_directory_that_cannot_be_written_is_an_error_of_the_disk(tmp_path):
    """It names the place."""
    (tmp_path / "exports").write_text("a file")
    with (
        pytest.raises(StorageError, match=r"exports/\.asyncexport: Not a directory"),
        hold(tmp_path / "exports", command="x"),
    ):
        raise AssertionError("held")


def test_a_directory_of_somebody_else_is_an_error_of_the_disk(tmp_path):
    """Nothing is made in it."""
    tmp_path.chmod(0o500)
    given_away(tmp_path)
    with without_rights(), pytest.raises(StorageError), hold(tmp_path, command="x"):
        raise AssertionError("held")
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


# What its file system cannot do


linux_only = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be listed")


def test_a_file_system_that_does_all_is_not_spoken_of(tmp_path):
    """The lock is tried twice, and the folder flushed."""
    with hold(tmp_path, command="backfill") as notes:
        assert notes == ()


@linux_only
def test_a_lock_that_does_nothing_is_told(tmp_path):
    """A run goes on, and the user knows that nothing keeps a second one out."""
    with locks_that_do_nothing(tmp_path), hold(tmp_path, command="backfill") as notes:
        (note,) = notes
    assert "no working locks" in note
    assert str(tmp_path) in note


@linux_only
def test_where_locks_do_nothing_a_run_on_this_machine_is_seen_by_what_it_wrote(tmp_path):
    """It is named; what a process left that has ended is no run, nor is one of another machine."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            written(tmp_path, command="nightly", pid=child.pid, host=socket.gethostname(), since=1.0)
            with (
                locks_that_do_nothing(tmp_path),
                pytest.raises(LedgerLockedError, match=f"nightly, process {child.pid} on ") as told,
                hold(tmp_path, command="x"),
            ):
                raise AssertionError("held")
        finally:
            child.kill()
    assert "delete" in told.value.hint
    for pid, host in ((child.pid, socket.gethostname()), (os.getppid(), "elsewhere.example")):
        holder = {"command": "nightly", "pid": pid, "host": host, "since": 1.0}
        (tmp_path / ".asyncexport" / "lock").write_bytes(orjson.dumps(holder))
        with locks_that_do_nothing(tmp_path), hold(tmp_path, command="x") as notes:
            assert len(notes) == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_flushed_is_told_and_lived_with(tmp_path, number):
    """Some file systems have no such thing; any other error counts."""

    def failing(name: str) -> None:
        if name == "ledger.folder.fsync:before":
            raise OSError(number, os.strerror(number))

    with telling(failing), hold(tmp_path, command="x") as notes:
        (note,) = notes
    assert "cannot flush folders" in note
    number = errno.EIO
    with telling(failing), pytest.raises(StorageError, match="Input/output"), hold(tmp_path, command="x"):
        raise AssertionError("held")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOLCK, "its file system gives out no locks"),
        (errno.EISDIR, "is a folder, and a file belongs there"),
        (errno.EMFILE, "this process has as many files open as it may"),
        (errno.ENFILE, "this machine has as many files open as it can"),
    ],
)
def test_what_a_lock_fails_with_is_named(tmp_path, number, message):
    """None of these has to do with room."""

    def failing(name: str) -> None:
        if name == "lock:before":
            raise OSError(number, os.strerror(number))

    with telling(failing), pytest.raises(StorageError, match=message) as told, hold(tmp_path, command="x"):
        raise AssertionError("held")
    assert told.value.hint


async def _used(directory: Path) -> None:
    """The ledger, as a run uses it."""
    with hold(directory, command="x"):
        ledger = await Ledger.open(directory)
        ledger.remember("key", "value")
        await ledger.close()


@pytest.mark.parametrize("name", ["lock", "ledger.sqlite3-mark", "ledger.sqlite3", "ledger.sqlite3-wal"])
async def test_a_pipe_among_the_ledgers_files_is_not_waited_for(tmp_path, name):
    """It is an error of the disk or a damaged ledger; whoever only looks is not held up by it either."""
    await (await Ledger.open(tmp_path)).close()
    place = tmp_path / ".asyncexport" / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises((StorageError, LedgerError)):
        await _used(tmp_path)
    assert holder(tmp_path) is None
    with suppress(LedgerError, StorageError), LedgerReader(tmp_path) as reader:
        reader.check()


# Links


@pytest.mark.parametrize("name", ["lock", "ledger.sqlite3-mark", "ledger.sqlite3", "ledger.sqlite3-wal"])
async def test_a_link_among_the_ledgers_files_is_not_followed(tmp_path, name):
    """Whoever laid it there does not have us write to, or restrict, another file of ours."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    await (await Ledger.open(tmp_path / "out")).close()
    place = tmp_path / "out" / ".asyncexport" / name
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    with pytest.raises(StorageError, match=f"{name} is a link"), hold(tmp_path / "out", command="x"):
        await (await Ledger.open(tmp_path / "out")).close()
    assert holder(tmp_path / "out") is None
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o644)


async def test_the_folder_may_be_a_link_to_one_of_ours(tmp_path):
    """Its mode stays as it is; what is made in it is for its owner alone."""
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".asyncexport").symlink_to(tmp_path / "elsewhere")
    with hold(tmp_path / "out", command="x"):
        await (await Ledger.open(tmp_path / "out")).close()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "elsewhere" / "lock").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "elsewhere" / "ledger.sqlite3").stat().st_mode) == 0o600


@pytest.mark.parametrize("what", ["group", "others", "file", "nothing", "theirs"])
def test_a_link_to_anything_else_is_refused(tmp_path, what):
    """A folder that others can write to, or that is not there."""
    target = tmp_path / "elsewhere"
    match what:
        case "file":
            target.write_text("precious")
        case "nothing":
            pass
        case _:
            target.mkdir()
            target.chmod({"group": 0o770, "others": 0o707, "theirs": 0o755}[what])
    if what == "theirs":
        if os.geteuid():
            pytest.skip("only root can give a folder away")
        os.chown(target, 65534, 65534)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".asyncexport").symlink_to(target)
    with pytest.raises(StorageError, match=r"\.asyncexport is a link to ") as told, hold(tmp_path / "out", command="x"):
        raise AssertionError("held")
    assert told.value.hint
    assert what in ("file", "nothing") or not list(target.iterdir())
