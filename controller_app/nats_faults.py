"""What is wrong between us and a NATS server, in words: what it does, why, and what is to be done."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass

import nats.errors

from ondemand.slices import SliceRefusedError, SourceError


class StreamMissingError(SourceError):
    """The server is there and has no such stream."""


class NotPermittedError(SliceRefusedError):
    """The server does not let this user publish to a subject, or subscribe to it."""


class LoginError(OSError):
    """A file with which we log in is not what it should be; the text names it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Three pieces of a sentence that begins with the server: "does not answer", why, and the mend."""

    what: str
    reason: str
    mend: str

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.what}{reason}: {self.mend}"


_START = "start the server, or see whether this host reaches it"
UNKNOWN = Fault("does not answer", "", _START)

#: Texts in what the server says before it hangs up, or of TLS when it refuses our certificate.
#: How a server ends a connection; what it said before is the better reason.
HANG_UPS = (ConnectionResetError, BrokenPipeError, nats.errors.UnexpectedEOF)

_REFUSED = (
    (
        ("authentication expired", "authentication revoked"),
        "no longer lets this user in",
        "give new ones as credentials",
    ),
    (
        ("authorization violation", "authentication timeout"),
        "refuses the login",
        "give the user and password_file, credentials, or tls_cert of a user that it knows",
    ),
    (("maximum connections",), "has too many connections", "raise max_connections of the server"),
)
_ALERT = re.compile(r"ALERT_(\w*CERT|UNKNOWN_CA|ACCESS_DENIED)")
_PERMISSION = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE
)


def fault_of(error: BaseException) -> Fault:
    reason = describe(error)
    if isinstance(error, LoginError):
        return Fault("cannot be logged in to", "", reason)
    if isinstance(error, OSError) and error.filename:
        return Fault("cannot be logged in to", reason, "see that the file is there and can be read")
    if isinstance(error, nats.errors.SecureConnRequiredError):
        return Fault("does not offer TLS", "", "give it a certificate, or ask for it as nats://")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrust(error)
    if isinstance(error, ssl.SSLError) and _ALERT.search(str(error)):
        return Fault(
            "refuses the certificate of this host",
            reason,
            "give tls_cert and tls_key that an authority of the server has signed and that have not"
            " expired",
        )
    for texts, what, mend in _REFUSED:
        if any(text in reason.lower() for text in texts):
            return Fault(what, reason, mend)
    return Fault(UNKNOWN.what, reason, UNKNOWN.mend)


def _distrust(error: ssl.SSLCertVerificationError) -> Fault:
    reason = error.verify_message
    if "expired" in reason:
        mend = "give the server a new certificate"
    elif "not yet valid" in reason:
        mend = "set the clock of this host"
    elif "match" in reason:
        mend = "ask for the server by a name or address that its certificate has"
    else:
        mend = "give the authority that signed the server's certificate as tls_ca"
    return Fault("is not trusted", reason, mend)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server let a message or a subscription fall; ``subject`` is in lower case."""

    is_subscription: bool
    subject: str

    def error(self, title: str, subject: str) -> NotPermittedError:
        """``subject``: as it is written."""
        how = "subscribe" if self.is_subscription else "publish"
        return NotPermittedError(
            f"{title} does not let this user {how} to {subject!r}: allow it in the user's permissions"
        )


def refusal_of(error: BaseException) -> Refusal | None:
    """What permissions refused, None when the error is another one."""
    found = _PERMISSION.search(str(error))
    if found is None:
        return None
    return Refusal(found[1].lower() == "subscription", found[2].lower())


def describe(error: BaseException) -> str:
    """What went wrong, in few words."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        # asyncio puts addresses into strerror; the number is the system's own. Names that are not
        # found have numbers below 0, of another table.
        known = error.errno is not None and error.errno > 0
        reason = os.strerror(error.errno) if known and error.errno else error.strerror
        return f"{error.filename}: {reason}" if error.filename else reason
    text = (str(error) or type(error).__name__).removeprefix("nats: ").strip("'")
    return text if text != "TimeoutError" else "no answer in time"
