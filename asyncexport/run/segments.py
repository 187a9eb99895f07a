"""Lists the segments of the account, the possible values of `[[export]] segment`."""

from collections.abc import AsyncIterator, Callable

from asyncexport.config import ApiKey, Settings
from asyncexport.core.service.resources import Segment
from asyncexport.run.outside_runs import client_outside_runs


async def segments(settings: Settings, *, key: ApiKey, sent: Callable[[str], None]) -> AsyncIterator[Segment]:
    """Yield the segments of the account as they are read; `sent` is called with the kind of each request.

    Raises:
        ServiceError: the service refused a request or could not be reached.
    """
    async with client_outside_runs(settings, key, command="segments", sent=sent) as client:
        async for segment in client.segments():
            yield segment
