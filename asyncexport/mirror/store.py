"""The bucket: lists, reads and writes objects, with conditions that the store itself checks.

1. Keys, region and endpoint come from the environment, by the names that the vendors' own tools use.
2. A small object is written with one request and a condition (`If-None-Match: *` or `If-Match`), so it is never written
   over an object that somebody else put there meanwhile. A large one is sent in parts. The library sends no condition
   with the request that completes it, so the object is examined right before that.
3. obstore repeats requests after connection errors and 5xx, with growing pauses. If the answer to an upload was lost,
   the repeated request finds our own object: that is a conflict for the caller to examine.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions
from obstore.store import from_url

from asyncexport.core.mirror.environment import allows_http, role_service, variable_problems
from asyncexport.core.mirror.limits import MirrorLimits
from asyncexport.core.mirror.objects import HASH_KEY, ConflictError, Held
from asyncexport.errors import ChangedArchiveError, ConfigError, MirrorError, Problem
from asyncexport.mirror.faults import STORE_ERRORS, key_hint, mirror_error, no_key
from asyncexport.mirror.listing import listed_objects, reach_listing
from asyncexport.mirror.role import answers

if TYPE_CHECKING:
    from obstore import GetResult, PutMode

PART_BYTES = 8 << 20
"""The size of the parts of a large object."""

PARTS_AT_A_TIME = 2


class MirrorStore:
    """The bucket, below the prefix of the URL.

    Args:
        url: The URL of `[output] mirror`.
        environ: The environment, which says whether HTTP without TLS is allowed.
        limits: How long to wait.

    Raises:
        ConfigError: the URL or the environment cannot be used.
    """

    def __init__(self, url: str, *, environ: Mapping[str, str], limits: MirrorLimits) -> None:
        self.url = url
        self._limits = limits
        is_s3 = url.startswith("s3:")
        problems = variable_problems(environ) if is_s3 else []
        if problems:
            raise ConfigError(problems, hint="these variables are for the object store of [output] mirror")
        self._role_service = role_service(environ) if is_s3 else None
        try:
            self._quick = _opened(url, environ, limits, answer=limits.answer)
            self._slow = _opened(url, environ, limits, answer=limits.upload)
        except STORE_ERRORS as error:
            problem = Problem("output.mirror", f"the object store cannot be used: {type(error).__name__}")
            raise ConfigError([problem], hint=key_hint(url)) from None

    async def reach(self) -> None:
        """Make sure that the bucket can be listed, with one request.

        Raises:
            MirrorError: the store failed, or refused the key.
        """
        await self.check_key()
        await reach_listing(self._quick, url=self.url)

    async def check_key(self) -> None:
        """Check that there is a key, or a service that gives this machine the key of its role.

        Raises:
            MirrorError: there is neither. The library would find that out after a minute.
        """
        if self._role_service is not None and not await answers(self._role_service):
            raise no_key(f"cannot use {self.url}", self.url)

    async def listed(self, folder: str) -> dict[str, Held]:
        """Return the objects below a folder, by name, without their metadata.

        Raises:
            OddNameError: an object has a name that the library cannot read.
            MirrorError: the store failed.
        """
        return await listed_objects(self._quick, f"{folder}/", limits=self._limits, url=self.url)

    async def examined(self, path: str) -> Held | None:
        """Return an object with its metadata; None if there is none.

        Raises:
            MirrorError: the store failed.
        """
        found = await self._got(path, {"head": True})
        return None if found is None else _held(found)

    async def content(self, path: str, *, most: int) -> bytes | None:
        """Return the content of a small object; None if there is no object, or if it has more than `most` bytes.

        Raises:
            MirrorError: the store failed.
        """
        found = await self._got(path, {})
        if found is None or found.meta["size"] > most:
            return None
        try:
            return bytes(await found.bytes_async())
        except STORE_ERRORS as error:
            raise mirror_error(error, "read", self._name(path)) from None

    async def put(self, path: str, content: bytes, sha256: str, *, instead_of: Held | None) -> Held:
        """Upload a small object, if there is none, or in place of a version that was examined.

        Raises:
            ConflictError: there is an object, or it is no longer that version.
            MirrorError: the store failed.
        """
        mode: PutMode = "create"
        if instead_of is not None:
            mode = {}
            if instead_of.e_tag is not None:
                mode["e_tag"] = instead_of.e_tag
            if instead_of.version is not None:
                mode["version"] = instead_of.version
        done = await _put(self._slow, path, content, sha256, mode=mode, name=self._name(path))
        return Held(len(content), done.get("e_tag"), done.get("version"), sha256, is_read=True)

    async def put_large(
        self,
        path: str,
        pieces: AsyncIterator[bytes],
        sha256: str,
        *,
        size: int,
        check: Callable[[], Awaitable[None]],
    ) -> Held:
        """Upload a large object in parts. `check` is called before the upload is completed.

        Raises:
            ChangedArchiveError: the iterator raised it; nothing was uploaded.
            ConflictError: `check` raised it; nothing was uploaded.
            MirrorError: the store failed.
        """
        # The library is not given the iterator itself: a thread of its own that calls Python may do so while the
        # interpreter ends, and that ends the process.
        writer = obstore.open_writer_async(
            self._slow,
            path,
            attributes={HASH_KEY: sha256},
            buffer_size=PART_BYTES,
            max_concurrency=PARTS_AT_A_TIME,
        )
        try:
            async for piece in pieces:
                with _uploading(self._name(path)):
                    await writer.write(piece)
            await check()
        except (ChangedArchiveError, ConflictError) as error:
            # Otherwise the parts would stay in the bucket, invisible but paid for.
            with suppress(*STORE_ERRORS):
                await writer.__aexit__(type(error), error, error.__traceback__)
            raise
        with _uploading(self._name(path)):
            await writer.close()
        found = await self.examined(path)
        if found is None or (found.bytes, found.sha256) != (size, sha256):
            raise MirrorError(f"cannot upload {self._name(path)}: what was uploaded is not there")
        return found

    async def _got(self, path: str, options: Any) -> "GetResult | None":
        try:
            return await obstore.get_async(self._quick, path, options=options)
        except FileNotFoundError:
            return None
        except STORE_ERRORS as error:
            raise mirror_error(error, "read", self._name(path)) from None

    def _name(self, path: str) -> str:
        return f"{self.url}/{path}"


def _opened(url: str, environ: Mapping[str, str], limits: MirrorLimits, *, answer: float) -> Any:
    """Open the store of a URL; obstore itself reads the environment."""
    options: Any = {
        # With options of its own, obstore does not read these variables.
        "allow_http": allows_http(environ),
        "connect_timeout": timedelta(seconds=limits.connect),
        "timeout": timedelta(seconds=answer),
    }
    retry: Any = {
        "max_retries": limits.retries,
        # A request that was not answered for as long as it may take is repeated at least once.
        "retry_timeout": timedelta(seconds=max(limits.retry, answer * 1.2)),
        "backoff": {
            "init_backoff": timedelta(seconds=limits.pause),
            "max_backoff": timedelta(seconds=limits.pause * 30),
            "base": 2,
        },
    }
    more: dict[str, Any] = {"config": {"checksum_algorithm": "SHA256"}} if url.startswith("s3:") else {}
    return from_url(url, client_options=options, retry_config=retry, **more)


async def _put(store: Any, path: str, source: bytes, sha256: str, *, mode: "PutMode", name: str) -> Any:
    """Upload an object with one request.

    Raises:
        ConflictError: its condition was not met.
        MirrorError: the store failed.
    """
    try:
        return await obstore.put_async(
            store, path, source, mode=mode, attributes={HASH_KEY: sha256}, use_multipart=False
        )
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise ConflictError from None
    except FileNotFoundError as error:
        # With If-Match, some stores answer 404 if the object is gone; without it, there is no bucket.
        if mode != "create" and "NoSuchBucket" not in str(error):
            raise ConflictError from None
        raise mirror_error(error, "upload", name) from None
    except STORE_ERRORS as error:
        raise mirror_error(error, "upload", name) from None


def _held(found: "GetResult") -> Held:
    attributes = {name.lower(): value for name, value in found.attributes.items()}
    meta = found.meta
    return Held(meta["size"], meta.get("e_tag"), meta.get("version"), attributes.get(HASH_KEY), is_read=True)


@contextmanager
def _uploading(name: str) -> Iterator[None]:
    """Translate errors of obstore."""
    try:
        yield
    except STORE_ERRORS as error:
        raise mirror_error(error, "upload", name) from None
