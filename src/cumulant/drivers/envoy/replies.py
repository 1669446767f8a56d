"""Answers of the gateway itself, in the form that the servers' errors have."""

from __future__ import annotations

from typing import Any

#: by status: the code of the error, what it says, and whether trying again can help
_ERRORS = {
    404: ("not-found", "%LOCAL_REPLY_BODY%", False),
    429: ("overloaded", "more requests a second than this gateway takes", True),
    502: ("engine-unavailable", "no server of the model answers", True),
    503: ("engine-unavailable", "no server of the model answers", True),
    504: ("deadline", "no server of the model answered in time", True),
}
_AGAIN = {429, 502, 503}
#: an answer that is none is as no answer: the server may have acted, and the caller is told the same
_AS = {502: 503}


def local_replies() -> dict[str, Any]:
    """The configuration; an error with another status is the caller's."""
    return {
        "mappers": [_mapper(status) for status in _ERRORS],
        "body_format": {"json_format": _body("request", "%LOCAL_REPLY_BODY%", retryable=False)},
    }


def _mapper(status: int) -> dict[str, Any]:
    code, said, retryable = _ERRORS[status]
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": f"cumulant.reply.{status}"}}
    found: dict[str, Any] = {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "body_format_override": {"json_format": _body(code, said, retryable=retryable)},
    }
    if status in _AS:
        found["status_code"] = _AS[status]
    if status in _AGAIN:
        found["headers_to_add"] = [{"header": {"key": "retry-after", "value": "1"}}]
    return found


def _body(code: str, said: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "error": said, "retryable": retryable}
