"""The fields of a form, whoever reads it: the sign-in, the check against other sites, the console."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from cumulant.core.errors import RequestError
from cumulant.serving.errors import HttpError

if TYPE_CHECKING:
    from starlette.requests import Request

#: largest form, in bytes; most fields
MOST_BYTES, _MOST_FIELDS = 1 << 16, 100
_FORM = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        RequestError: it is no text, or has a field twice: which one counts is not for a caller to choose.
        HttpError: 413, it is too large; 415, it is of another type.
    """
    if not is_form(request):
        raise HttpError(415, "this takes a form", hint=f"send {_FORM}")
    return parse_form(await read_body(request))


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM


async def read_body(request: Request) -> bytes:
    """The body of a form. Raises HttpError: 413, it is too large."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise HttpError(413, f"the form is larger than {MOST_BYTES >> 10} KiB")
    return bytes(content)


def parse_form(content: bytes) -> dict[str, str]:
    """The fields of a form's body. Raises RequestError, as `read_form`."""
    try:
        fields = parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise RequestError(f"the form is no text in UTF-8, or has more than {_MOST_FIELDS} fields") from None
    names = [name for name, _ in fields]
    form = dict(fields)
    if len(form) < len(fields):
        twice = next(name for name in names if names.count(name) > 1)[:80]
        raise RequestError(f'the form has the field "{twice}" twice', subject=twice)
    return form
