"""Tells the monitoring service of `[ping]` that a run begins, and how it ended.

1. A ping that fails is logged as a warning, once a run, and changes nothing else. `client.ping` limits its time.
2. A run never waits for the ping that says it begins. If that one is not answered when the run ends, it is abandoned.
3. The body is the summary, without secrets, and short enough for the service to keep it.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import orjson

from asyncexport.config import ApiKey, Settings
from asyncexport.core.masking import Mask, secrets_of_headers, secrets_of_ping_url
from asyncexport.errors import ExportError
from asyncexport.run.wiring import connection_settings

if TYPE_CHECKING:
    from asyncexport.client.ping import Ping

log = logging.getLogger(__name__)

START_SECONDS = 1.0
"""How long the end of a run waits for the ping that said it begins, so that the two arrive in this order. It is
part of the time limit, and at most a tenth of it."""

MOST_BODY_BYTES = 90_000
"""healthchecks.io keeps 100 kB of a body."""

MOST_PROBLEMS = 20
"""The number of problems in a body that would be longer."""


class RunPings:
    """The pings of one run; without `[ping] url` it does nothing.

    Args:
        settings: The settings.
        key: The API key, which is masked. None if there is none.
    """

    def __init__(self, settings: Settings, key: ApiKey | None) -> None:
        self._url = settings.ping.url
        self._timeout_seconds = settings.ping.timeout_seconds
        self._settings = settings
        self._key = key
        self._starting: asyncio.Task[None] | None = None
        self._has_warned = False

    def begin(self, command: str) -> None:
        """Send the first ping, without waiting for it."""
        if self._url:
            from asyncexport.client.ping import Ping  # noqa: PLC0415 - aiohttp is slow to import

            start = self._send(Ping.START, {"command": command}, timeout_seconds=self._timeout_seconds)
            self._starting = asyncio.create_task(start, name="ping")

    async def end(self, summary: dict[str, Any], *, is_success: bool) -> None:
        """Send the last ping, and wait until it is answered or has failed."""
        if not self._url:
            return
        from asyncexport.client.ping import Ping  # noqa: PLC0415

        left = self._timeout_seconds
        if self._starting is not None:
            began = asyncio.get_running_loop().time()
            await asyncio.wait({self._starting}, timeout=min(START_SECONDS, left / 10))
            left -= asyncio.get_running_loop().time() - began
        self.abandon()
        await self._send(Ping.SUCCESS if is_success else Ping.FAILURE, summary, timeout_seconds=left)

    def abandon(self) -> None:
        """Stop waiting for the answer to the first ping."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None

    async def _send(self, ping: "Ping", facts: dict[str, Any], *, timeout_seconds: float) -> None:
        from asyncexport.client.ping import send_ping  # noqa: PLC0415

        connection = connection_settings(self._settings)
        keys = [] if self._key is None else [self._key.reveal()]
        headers = secrets_of_headers(self._settings.api.headers)
        mask = Mask(keys, others=[*headers, *connection.secrets, *secrets_of_ping_url(self._url)])
        body = mask(_body(facts)).encode()
        try:
            await send_ping(self._url, ping, body, connection=connection, timeout_seconds=timeout_seconds)
        except ExportError as error:
            if not self._has_warned:
                self._has_warned = True
                what = "start" if ping.value == "start" else "end"
                log.warning("the %s of the run could not be reported to [ping] url: %s", what, error)


def _body(facts: dict[str, Any]) -> str:
    body = orjson.dumps(facts).decode()
    if len(body.encode()) > MOST_BODY_BYTES and "problems" in facts:
        left_out = max(0, len(facts["problems"]) - MOST_PROBLEMS)
        shortened = {**facts, "problems": facts["problems"][:MOST_PROBLEMS], "problems_left_out": left_out}
        body = orjson.dumps(shortened).decode()
    return body
