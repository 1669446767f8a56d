"""Pages of lists: a cursor names the last item of a page by its key, so that what is added later moves nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from cumulant.core.errors import UsageError
from cumulant.server.operation import MOST_ITEMS, ListPage, PageQuery

Item = TypeVar("Item")
Key = tuple[str | int, ...]


def paginate(
    items: Iterable[Item], query: PageQuery, key: Callable[[Item], Key], *, newest: bool = False
) -> ListPage[Item]:
    """The items after the cursor of `query`, ordered by `key`; `newest`: in descending order.

    Raises:
        UsageError: the cursor is none of this list, or the limit is out of bounds.
    """
    limit, after = check_limit(query.limit), decode_cursor(query.cursor)
    listed = sorted(items, key=key, reverse=newest)
    if after is not None:
        listed = [item for item in listed if _follows(key(item), after, newest)]
    page = listed[:limit]
    return ListPage(page, encode_cursor(key(page[-1])) if len(listed) > limit else None)


def _follows(key: Key, after: Key, newest: bool) -> bool:
    try:
        return key < after if newest else key > after
    except TypeError:
        raise bad_cursor() from None


def check_limit(limit: int) -> int:
    if not 1 <= limit <= MOST_ITEMS:
        raise UsageError(f"limit is {limit}, and has to be 1 to {MOST_ITEMS:,}", subject="limit")
    return limit


def encode_cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(text: str) -> Key | None:
    """The key of a cursor; None for an empty one. Raises UsageError."""
    if not text:
        return None
    try:
        content = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key: Any = msgspec.json.decode(content, type=list[str | int])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise bad_cursor() from None
    return tuple(key)


def bad_cursor() -> UsageError:
    return UsageError(
        "the cursor is none of this list", subject="cursor", hint="take it from `next` of the page before"
    )
