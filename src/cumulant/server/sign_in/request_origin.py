"""Where a request comes from and which trace it is part of, as part of its principal, for records of decisions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulant.ports.access import Principal

#: version, trace, span and flags of W3C Trace Context; later versions may have more fields
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def with_origin(principal: Principal, request: Request) -> Principal:
    """The principal with the address that the request came from, and the trace that its caller says it is part of."""
    source = request.client.host if request.client is not None else ""
    named = _TRACE_PARENT.fullmatch(request.headers.get("traceparent", ""))
    return msgspec.structs.replace(principal, source=source, trace=named[1] if named else "")
