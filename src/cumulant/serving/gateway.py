"""What a gateway in front says of a request: its arm, whether it is a copy, its name.

Heard only where the server was started for it, so that no caller can choose how its request is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cumulant.core.traffic import ARM_HEADER, CANDIDATE, CHAMPION, REQUEST_HEADER, SERVED_HEADER, SHADOW_HEADER

_ARM, _SERVED, _SHADOW, _REQUEST = (
    name.encode() for name in (ARM_HEADER, SERVED_HEADER, SHADOW_HEADER, REQUEST_HEADER)
)
_ARMS = {CHAMPION.encode(): CHAMPION, CANDIDATE.encode(): CANDIDATE}
_LONGEST = 200


class Marks(NamedTuple):
    """`arm`: that the caller was assigned; `served`: whose server this is, empty where the gateway does not say."""

    arm: str = ""
    served: str = ""
    #: a mirrored copy, whose answer is never returned
    shadow: bool = False
    #: the gateway's name of the request; empty: none
    request: str = ""


NONE = Marks()


def marks_of(headers: Mapping[bytes, bytes]) -> Marks:
    """The marks in a request's headers; what is none of them is left out."""
    name = headers.get(_REQUEST, b"")
    return Marks(
        arm=_ARMS.get(headers.get(_ARM, b""), ""),
        served=_ARMS.get(headers.get(_SERVED, b""), ""),
        shadow=headers.get(_SHADOW) == b"1",
        request=name.decode() if len(name) <= _LONGEST and name.isascii() and name.decode().isprintable() else "",
    )
