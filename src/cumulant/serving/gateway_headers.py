"""What a gateway in front says of a request: its arm, whether it is a copy, its name.

Believed only with the gateway's token, so that no other process that reaches the server's port can make evidence of a
release. A request without it is answered as an ordinary one: without an arm, under a name that the server gives.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Awaitable, Collection, Mapping
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
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.http.site import Handler

_ARM, _SERVED, _SHADOW, _REQUEST, _CALLER, _TOKEN = (
    name.encode() for name in (ARM_HEADER, SERVED_HEADER, SHADOW_HEADER, REQUEST_HEADER, CALLER_HEADER, TOKEN_HEADER)
)
_ARMS = {CHAMPION.encode(): CHAMPION, CANDIDATE.encode(): CANDIDATE}


class Marks(NamedTuple):
    """`arm`: that the caller was assigned; `served`: whose server this is, empty where the gateway does not say."""

    arm: str = ""
    served: str = ""
    #: a mirrored copy, whose answer is never returned
    shadow: bool = False
    #: our name of the request; empty: none
    request: str = ""
    #: the caller's own name of it, where it gave one
    caller: str = ""


NONE = Marks()


class Trust:
    """Tells requests that the gateway forwarded from all others.

    Args:
        urls: of this server, as a gateway may write them; a token of any of them is believed.
    """

    def __init__(self, key: bytes, urls: Collection[str]) -> None:
        self._urls = urls
        self._tokens = [token_for(key, url).encode() for url in urls]
        #: requests with a token that was not believed
        self.rejected = 0

    def check(self, headers: dict[bytes, bytes]) -> bool:
        """Take out of the headers what must not be believed; each request has a name of ours afterwards. Returns
        whether the gateway forwarded it.
        """
        token = headers.pop(_TOKEN, b"")
        believed = any(hmac.compare_digest(token, own_token) for own_token in self._tokens)
        if not believed:
            if token:
                self._reject()
            for name in (_ARM, _SERVED, _SHADOW, _REQUEST):
                headers.pop(name, None)
        if not name_of(headers):
            headers[_REQUEST] = new_name().encode()
        return believed

    def _reject(self) -> None:
        """Count it, and say once what to do: a release behind this gateway gets no evidence."""
        self.rejected += 1
        if self.rejected == 1:
            sys.stderr.write(
                "a request has a gateway's token that this server does not believe: it was made with another key, or "
                f"for an address that is none of {', '.join(self._urls)}. Give gateway and server the same "
                "--gateway-key-file, and name the host that the gateway dials with --allow-host\n"
            )

    def wrap(self, handle: Handler) -> Handler:
        """Answers as `handle`, whose requests are checked first. The server names a request on the answer itself where
        no gateway forwarded it.
        """
        check = self.check

        def checked(request: Request) -> Response | Awaitable[Response]:
            if check(request.headers):
                return handle(request)
            name, response = request.headers[_REQUEST], handle(request)
            return _named(response, name) if isinstance(response, Response) else _named_later(response, name)

        return checked


def _named(response: Response, name: bytes) -> Response:
    return msgspec.structs.replace(response, headers=(*response.headers, (_REQUEST, name)))


async def _named_later(response: Awaitable[Response], name: bytes) -> Response:
    return _named(await response, name)


def new_name() -> str:
    """A name of ours for a request, which no caller can guess."""
    return os.urandom(16).hex()


def name_of(headers: Mapping[bytes, bytes]) -> str:
    """Our name of a request whose headers were checked; empty: it has none."""
    return printable_id(headers.get(_REQUEST, b""))


def marks_of(headers: Mapping[bytes, bytes]) -> Marks:
    """The marks in a request's headers, which were checked; what is none of them is left out."""
    name, caller = headers.get(_REQUEST, b""), headers.get(_CALLER, b"")
    return Marks(
        arm=_ARMS.get(headers.get(_ARM, b""), ""),
        served=_ARMS.get(headers.get(_SERVED, b""), ""),
        shadow=headers.get(_SHADOW) == b"1",
        request=printable_id(name),
        caller="" if caller == name else printable_id(caller),
    )
