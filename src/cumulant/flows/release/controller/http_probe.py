"""Short HTTP requests to servers and Prometheus. None of them may block the controller."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from cumulant.core.network.http_client import HttpClient, NoResponseError

_LONGEST = 4 * 1024 * 1024
_READY, _PAUSE = "/v2/health/ready", 0.25


def fetch_json(
    url: str,
    *,
    seconds: float,
    authority: str | None = None,
    token: str | None = None,
    refused: Callable[[int], object] = lambda _: None,
) -> object | None:
    """The JSON document at `url`; None where there is none in time, whatever the reason.

    authority: a file of those who may have signed the certificate of an https server; None: those of the system.
    token: is sent, also after a redirect, which never leads to another host.
    refused: is given the status of a server that does not allow the request: 401 or 403.
    """
    try:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        response = _client(seconds, authority, longest=_LONGEST).get(url, headers)
        if response.status in (401, 403):
            refused(response.status)
        document: object = msgspec.json.decode(response.body) if response.ok else None
    except (NoResponseError, msgspec.DecodeError, ValueError):
        return None
    return document


def is_ready(url: str, *, seconds: float, authority: str | None = None) -> bool:
    """Whether a server says at `url` that it is ready. One that does not know the path (404) is taken as ready."""
    try:
        response = _client(seconds, authority).get(url)
    except NoResponseError:
        return False
    return response.ok or response.status in (404, 405)


def wait_until_ready(
    url: str, until: float, waiting: Callable[[], None] = lambda: None, *, authority: str | None = None
) -> bool:
    """Whether the server at `url` says that it is ready before `until`, of `time.monotonic`; asks at least once.

    `waiting` is called each time that it did not. authority: as of `fetch_json`.
    """
    while not is_ready(url + _READY, seconds=2.0, authority=authority):
        if time.monotonic() >= until:
            return False
        waiting()
        time.sleep(_PAUSE)
    return True


def find_certificate_fault(url: str, *, seconds: float, authority: str | None = None) -> str:
    """Why the certificate of the server at `url` cannot be verified, in words; nothing where it can, or none is shown.

    authority: as of `fetch_json`.
    """
    try:
        _client(seconds, authority).get(url)
    except NoResponseError as error:
        return error.certificate
    return ""


def _client(seconds: float, authority: str | None, *, longest: int = 0) -> HttpClient:
    """Servers stand beside the controller: a proxy of the environment is for the world outside."""
    return HttpClient(seconds=seconds, max_bytes=longest, authority=authority, follow_redirects=True)
