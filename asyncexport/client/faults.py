"""What aiohttp's exceptions mean here: each becomes an `ExportError`, and none leaves the client.

1. Their text holds whole URLs, signatures included: none of it is passed on, not even as the context of ours. Hence a
   failure is made in the `except` block and raised after it.
2. aiohttp gives garbage on the wire a status of 400. It is no status of the service: that counts only on a real reply.
3. Where the request may have gone out before the fault, the failure is `unanswered`: what it asked for may be done.
"""

import os
import ssl

import aiohttp

from asyncexport.core.text import one_line
from asyncexport.errors import ExportError, ReplyError, ServiceError, UnavailableError

FAULTS = (aiohttp.ClientError, OSError)
"""All that aiohttp raises for what happens on the wire; `TimeoutError` and `ssl.SSLError` are `OSError`s."""

BODY_FAULTS = (*FAULTS, RuntimeError)
"""The same while a body is read: aiohttp calls a connection that went after a broken chunk a `RuntimeError`."""


def translated(error: BaseException, host: str) -> ExportError:
    """What a fault before the reply means. Where the request may have gone out, it is `unanswered`."""
    if why := _certificate_fault(error):
        return ServiceError(
            f"the certificate of {host} cannot be trusted: {why}",
            hint="if an authority of your own stands in between, name its certificates in [api] ca_file",
        )
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return ServiceError("the proxy wants a name and a password (407)", hint="put them into [api] proxy")
        case aiohttp.ClientHttpProxyError(status=status):
            return UnavailableError(f"the proxy would not connect to {host} ({status})")
        case aiohttp.ClientProxyConnectionError():
            return UnavailableError("the proxy could not be reached", hint="check [api] proxy")
        case aiohttp.ClientConnectorDNSError():
            return UnavailableError(f"the name {host} could not be resolved")
        case aiohttp.ClientConnectorSSLError():
            return UnavailableError(f"no secure connection to {host} came about")
        case aiohttp.ConnectionTimeoutError():
            return UnavailableError(f"{host} could not be reached in time")
        case aiohttp.ClientConnectorError(errno=number):
            return UnavailableError(f"{host} could not be reached" + (f": {os.strerror(number)}" if number else ""))
        case aiohttp.ClientResponseError():
            return ReplyError(f"{host} answered with something that is not HTTP")
        case aiohttp.InvalidURL():
            return ReplyError("that is not a URL that can be followed")
        case TimeoutError():
            return UnavailableError(f"{host} did not answer in time", unanswered=True)
        case _:
            return UnavailableError(f"the connection to {host} was lost before its answer came", unanswered=True)


def before_sending(failure: ExportError) -> ExportError:
    """The same fault of a request of which nothing has left this machine: what it asked for cannot have been done."""
    match failure:
        case UnavailableError():
            failure.unanswered = False
        case ReplyError():
            # What answered was no service: only a proxy is asked for anything before.
            return UnavailableError(f"no connection came about: {failure}", hint="check [api] proxy")
    return failure


def _certificate_fault(error: BaseException | None) -> str:
    """OpenSSL's reason, where a certificate is at the bottom of it."""
    while error is not None:
        # aiohttp's own class of that name is one, too, but without the reason.
        if isinstance(error, ssl.SSLCertVerificationError) and hasattr(error, "verify_message"):
            return one_line(error.verify_message) or "it does not verify"
        error = getattr(error, "certificate_error", None) or error.__cause__
    return ""


def prefixed(doing: str, failure: ExportError) -> ExportError:
    """The same failure, with what was tried in front; no other exception is in its context."""
    failure.args = (f"{doing}: {failure}",)
    return failure.with_traceback(None)
