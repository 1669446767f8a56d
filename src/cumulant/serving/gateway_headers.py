"""Headers of the gateway in front: arm, shadow copy and request id.

They are trusted only with the gateway's token, so that no other process that reaches the server's port can forge
evidence of a release. A request without the token is served without an arm, under an id that the server assigns.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import (
    ARM_HEADER,
    CALLER_HEADER,
    CANDIDATE,
    CHAMPION,
    REQUEST_HEADER,
    SERVED_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
    printable_id,
)
from cumulant.serving.http.messages import Headers, Request, Response
from cumulant.serving.http.site_state import Handler

_ARM, _SERVED, _SHADOW, _REQUEST, _CALLER, _TOKEN = (
    name.encode() for name in (ARM_HEADER, SERVED_HEADER, SHADOW_HEADER, REQUEST_HEADER, CALLER_HEADER, TOKEN_HEADER)
)
_ARMS = {CHAMPION.encode(): CHAMPION, CANDIDATE.encode(): CANDIDATE}


class Marks(NamedTuple):
    """`arm`: assigned to the caller; `served`: arm of this server, empty where unknown."""

    arm: str = ""
    served: str = ""
    #: a mirrored copy, whose answer is never returned
    shadow: bool = False
    #: our name of the request; empty: none
    request: str = ""
    #: the caller's own id, if any
    caller: str = ""
    #: who sent the request, as its token says
    principal: str = ""


NONE = Marks()


class Trust:
    """Verifies the gateway's token of requests.

    Args:
        urls: of this server, as a gateway may write them; a token of any of them is valid.
    """

    def __init__(self, key: bytes, urls: Collection[str]) -> None:
        self._urls = urls
        self._tokens = [token_for(key, url).encode() for url in urls]
        #: requests with a token that was not believed
        self.rejected = 0

    def check(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the gateway forwarded the request; else its headers are removed. It gets an id of the server."""
        believed = self.believes(headers)
        token = headers.pop(_TOKEN, b"")
        if not believed:
            if token:
                self._reject()
            for name in (_ARM, _SERVED, _SHADOW, _REQUEST):
                headers.pop(name, None)
        if not name_of(headers):
            headers[_REQUEST] = new_name().encode()
        return believed

    def believes(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the headers hold a token that the gateway makes for this server."""
        token = headers.get(_TOKEN, b"")
        return any(hmac.compare_digest(token, own_token) for own_token in self._tokens)

    def _reject(self) -> None:
        """Count a rejected token, and write a hint once: a release behind this gateway gets no evidence."""
        self.rejected += 1
        if self.rejected == 1:
            sys.stderr.write(
                "a request has a gateway's token that this server does not accept: it was made with another key, or "
                f"for an address that is none of {', '.join(self._urls)}. Give gateway and server the same "
                "--gateway-key-file, and name the host that the gateway dials with --allow-host\n"
            )

    def wrap(self, handle: Handler) -> Handler:
        """`handle` with checked requests; responses that no gateway forwards carry the request id."""
        check = self.check

        def checked(request: Request) -> Response | Awaitable[Response]:
            if check(request.headers):
                request.forwarded = True
                return handle(request)
            name, response = request.headers[_REQUEST], handle(request)
            return _named(response, name) if isinstance(response, Response) else _named_later(response, name)

        return checked

    def admit(self, admitted: Callable[..., bool]) -> Callable[[bytes, Headers], bool]:
        """`admitted`, which is given whether the gateway forwarded the request."""
        return lambda target, headers: admitted(target, headers, forwarded=self.believes(headers))


def _named(response: Response, name: bytes) -> Response:
    return msgspec.structs.replace(response, headers=(*response.headers, (_REQUEST, name)))


async def _named_later(response: Awaitable[Response], name: bytes) -> Response:
    return _named(await response, name)


def new_name() -> str:
    """A new request id, which callers cannot guess."""
    return os.urandom(16).hex()


def name_of(headers: Mapping[bytes, bytes]) -> str:
    """Request id of the server in checked headers; empty: none."""
    return printable_id(headers.get(_REQUEST, b""))


def counted_arm(headers: Mapping[bytes, bytes]) -> str:
    """The arm that a request is counted under: the one assigned to the caller, `shadow` of a mirrored copy, or none."""
    return "shadow" if headers.get(_SHADOW) == b"1" else _ARMS.get(headers.get(_ARM, b""), "")


def marks_of(headers: Mapping[bytes, bytes]) -> Marks:
    """Gateway marks in checked headers."""
    name, caller = headers.get(_REQUEST, b""), headers.get(_CALLER, b"")
    return Marks(
        arm=_ARMS.get(headers.get(_ARM, b""), ""),
        served=_ARMS.get(headers.get(_SERVED, b""), ""),
        shadow=headers.get(_SHADOW) == b"1",
        request=printable_id(name),
        caller="" if caller == name else printable_id(caller),
    )
