"""What every store of a journal does in the same way: keys of scopes, events, hashes of rows, ranges of keys."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from cumulant.core.causes import current_cause
from cumulant.core.errors import IntegrityError, LeaseHeldError
from cumulant.core.events import Actor, Event, Fact
from cumulant.core.scope import Scope
from cumulant.ports.journal import ChainHead

encode_json = msgspec.json.Encoder().encode
decode_value = msgspec.json.Decoder(dict[str, object]).decode
_decode_event = msgspec.json.Decoder(Event).decode
#: reads the stored events above a number, at most so many: (number, kind, run, envelope)
Page = Callable[[int, int], list[tuple[Any, ...]]]
_PAGE = 500


def scope_key(scope: Scope) -> str:
    """The text under which a store keeps the rows and events of a scope: `TENANT/PROJECT/ENVIRONMENT`."""
    return "/".join(quote(part, safe="") for part in (scope.tenant, scope.project, scope.environment))


def report_key(scope: Scope) -> str:
    """The text under which a store keeps the reports of a scope, apart from its rows: no scope has that key."""
    return f"{scope_key(scope)}/reports"


def next_event(
    head: ChainHead, fact: Fact, *, actor: Actor, scope: Scope, run: str | None, cause: str | None, time: datetime
) -> Event:
    """The event that reports `fact` and follows `head`. `cause`: an event's id; None: what `caused_by` names."""
    return Event(
        seq=head.seq + 1,
        id=uuid.uuid4().hex,
        time=time,
        kind=fact.kind,
        schema=fact.schema,
        actor=actor.name,
        reason=actor.reason,
        project=scope.project,
        tenant=scope.tenant,
        region=scope.region,
        environment=scope.environment,
        run=run,
        cause=cause or current_cause(),
        data=decode_value(encode_json(fact)),
        previous=head.hash,
    ).sealed()


def read_event(seq: int, envelope: bytes | str) -> Event:
    """A stored event.

    Raises:
        IntegrityError: it was altered and is no event.
    """
    try:
        return _decode_event(envelope)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"event {seq} of the journal was altered and cannot be read ({error})",
            subject=str(seq),
            hint="restore the journal from a copy",
        ) from error


def _in_pages(page: Page, *, after: int, limit: int | None = None) -> Iterator[tuple[Any, ...]]:
    """Rows that begin with a number, in order, from `page(after, size)`; at most `limit`.

    Page by page: a slow reader holds neither a connection nor a read transaction.
    """
    remaining = limit
    while remaining is None or remaining > 0:
        size = _PAGE if remaining is None else min(remaining, _PAGE)
        rows = page(after, size)
        yield from rows
        if len(rows) < size:
            return
        after = rows[-1][0]
        remaining = None if remaining is None else remaining - len(rows)


def events_of(page: Page, *, after: int, limit: int | None) -> Iterator[Event]:
    """The events above number `after`, at most `limit`. Raises as `read_event`."""
    for seq, _, _, envelope in _in_pages(page, after=after, limit=limit):
        yield read_event(seq, envelope)


def fits_kinds(kind: str, patterns: Sequence[str]) -> bool:
    """Whether a kind is one of `patterns`, or begins so where that ends with `.` or `*`; any kind where there are none.

    This is what a filter by kind means everywhere: in lists, pages, exports, streams and the Python API.
    """
    exact, beginnings = divide_kinds(patterns)
    return not patterns or kind in exact or kind.startswith(tuple(beginnings))


def divide_kinds(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The exact kinds, and the beginnings of others, as `fits_kinds` has them."""
    exact = [pattern for pattern in patterns if not pattern.endswith((".", "*"))]
    return exact, [pattern.rstrip("*") for pattern in patterns if pattern.endswith((".", "*"))]


def misfiled_events(page: Page, scope: Scope) -> Iterator[int]:
    """Numbers of events that are stored under another number, kind, run or scope than their own. Raises as above."""
    for seq, kind, run, envelope in _in_pages(page, after=0):
        if is_misfiled(read_event(seq, envelope), seq=seq, kind=kind, run=run, scope=scope):
            yield seq


def is_misfiled(event: Event, *, seq: int, kind: str, run: str | None, scope: Scope) -> bool:
    """Whether an event is stored under another number, kind, run or scope than its own.

    An event of before environments were recorded has none.
    """
    stored = (seq, kind, run, scope.tenant, scope.project, event.environment and scope.environment)
    return (event.seq, event.kind, event.run, event.tenant, event.project, event.environment) != stored


def row_hash(version: int, updated: int, value: object) -> str:
    """The hash of a row's content; `value` is bytes, None for a deleted row.

    A row that was edited from outside may hold values of any type: another type gives another hash, whatever the text.
    """
    head = f"{version!r} {updated!r} {'-' if value is None else '+'}"
    content = value if isinstance(value, bytes) else b"" if value is None else f" {value!r}".encode()
    return hashlib.sha256(head.encode() + content).hexdigest()


def after_prefix(prefix: str) -> str | None:
    """The least text above every text that starts with `prefix`; None if there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        last = ord(prefix[end])
        if last < 0x10FFFF:
            # Surrogates cannot be stored, so the text after U+D7FF is U+E000.
            return prefix[:end] + chr(0xE000 if last == 0xD7FF else last + 1)
    return None


class KeyRange(NamedTuple):
    """Keys from `first` on, above `above` and below `beyond`; None: without that bound."""

    first: str
    above: str | None
    beyond: str | None


def key_range(prefix: str, after: str | None, *, descending: bool) -> KeyRange:
    """The keys that start with `prefix` and follow `after` in the order."""
    beyond = after_prefix(prefix)
    if not descending:
        return KeyRange(max(prefix, after or ""), after, beyond)
    return KeyRange(prefix, None, min((bound for bound in (beyond, after) if bound is not None), default=None))


def row_changed(kind: str, key: str, *, version: int, expected: int) -> LeaseHeldError:
    """The error of a write whose row has another version than expected."""
    return LeaseHeldError(
        f"{kind} {key} was changed by someone else (version {version}, expected {expected})",
        subject=key,
        hint="read it again and decide anew",
    )
