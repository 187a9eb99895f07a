"""The lock of an output directory: who holds it, for how long, and how it is reported."""

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
from asyncexport.ledger import Ledger, LedgerReader, hold, hold_load, holder
from tests.failpoints import at_failpoints
from tests.ledger_rig import give_to_other_user, locks_that_do_nothing, without_permissions

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
    """Hold the directory in another process, which is killed at the end of the block."""
    command = [sys.executable, "-c", HOLDING, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def write_lock(directory, **holder):
    folder = directory / ".asyncexport"
    folder.mkdir()
    (folder / "lock").write_bytes(orjson.dumps(holder))


def test_a_new_directory_has_no_holder(tmp_path):
    """Asking for the holder creates no files."""
    assert holder(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_holder_is_reported_while_it_holds(tmp_path):
    """During a run, others learn its command, process and start; afterwards there is no holder."""
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


def test_a_process_of_this_machine_that_has_ended_is_no_holder(tmp_path):
    """What a killed run left in the lock file does not count as a run."""
    write_lock(tmp_path, command="backfill", pid=2**22 + 7, host=socket.gethostname(), since=1.0)
    assert holder(tmp_path) is None


def test_a_process_of_another_machine_counts_as_the_holder(tmp_path):
    """On a shared disk it cannot be checked whether it is still running."""
    write_lock(tmp_path, command="backfill", pid=2**22 + 7, host="elsewhere.example", since=1.0)
    assert str(holder(tmp_path)) == "backfill, process 4194311 on elsewhere.example, since 1970-01-01T00:00:01Z"


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"pid": 1}', b'{"command":"a","pid":1,"host":"b","since":1e99}'])
def test_an_unreadable_lock_file_has_no_holder(tmp_path, text):
    """A line cut by a crash is neither a holder nor an error."""
    (tmp_path / ".asyncexport").mkdir()
    (tmp_path / ".asyncexport" / "lock").write_bytes(text)
    assert holder(tmp_path) is None


def test_the_error_names_the_holder(tmp_path):
    """It has the command, the process, the machine and the start, and a hint."""
    before = int(time.time())
    with held_elsewhere(tmp_path) as process:
        possible_times = {show(at) for at in range(before, int(time.time()) + 1)}
        with pytest.raises(LedgerLockedError) as caught, hold(tmp_path, command="backfill"):
            raise AssertionError("two hold it")
    since = str(caught.value).rpartition(" since ")[2]
    assert str(caught.value) == (
        f"another run holds {tmp_path}: nightly, process {process.pid} on {socket.gethostname()}, since {since}"
    )
    assert since in possible_times
    assert caught.value.hint


def test_a_killed_holder_releases_the_lock(tmp_path):
    """The lock ends with the process, whatever is left in the file, and the next holder is recorded."""
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        assert b"nightly" in (tmp_path / ".asyncexport" / "lock").read_bytes()
        with hold(tmp_path, command="backfill"):
            found = holder(tmp_path)
            assert found
            assert (found.command, found.pid) == ("backfill", os.getpid())


def test_a_released_lock_leaves_an_empty_file(tmp_path):
    """The file is not deleted, since another process may wait for its lock; this also holds after an error."""
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


def test_an_old_lock_file_is_overwritten(tmp_path):
    """Its content may be long or unreadable."""
    write_lock(tmp_path, command="a long name " * 500, pid=1, host=socket.gethostname(), since=1.0)
    with hold(tmp_path, command="backfill"):
        found = holder(tmp_path)
        assert found
        assert found.command == "backfill"


def test_the_lock_is_not_inherited(tmp_path):
    """A child process of a run does not hold the directory after the run has ended."""
    with hold(tmp_path, command="backfill"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with hold(tmp_path, command="backfill"):
            pass
    finally:
        child.kill()
        child.wait()


def test_the_directory_is_created_with_its_lock(tmp_path):
    """Missing parents are created as well, and the ledger's folder is private."""
    directory = tmp_path / "a" / "b"
    with hold(directory, command="backfill"):
        assert stat.S_IMODE((directory / ".asyncexport").stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / ".asyncexport" / "lock").stat().st_mode) == 0o600


def test_a_relative_directory_stays_locked_after_a_change_of_directory(tmp_path):
    """The lock belongs to the directory that was meant when it was taken."""
    with chdir(tmp_path), hold(Path("exports"), command="backfill"), chdir("/"):
        assert holder(tmp_path / "exports")
    assert not holder(tmp_path / "exports")


def test_a_directory_that_cannot_be_created_is_a_storage_error(tmp_path):
    """The error names the path."""
    (tmp_path / "exports").write_text("a file")
    with (
        pytest.raises(StorageError, match=r"exports/\.asyncexport cannot be used: in its path"),
        hold(tmp_path / "exports", command="x"),
    ):
        raise AssertionError("held")


def test_a_directory_without_write_permission_is_a_storage_error(tmp_path):
    """Nothing is created in it."""
    tmp_path.chmod(0o500)
    give_to_other_user(tmp_path)
    with without_permissions(), pytest.raises(StorageError), hold(tmp_path, command="x"):
        raise AssertionError("held")
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


# Limits of the file system


linux_only = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system cannot list open files")


def test_a_file_system_without_limits_causes_no_note(tmp_path):
    """The lock is tested with a second handle, and the folder is fsynced."""
    with hold(tmp_path, command="backfill") as notes:
        assert notes == ()


@linux_only
def test_a_lock_without_effect_is_noted(tmp_path):
    """The run continues, and a note says that a second run would not be kept out."""
    with locks_that_do_nothing(tmp_path), hold(tmp_path, command="backfill") as notes:
        (note,) = notes
    assert "no working locks" in note
    assert str(tmp_path) in note


@linux_only
def test_without_working_locks_a_run_on_this_machine_is_found_by_its_lock_file(tmp_path):
    """It is reported; a process that has ended, or one of another machine, only causes the note."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            write_lock(tmp_path, command="nightly", pid=child.pid, host=socket.gethostname(), since=1.0)
            with (
                locks_that_do_nothing(tmp_path),
                pytest.raises(LedgerLockedError, match=f"nightly, process {child.pid} on ") as caught,
                hold(tmp_path, command="x"),
            ):
                raise AssertionError("held")
        finally:
            child.kill()
    assert "delete" in caught.value.hint
    for pid, host in ((child.pid, socket.gethostname()), (os.getppid(), "elsewhere.example")):
        holder = {"command": "nightly", "pid": pid, "host": host, "since": 1.0}
        (tmp_path / ".asyncexport" / "lock").write_bytes(orjson.dumps(holder))
        with locks_that_do_nothing(tmp_path), hold(tmp_path, command="x") as notes:
            assert len(notes) == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_fsynced_is_noted(tmp_path, number):
    """File systems may not support it, so the run continues; any other error ends it."""

    def failing(name: str) -> None:
        if name == "ledger.folder.fsync:before":
            raise OSError(number, os.strerror(number))

    with at_failpoints(failing), hold(tmp_path, command="x") as notes:
        (note,) = notes
    assert "cannot flush folders" in note
    number = errno.EIO
    with at_failpoints(failing), pytest.raises(StorageError, match="Input/output"), hold(tmp_path, command="x"):
        raise AssertionError("held")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOLCK, "its file system does not support locks"),
        (errno.EISDIR, "is a folder where a file is expected"),
        (errno.ENOTDIR, "in its path there is something else where a folder is expected"),
        (errno.EMFILE, "this process has reached its limit of open files"),
        (errno.ENFILE, "this machine has reached its limit of open files"),
    ],
)
def test_an_error_of_the_lock_is_explained(tmp_path, number, message):
    """The message names the cause, and the hint what to do."""

    def failing(name: str) -> None:
        if name == "lock:before":
            raise OSError(number, os.strerror(number))

    with at_failpoints(failing), pytest.raises(StorageError, match=message) as caught, hold(tmp_path, command="x"):
        raise AssertionError("held")
    assert caught.value.hint


def test_the_hint_names_the_directory_of_the_lock(tmp_path):
    """A load directory has its lock in itself, an output directory in a folder."""

    def failing(name: str) -> None:
        if name == "lock:before":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    one, other = tmp_path / "exports", tmp_path / "warehouse"
    for directory, holding in ((one, hold(one, command="x")), (other, hold_load(other))):
        with at_failpoints(failing), pytest.raises(StorageError) as caught, holding:
            raise AssertionError("held")
        assert f"`ls -ld {directory}`" in caught.value.hint


async def _used(directory: Path) -> None:
    """Use the ledger as a run does."""
    with hold(directory, command="x"):
        ledger = await Ledger.open(directory)
        ledger.remember("key", "value")
        await ledger.close()


@pytest.mark.parametrize("name", ["lock", "ledger.sqlite3-mark", "ledger.sqlite3", "ledger.sqlite3-wal"])
async def test_a_fifo_among_the_ledgers_files_does_not_block(tmp_path, name):
    """It is an error for a run, and reading commands are not blocked either."""
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
    """A link placed there cannot make a run overwrite another file or change its mode."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    await (await Ledger.open(tmp_path / "out")).close()
    place = tmp_path / "out" / ".asyncexport" / name
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    with pytest.raises(StorageError, match=f"{name} is a symbolic link"), hold(tmp_path / "out", command="x"):
        await (await Ledger.open(tmp_path / "out")).close()
    assert holder(tmp_path / "out") is None
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o644)


async def test_the_folder_may_be_a_link_to_a_private_one(tmp_path):
    """The folder's mode stays as it is, and the files created in it are private."""
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".asyncexport").symlink_to(tmp_path / "elsewhere")
    with hold(tmp_path / "out", command="x"):
        await (await Ledger.open(tmp_path / "out")).close()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "elsewhere" / "lock").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "elsewhere" / "ledger.sqlite3").stat().st_mode) == 0o600


@pytest.mark.parametrize("target_kind", ["group-writable", "world-writable", "file", "missing", "other owner"])
def test_a_link_to_an_unsafe_place_is_rejected(tmp_path, target_kind):
    """The target must be an existing folder that only its owner, who is the user, can write to."""
    target = tmp_path / "elsewhere"
    match target_kind:
        case "file":
            target.write_text("precious")
        case "missing":
            pass
        case _:
            target.mkdir()
            target.chmod({"group-writable": 0o770, "world-writable": 0o707, "other owner": 0o755}[target_kind])
    if target_kind == "other owner":
        if os.geteuid():
            pytest.skip("only root can give a folder away")
        os.chown(target, 65534, 65534)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".asyncexport").symlink_to(target)
    with (
        pytest.raises(StorageError, match=r"\.asyncexport is a link to ") as caught,
        hold(tmp_path / "out", command="x"),
    ):
        raise AssertionError("held")
    assert caught.value.hint
    assert target_kind in ("file", "missing") or not list(target.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_killed_process_that_nobody_waits_for_is_gone(tmp_path):
    """Its parent may never take note of its end, as in a container without an init process."""
    idle = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(idle, stdin=subprocess.PIPE) as process, hold(tmp_path, command="backfill"):
        text = {"command": "backfill", "pid": process.pid, "host": socket.gethostname(), "since": time.time()}
        (tmp_path / ".asyncexport" / "lock").write_bytes(orjson.dumps(text))
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == process.pid
        process.kill()
        # Wait for the end of the process, and leave it a zombie.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert holder(tmp_path) is None
