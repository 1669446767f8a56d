"""`cumulant login`: let this command line act as you at a server."""

from __future__ import annotations

import os
import time
from typing import Annotated
from urllib.parse import urlencode

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import EngineUnavailableError, RefusedError

app = application("login", "Sign in to a server.", examples=["cumulant login --server https://cumulant.example.com"])

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_SECONDS = 30.0


class _Codes(msgspec.Struct, frozen=True):
    device_code: str
    user_code: str
    verification_uri_complete: str
    expires_in: int
    interval: int = 5


class _Answer(msgspec.Struct, frozen=True):
    """What a server answers to a form: a token, or why there is none."""

    access_token: str = ""
    expires_in: int = 0
    error: str = ""


@command(
    app,
    action=None,
    examples=["cumulant login --server https://cumulant.example.com", "cumulant login --server URL --of shop --json"],
)
def login(
    call: Invocation,
    *,
    server: Annotated[str, typer.Option(metavar="URL", help="The address of the server.")],
    of: Annotated[str, typer.Option(metavar="NAME", help="The project there; default: its first.")] = "",
) -> None:
    """Sign in to a server: open the shown address in a browser, and confirm the code there.

    The token is saved for your user, and expires with a session's longest time.
    """
    from cumulant.core.network.urls import check_token_url
    from cumulant.core.system.saved_tokens import save_token

    check_token_url(server)
    project = {"project": of} if of else {}
    codes = msgspec.json.decode(_post(server, "/v1/sign-in/device", project)[1], type=_Codes)
    call.note(f"open {codes.verification_uri_complete} and confirm the code {codes.user_code}")
    answer = _wait(server, {**project, "grant_type": _GRANT, "device_code": codes.device_code}, codes)
    path = save_token(server, answer.access_token, os.environ)
    hours = answer.expires_in / 3600
    document = {"server": server, "expires_in": answer.expires_in, "file": str(path)}
    call.answer(document, lambda console: console.print(f"signed in to {server} for {hours:g} hours", soft_wrap=True))


def _wait(server: str, form: dict[str, str], codes: _Codes) -> _Answer:
    end = time.monotonic() + codes.expires_in
    while time.monotonic() < end:
        status, body = _post(server, "/v1/sign-in/device/token", form)
        answer = msgspec.json.decode(body, type=_Answer)
        if status == 200:
            return answer
        if answer.error != "authorization_pending":
            break
        time.sleep(codes.interval)
    raise RefusedError("the sign-in was not confirmed in time", subject=server, hint="run `cumulant login` again")


def _post(server: str, path: str, form: dict[str, str]) -> tuple[int, bytes]:
    from cumulant.core.network.http_client import HttpClient, NoResponseError

    headers = {"content-type": "application/x-www-form-urlencoded"}
    try:
        response = HttpClient(seconds=_SECONDS, max_bytes=1 << 16, use_proxies=True).send(
            "POST", server.rstrip("/") + path, headers=headers, content=urlencode(form).encode()
        )
    except NoResponseError as error:
        raise EngineUnavailableError(f"the server does not answer: {error.reason}", subject=server) from None
    if response.status not in (200, 400):
        hint = "check the address: it is that of `cumulant api`"
        raise EngineUnavailableError(f"the server answers HTTP {response.status}", subject=server, hint=hint)
    return response.status, response.body
