"""Error responses of the gateway itself, in the format of the servers' errors."""

from __future__ import annotations

from typing import Any

#: by status: the error's code, its message, and whether a retry can help
_ERRORS = {
    404: ("not-found", "%LOCAL_REPLY_BODY%", False),
    429: ("overloaded", "more requests a second than this gateway takes", True),
    502: ("engine-unavailable", "no server of the model answers", True),
    503: ("engine-unavailable", "no server of the model answers", True),
    504: ("deadline", "no server of the model answered in time", True),
}
_RETRY_LATER = {429, 502, 503}
#: an invalid response counts as a missing one: the server may have acted, and the caller gets the same error
_REPLACED_STATUS = {502: 503}


def local_replies() -> dict[str, Any]:
    """The configuration of local replies; an error with another status is the caller's."""
    return {
        "mappers": [_mapper(status) for status in _ERRORS],
        "body_format": {"json_format": _body("request", "%LOCAL_REPLY_BODY%", retryable=False)},
    }


def _mapper(status: int) -> dict[str, Any]:
    code, message, retryable = _ERRORS[status]
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": f"cumulant.reply.{status}"}}
    mapper: dict[str, Any] = {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "body_format_override": {"json_format": _body(code, message, retryable=retryable)},
    }
    if status in _REPLACED_STATUS:
        mapper["status_code"] = _REPLACED_STATUS[status]
    if status in _RETRY_LATER:
        mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": "1"}}]
    return mapper


def _body(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "error": message, "retryable": retryable}
