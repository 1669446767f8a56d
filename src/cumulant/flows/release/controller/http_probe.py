"""Short HTTP questions to servers and Prometheus. None of them may hold the controller up."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

import msgspec

_LONGEST = 4 * 1024 * 1024
_READY, _PAUSE = "/v2/health/ready", 0.25


def fetched(url: str, *, seconds: float, authority: str | None = None) -> object | None:
    """The JSON document at `url`; None where there is none in time, whatever the reason.

    authority: a file of those who may have signed the certificate of an https server; None: those of the system.
    """
    try:
        with _direct(authority).open(_request(url), timeout=seconds) as answer:
            found: object = msgspec.json.decode(answer.read(_LONGEST))
            return found
    except (OSError, HTTPException, ValueError, msgspec.DecodeError):
        return None


def answers(url: str, *, seconds: float, authority: str | None = None) -> bool:
    """Whether a server says at `url` that it is ready. One that does not know the path (404) is taken as ready."""
    try:
        with _direct(authority).open(_request(url), timeout=seconds):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code in (404, 405)
    except (OSError, HTTPException, ValueError):
        return False


def becomes_ready(
    url: str, until: float, waiting: Callable[[], None] = lambda: None, *, authority: str | None = None
) -> bool:
    """Whether the server at `url` says that it is ready before `until`, of `time.monotonic`; it is asked at least once.

    `waiting` is called each time that it did not. authority: as of `fetched`.
    """
    while not answers(url + _READY, seconds=2.0, authority=authority):
        if time.monotonic() >= until:
            return False
        waiting()
        time.sleep(_PAUSE)
    return True


def distrusted(url: str, *, seconds: float, authority: str | None = None) -> str:
    """Why the certificate of the server at `url` cannot be verified, in words; nothing where it can, or none is shown.

    authority: as of `fetched`.
    """
    try:
        with _direct(authority).open(_request(url), timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:  # it answers, so it was verified
        with error:
            return ""
    except urllib.error.URLError as error:
        reason = error.reason
        return reason.verify_message if isinstance(reason, ssl.SSLCertVerificationError) else ""
    except (OSError, HTTPException, ValueError):
        return ""


def _request(url: str) -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):
        raise ValueError(url)
    return urllib.request.Request(url, headers={"user-agent": "cumulant"})  # noqa: S310 - checked above


def _direct(authority: str | None = None) -> urllib.request.OpenerDirector:
    """Servers stand beside the controller: a proxy of the environment is for the world outside."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if authority is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority)))
    return urllib.request.build_opener(*handlers)
