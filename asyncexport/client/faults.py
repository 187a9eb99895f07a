"""Translates aiohttp's exceptions: each becomes an `ExportError`, and none leaves the client.

1. Their texts contain complete URLs with signatures. No text is passed on, not even as the context of our exception.
   That is why an error is created in the `except` block and raised after it.
2. aiohttp reports a malformed response with status 400. Only the status of a real reply is one of the service.
3. If the request may have been sent before the fault, the error is `unanswered`: the service may have acted on it.
"""

import os
import ssl

import aiohttp

from asyncexport.core.text import one_line
from asyncexport.errors import ExportError, ReplyError, ServiceError, UnavailableError

FAULTS = (aiohttp.ClientError, OSError)
"""Everything that aiohttp raises for network faults; `TimeoutError` and `ssl.SSLError` are `OSError`s."""

BODY_FAULTS = (*FAULTS, RuntimeError)
"""The same while a body is read: aiohttp raises `RuntimeError` if the connection is lost after a malformed chunk."""


def translated(error: BaseException, host: str) -> ExportError:
    """Return our error for a fault before the reply; it is `unanswered` if the request may have been sent."""
    if why := _certificate_fault(error):
        return ServiceError(
            f"the certificate of {host} cannot be trusted: {why}",
            hint="if your network uses its own certificate authority, set [api] ca_file to its certificates",
        )
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return ServiceError(
                "the proxy requires a user name and password (407)", hint="put them in the URL of [api] proxy"
            )
        case aiohttp.ClientHttpProxyError(status=status):
            return UnavailableError(f"the proxy refused to connect to {host} ({status})")
        case aiohttp.ClientProxyConnectionError():
            return UnavailableError("the proxy could not be reached", hint="check [api] proxy")
        case aiohttp.ClientConnectorDNSError():
            return UnavailableError(f"the host name {host} could not be resolved")
        case aiohttp.ClientConnectorSSLError():
            return UnavailableError(f"the TLS connection to {host} could not be established")
        case aiohttp.ConnectionTimeoutError():
            return UnavailableError(f"connecting to {host} timed out")
        case aiohttp.ClientConnectorError(errno=number):
            return UnavailableError(f"{host} could not be reached" + (f": {os.strerror(number)}" if number else ""))
        case aiohttp.ClientResponseError():
            return ReplyError(f"the answer of {host} is not valid HTTP")
        case aiohttp.InvalidURL():
            return ReplyError("the URL is invalid")
        case TimeoutError():
            return UnavailableError(f"{host} did not answer in time", unanswered=True)
        case _:
            return UnavailableError(f"the connection to {host} was lost before it answered", unanswered=True)


def before_sending(failure: ExportError) -> ExportError:
    """Return the error for a request that never left this machine: the service cannot have acted on it."""
    match failure:
        case UnavailableError():
            failure.unanswered = False
        case ReplyError():
            # Before the request is sent, only a proxy can have answered.
            return UnavailableError(f"no connection could be made: {failure}", hint="check [api] proxy")
    return failure


def _certificate_fault(error: BaseException | None) -> str:
    """Return OpenSSL's reason if the cause of the fault is a certificate, else ""."""
    while error is not None:
        # aiohttp's own subclass lacks the reason.
        if isinstance(error, ssl.SSLCertVerificationError) and hasattr(error, "verify_message"):
            return one_line(error.verify_message) or "verification failed"
        error = getattr(error, "certificate_error", None) or error.__cause__
    return ""


def prefixed(doing: str, failure: ExportError) -> ExportError:
    """Put what was tried in front of the message, and drop the traceback."""
    failure.args = (f"{doing}: {failure}",)
    return failure.with_traceback(None)
