"""The client of BigQuery: made when it is needed, and its errors in our words.

1. Credentials are Google's default ones. No message repeats what the library says about them, nor the address of a
   request, which may contain the key of an upload, nor what the service has in quotes, which may be customers' data.
2. The client retries what may succeed the next time. `RETRY_SECONDS` limits that for each request, since its own limit
   of ten minutes would hold up a load whose server cannot be reached.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as WaitTimeoutError
from contextlib import contextmanager
from types import MappingProxyType

from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import bigquery

from asyncexport.core.warehouse.choices import SinkName
from asyncexport.errors import SinkError

NAME = SinkName.BIGQUERY.value

RETRY_SECONDS = 60.0

HINTS = MappingProxyType(
    {
        403: "the account needs the roles BigQuery Data Editor of the dataset and BigQuery Job User of the project",
        404: "check project, dataset and location of [load.bigquery]",
        412: "something else changed the table at the same time: load again",
        429: "a limit of BigQuery is reached: load again later",
        500: "check the status of BigQuery, and load again",
        502: "check the status of BigQuery, and load again",
        503: "check the status of BigQuery, and load again",
    }
)
"""What to do, by the status of the response."""

REASONS = MappingProxyType(
    {
        "quotaExceeded": HINTS[429],
        "rateLimitExceeded": HINTS[429],
        "billingNotEnabled": "enable billing for the project: BigQuery charges for the statements about loaded days",
    }
)
"""What to do, by the reason in the response. It counts more than the status, which is 403 for these."""

CREDENTIALS = "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"


def default_client(project: str, location: str) -> bigquery.Client:
    """Return a client with the default credentials; "" stands for their project, and for the default location."""
    return bigquery.Client(project=project or None, location=location or None)


class BigQueryConnection:
    """A client; its methods block.

    Args:
        connect: Makes the client.
        retry_seconds: How long a request is retried.
    """

    def __init__(self, connect: Callable[[], bigquery.Client], *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._connect = connect
        self._client: bigquery.Client | None = None
        self.retry = bigquery.DEFAULT_RETRY.with_timeout(retry_seconds)

    @contextmanager
    def client(self, doing: str) -> Iterator[bigquery.Client]:
        """Return the client; its errors become ours.

        Args:
            doing: What it is for, for the message of an error: `read the receipts`.

        Raises:
            SinkError: the service cannot be reached, or refused something.
        """
        try:
            if self._client is None:
                self._client = self._connect()
            yield self._client
        except (GoogleAPIError, GoogleAuthError, WaitTimeoutError, OSError) as error:
            raise translated(doing, error) from None  # the cause has the address of the request

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None


def translated(doing: str, error: Exception) -> SinkError:
    """Return an error of the client in our words."""
    match error:
        case GoogleAPICallError():
            said = _said(error)
            hint = REASONS.get(_details(error).get("reason", "")) or HINTS.get(int(error.code or 0), "")
        case DefaultCredentialsError():
            said, hint = "there are no credentials", CREDENTIALS
        case GoogleAuthError():
            said, hint = "the credentials were not accepted", CREDENTIALS
        case WaitTimeoutError():
            said, hint = "the job is still running", "load again later: the job is then looked up"
        case OSError() if type(error) is OSError and error.errno is None:  # those of the network are of other types
            said, hint = "the credentials have no project", "set project in [load.bigquery]"
        case _:
            said, hint = "there was no answer", "check the network, and load again"
    return SinkError(f"could not {doing} in BigQuery: {said}", sink=NAME, hint=hint)


def _said(error: GoogleAPICallError) -> str:
    """Return what the service said: its first message, without the address of the request (rule 1)."""
    text = " ".join(_details(error).get("message", "").split()).rstrip(".")
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "…", text)
    text = re.sub(r"(?i)(\bvalue:) [^;]*", r"\1 …", text)
    code = f"status {int(error.code)}" if error.code else type(error).__name__
    return f"{text} ({code})" if text else code


def _details(error: GoogleAPICallError) -> dict[str, str]:
    """Return the first error of the response that has a message."""
    found = next((one for one in error.errors if isinstance(one, dict) and one.get("message")), {})
    return {str(name): str(value) for name, value in found.items()}
