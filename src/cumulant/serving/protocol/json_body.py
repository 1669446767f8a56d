"""Decoding of JSON bodies, with the errors for invalid ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from cumulant.core.errors import RequestError

#: how msgspec begins its message about a number that no float holds
_OUT_OF_RANGE = "Number out of range"
#: bytes of a body that are searched for the field of such a number
_LOOKED_AT = 65_536
_NUMBER_OF = re.compile(rb'"([^"\\]{1,100})"[ \t\r\n]*:[ \t\r\n]*(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)')

decode_json: Callable[[bytes | msgspec.Raw], Any] = msgspec.json.Decoder().decode


def decode_body(decode: Callable[[Any], Any], body: bytes | memoryview, *, expected: str) -> Any:
    """Body decoded by `decode`; `expected` is the hint for an empty body.

    Raises:
        RequestError: it is empty, no valid JSON, or none of the expected form.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        if is_out_of_range(error):
            raise out_of_range(_field_out_of_range(bytes(body[:_LOOKED_AT]))) from None
        raise RequestError(f"the request does not have the expected form: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not bytes(body).strip():
            raise RequestError("the body is empty", hint=expected) from None
        raise RequestError(f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None


def is_out_of_range(error: msgspec.DecodeError) -> bool:
    """Whether a number is larger than any float."""
    return str(error).startswith(_OUT_OF_RANGE)


def out_of_range(name: str | None) -> RequestError:
    """Error for such a number in field or input `name`, without the number, which may be personal."""
    what = "a number" if name is None else f'the number of "{name}"'
    return RequestError(
        f"{what} is beyond the range of a 64-bit float (1.8e308)", subject=name, hint="send a finite number"
    )


def _field_out_of_range(body: bytes) -> str | None:
    names = (match[1] for match in _NUMBER_OF.finditer(body) if math.isinf(float(match[2])))
    return next(names, b"").decode(errors="replace") or None
