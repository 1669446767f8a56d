"""A token for this command line, which its user confirms in a browser (RFC 8628)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from cumulant.core.errors import EngineUnavailableError, RefusedError
from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.network.urls import check_token_url, server_address
from cumulant.flows.identities.tokens import TokenView

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_SECONDS = 30.0
_CHECK = "check the address: it is that of `cumulant api`, without a path"
Answer = TypeVar("Answer", bound=msgspec.Struct)


class _Codes(msgspec.Struct, frozen=True):
    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    verification_uri_complete: str = ""
    interval: int = 5


class DeviceToken(msgspec.Struct, frozen=True):
    """What a server answers: a token, which `token` describes, or in `error` why there is none."""

    access_token: str = ""
    expires_in: int = 0
    token: TokenView | None = None
    error: str = ""


def device_token(server: str, form: Mapping[str, str], note: Callable[[str], None]) -> DeviceToken:
    """The token of a user who confirms it. `form`: the fields of the request; `note` is told where to confirm.

    Raises:
        UsageError: no token may be sent to the address.
        EngineUnavailableError: the server does not answer, or is none of Cumulant.
        RefusedError: nobody has confirmed in time, or the server refuses the request.
    """
    server = server_address(server)
    check_token_url(server)
    project = {name: form[name] for name in ("project",) if name in form}
    status, body = _post(server, "/v1/sign-in/device", form)
    if status != 200:
        reason = _decode(server, body, DeviceToken).error
        raise RefusedError(f"the server refuses the request: {reason[:80]}", subject=server, hint="check its fields")
    codes = _decode(server, body, _Codes)
    if codes.verification_uri_complete:
        note(f"open {codes.verification_uri_complete} and confirm the code {codes.user_code}")
    else:
        note(f"open {codes.verification_uri} and type the code {codes.user_code} there")
    return _wait(server, {**project, "grant_type": _GRANT, "device_code": codes.device_code}, codes)


def _wait(server: str, form: Mapping[str, str], codes: _Codes) -> DeviceToken:
    end = time.monotonic() + codes.expires_in
    while time.monotonic() < end:
        status, body = _post(server, "/v1/sign-in/device/token", form)
        answer = _decode(server, body, DeviceToken)
        if status == 200:
            return answer
        if answer.error != "authorization_pending":
            break
        time.sleep(codes.interval)
    raise RefusedError("it was not confirmed in time", subject=server, hint="run the same command again")


def _decode(server: str, body: bytes, kind: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise EngineUnavailableError("the server does not answer as expected", subject=server, hint=_CHECK) from None


def _post(server: str, path: str, form: Mapping[str, str]) -> tuple[int, bytes]:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    try:
        response = HttpClient(seconds=_SECONDS, max_bytes=1 << 16, use_proxies=True).send(
            "POST", server + path, headers=headers, content=urlencode(form).encode()
        )
    except NoResponseError as error:
        raise EngineUnavailableError(f"the server does not answer: {error.reason}", subject=server) from None
    if response.status not in (200, 400):
        raise EngineUnavailableError(f"the server answers HTTP {response.status}", subject=server, hint=_CHECK)
    return response.status, response.body
