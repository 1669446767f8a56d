"""Upper bounds of memory and rows of a JSON or CSV body, before it is decoded."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from cumulant.serving.errors import HttpError
from cumulant.serving.protocol.row_counts import MOST_ROWS, check_count

#: upper bounds of the memory that an element, an object, a list and half a text take beside their text, in `_UNIT`s
_UNIT = 8
_COSTS = {b",": 5, b"{": 23, b"[": 9, b'"': 3}
_TABLE = bytes(_COSTS.get(bytes([letter]), 0) for letter in range(256))
#: bytes that are gone through at once, so that other threads have their turn
_PIECE = 256 * 1024
#: bytes that one byte of text may become. A body of numbers, rows or nested tensors stays below it; only one of hardly
#: anything but empty objects or lists does not
_EXPANSION = 32
#: a cell of CSV is there as text and as a value, in a list and in an object; the latter two take so much a row
_CSV, _CSV_ROW = 3, 512
_NESTING = (b"[", b"{", b'"')
_Value = list[msgspec.Raw] | dict[str, msgspec.Raw] | str | float | int | bool | None
_value: Callable[[bytes | msgspec.Raw], _Value] = msgspec.json.Decoder(_Value).decode


def decoded_bytes(text: bytes) -> int:
    """An upper bound of the bytes of memory that the values of a JSON `text` take, at some 1 ms a MiB."""
    pieces = (text[at : at + _PIECE].translate(_TABLE) for at in range(0, len(text), _PIECE))
    return len(text) + _UNIT * sum(int(np.frombuffer(piece, np.uint8).sum()) for piece in pieces)


def decoded_csv_bytes(text: bytes) -> int:
    """An upper bound of the bytes of memory that the rows of a CSV `text` take; more than may come are not read."""
    rows = min(text.count(b"\n") + text.count(b"\r"), MOST_ROWS + 1)
    return _CSV * decoded_bytes(text) + _CSV_ROW * rows


def most_decoded(body_limit: int) -> int:
    """The most bytes of memory that one body may take decoded, where `body_limit` bytes of text may come."""
    return _EXPANSION * body_limit


def check_decoded(text: bytes, most: int) -> None:
    """Raises HttpError (413) for a text that would take more than `most` bytes of memory."""
    size = decoded_bytes(text)
    if size > most:
        raise too_much_memory(size, most)


def too_much_memory(size: int, most: int) -> HttpError:
    text = f"the body would take {size >> 20} MiB of memory once it is decoded, where {most >> 20} MiB may be"
    return HttpError(413, text, hint="send fewer rows a request")


def check_lists(text: bytes) -> None:
    """Raises HttpError (413) for a document in which a list, or one in an object, or in an object of that, has more
    elements than there may be rows. A text that is no JSON passes.
    """
    try:
        _check(text, 2)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return


def _check(part: bytes | msgspec.Raw, depth: int) -> None:
    text = bytes(part).strip()
    if text[:1] == b"[" and not any(sign in text[1:] for sign in _NESTING):
        check_count(text.count(b",") + 1)  # numbers: so many parts would take more memory than the numbers
        return
    value = _value(text)
    if isinstance(value, list):
        check_count(len(value))
    elif isinstance(value, dict) and depth:
        for inner in value.values():
            _check(inner, depth - 1)
