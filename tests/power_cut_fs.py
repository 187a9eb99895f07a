"""Serves the disk of `power_cut_disk` as a file system, by speaking the kernel's FUSE protocol directly.

1. A process mounts it in its own mount namespace (`mount_privately`). The mount ends with that process and is invisible
   to all others, including the serving process, which would deadlock if it used the file system.
2. The kernel keeps what it reads in its page cache, so that SQLite can map its `-shm` file. It passes on every write
   and every flush immediately.
3. The power cut comes right before the change with a given number: the process that uses the file system is killed and
   gets no more replies.

The layout of requests and replies is that of `linux/fuse.h`, protocol 7.31.
"""

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from tests.power_cut_disk import Disk, File, Folder

ROOT = Path(__file__).parents[1]

DEVICE = Path("/dev/fuse")

CLONE_NEWNS = 0x20000
MS_REC_PRIVATE = 0x44000

MAX_WRITE = 128 << 10
FOREVER = 1 << 30
"""Seconds for which the kernel may cache names and attributes: all changes go through it."""

TOP = 1
"""The node number of the root folder."""


def unavailable_reason() -> str:
    """Return why the file system cannot be mounted here, or "" if it can."""
    if not DEVICE.exists():
        return f"{DEVICE} does not exist"
    if os.geteuid() != 0:
        return "only root can mount a file system"
    # In a separate process, whose mounts end with it.
    tried = subprocess.run(
        [sys.executable, "-m", "tests.power_cut_fs"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return tried.stderr.strip().rpartition("\n")[2]


def mount_privately(device: int, directory: str) -> None:
    """Mount the file system that an open `/dev/fuse` serves, only for this process and its children."""
    _unshare_mounts()
    options = f"fd={device},rootmode=40755,user_id=0,group_id=0"
    _raise_on_error(_libc().mount(b"power-cut", directory.encode(), b"fuse", 0, options.encode()))


class PowerCutFs:
    """Serves a disk in a thread, until the power cut or until the process that mounted it ends.

    Args:
        disk: The disk.
        cut_before: The number of the change, counted from 1, right before which the power is cut; None means never.
        on_cut: Called at the power cut, in the thread, to kill the process that uses the disk.
        before_change: Called right before each change, in the thread.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        cut_before: int | None = None,
        on_cut: Callable[[], None] = lambda: None,
        before_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        self.changes = 0
        self.cut = False
        self._cut_before = cut_before
        self._on_cut = on_cut
        self._before_change = before_change
        self._nodes: dict[int, File | Folder] = {TOP: disk.root}
        self._numbers: dict[int, int] = {id(disk.root): TOP}
        self._thread = threading.Thread(target=self._serve, name="power cut", daemon=True)

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def wait(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self.cut and (request := self._next()) is not None:
                reply = self._answer(request)
                if reply is not None and not self.cut:
                    self._send(reply)
        finally:
            os.close(self.device)

    def _next(self) -> bytes | None:
        while True:
            try:
                return os.read(self.device, MAX_WRITE + (64 << 10))
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return None
                if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    raise

    def _send(self, reply: bytes) -> None:
        try:
            os.write(self.device, reply)
        except OSError as error:
            # The process that sent the request has ended.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _answer(self, request: bytes) -> bytes | None:
        _, opcode, unique, number, *_ = struct.unpack_from("<IIQQIIII", request)
        body = request[40:]
        if opcode in _UNANSWERED:
            return None
        name, changes = _CALLS.get(opcode, ("_unknown", False))
        if changes and not self._counted(body, opcode):
            return None
        try:
            reply = getattr(self, name)(number, body)
        except OSError as error:
            return struct.pack("<IiQ", 16, -(error.errno or errno.EIO), unique)
        return struct.pack("<IiQ", 16 + len(reply), 0, unique) + bytes(reply)

    def _counted(self, body: bytes, opcode: int) -> bool:
        """Count a change and return whether it still happens, which it does not after the power cut."""
        if opcode == _SETATTR and not struct.unpack_from("<I", body)[0] & _SETS_SIZE:
            return True
        self.changes += 1
        self._before_change()
        if self.changes == self._cut_before:
            self.cut = True
            self._on_cut()
        return not self.cut

    def _unknown(self, _number: int, _body: bytes) -> bytes:
        raise OSError(errno.ENOSYS, "")

    def _init(self, _number: int, body: bytes) -> bytes:
        _, _, readahead = struct.unpack_from("<III", body)
        return struct.pack("<IIIIHHIIHHII24x", 7, 31, readahead, _BIG_WRITES, 0, 0, MAX_WRITE, 1, 0, 0, 0, 0)

    def _lookup(self, number: int, body: bytes) -> bytes:
        return self._entry(self._named(self._folder(number), _text(body)))

    def _getattr(self, number: int, _body: bytes) -> bytes:
        return struct.pack("<QII", FOREVER, 0, 0) + self._attributes(self._nodes[number])

    def _setattr(self, number: int, body: bytes) -> bytes:
        valid, _, _, size, *_, mode, _, _, _, _ = struct.unpack_from("<IIQQQQQQIIIIIIII", body)
        node = self._nodes[number]
        if valid & 1:
            node.mode = stat.S_IMODE(mode)
        if valid & _SETS_SIZE and isinstance(node, File):
            node.resize(size)
        return self._getattr(number, b"")

    def _mkdir(self, number: int, body: bytes) -> bytes:
        mode, umask = struct.unpack_from("<II", body)
        return self._entry(self._made(number, _text(body[8:]), Folder(mode & ~umask & 0o777)))

    def _create(self, number: int, body: bytes) -> bytes:
        _, mode, umask, _ = struct.unpack_from("<IIII", body)
        return self._entry(self._made(number, _text(body[16:]), File(mode & ~umask & 0o777))) + bytes(16)

    def _unlink(self, number: int, body: bytes) -> bytes:
        folder, name = self._folder(number), _text(body)
        node = self._named(folder, name)
        if isinstance(node, Folder) and node.names:
            raise OSError(errno.ENOTEMPTY, "")
        folder.remove(name)
        return b""

    def _rename(self, number: int, body: bytes) -> bytes:
        return self._move(number, struct.unpack_from("<Q", body)[0], body[8:])

    def _rename2(self, number: int, body: bytes) -> bytes:
        target, flags = struct.unpack_from("<QI", body)
        if flags:
            raise OSError(errno.EINVAL, "")
        return self._move(number, target, body[16:])

    def _move(self, number: int, target: int, names: bytes) -> bytes:
        old, new = names.rstrip(b"\0").split(b"\0")
        node = self._named(self._folder(number), old.decode())
        if number == target:
            self._folder(number).rename(old.decode(), new.decode())
        else:
            self._folder(target).add(new.decode(), node)
            self._folder(number).remove(old.decode())
        return b""

    def _open(self, _number: int, _body: bytes) -> bytes:
        return bytes(16)

    def _read(self, number: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self._file(number).content[offset : offset + size])

    def _write(self, number: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        self._file(number).write(offset, body[40 : 40 + size])
        return struct.pack("<II", size, 0)

    def _fsync(self, number: int, _body: bytes) -> bytes:
        self._nodes[number].flush()
        return b""

    def _nothing(self, _number: int, _body: bytes) -> bytes:
        return b""

    def _readdir(self, number: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        found = bytearray()
        for at, (name, node) in enumerate(list(self._folder(number).names.items())[offset:], offset + 1):
            kind = (stat.S_IFREG if isinstance(node, File) else stat.S_IFDIR) >> 12
            item = struct.pack("<QQII", self._number(node), at, len(name.encode()), kind) + name.encode()
            item += bytes(-len(item) % 8)
            if len(found) + len(item) > size:
                break
            found += item
        return bytes(found)

    def _statfs(self, _number: int, _body: bytes) -> bytes:
        return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0)

    def _made(self, number: int, name: str, node: File | Folder) -> File | Folder:
        folder = self._folder(number)
        if name in folder.names:
            raise OSError(errno.EEXIST, "")
        folder.add(name, node)
        return node

    def _named(self, folder: Folder, name: str) -> File | Folder:
        if name not in folder.names:
            raise OSError(errno.ENOENT, "")
        return folder.names[name]

    def _folder(self, number: int) -> Folder:
        node = self._nodes[number]
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, "")
        return node

    def _file(self, number: int) -> File:
        node = self._nodes[number]
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, "")
        return node

    def _number(self, node: File | Folder) -> int:
        number = self._numbers.setdefault(id(node), len(self._numbers) + 1)
        self._nodes[number] = node
        return number

    def _entry(self, node: File | Folder) -> bytes:
        return struct.pack("<QQQQII", self._number(node), 0, FOREVER, FOREVER, 0, 0) + self._attributes(node)

    def _attributes(self, node: File | Folder) -> bytes:
        size = len(node.content) if isinstance(node, File) else 0
        kind = stat.S_IFREG if isinstance(node, File) else stat.S_IFDIR
        times = (0, 0, 0, 0, 0, 0)
        number = self._number(node)
        return struct.pack(
            "<QQQQQQIIIIIIIIII", number, size, -(-size // 512), *times, kind | node.mode, 1, 0, 0, 0, 4096, 0
        )


_SETATTR = 4
_SETS_SIZE = 8
_BIG_WRITES = 1 << 5

_UNANSWERED = frozenset({2, 36, 42})
"""FORGET, INTERRUPT, BATCH_FORGET."""

_CALLS = {
    1: ("_lookup", False),
    3: ("_getattr", False),
    _SETATTR: ("_setattr", True),
    9: ("_mkdir", True),
    10: ("_unlink", True),
    11: ("_unlink", True),
    12: ("_rename", True),
    14: ("_open", False),
    15: ("_read", False),
    16: ("_write", True),
    17: ("_statfs", False),
    18: ("_nothing", False),
    20: ("_fsync", True),
    25: ("_nothing", False),
    26: ("_init", False),
    27: ("_open", False),
    28: ("_readdir", False),
    29: ("_nothing", False),
    30: ("_fsync", True),
    35: ("_create", True),
    45: ("_rename2", True),
}
"""The method that answers a request, by its number in the protocol, and whether it changes the disk."""


def _text(body: bytes) -> str:
    return body.rstrip(b"\0").decode()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _unshare_mounts() -> None:
    _raise_on_error(_libc().unshare(CLONE_NEWNS))
    _raise_on_error(_libc().mount(b"none", b"/", None, MS_REC_PRIVATE, None))


def _raise_on_error(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        mount_privately(os.open(DEVICE, os.O_RDWR), folder)
        _raise_on_error(_libc().umount(folder.encode()))
