"""A subject, the places that hold something of it, and what an erasure did there. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.masking import mask

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context

Status = Literal["erased", "pending", "kept", "nothing"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the columns that `subject` names, and its keyed hash, by which logs and events name it.

    `columns`: source to its column of subjects.
    """

    value: str
    hash: str
    columns: Mapping[str, str]

    @property
    def texts(self) -> frozenset[str]:
        """What a column holds of it: the value, or where it is personal its hash."""
        return frozenset({self.value, self.hash})

    @property
    def names(self) -> frozenset[str]:
        """The names of its columns, in all sources."""
        return frozenset(self.columns.values())

    def is_in(self, row: Mapping[str, object]) -> bool:
        """Whether one of the columns of a row holds it."""
        return any(str(row[name]) in self.texts for name in self.names & row.keys())

    def is_in_key(self, key: str, names: Sequence[str]) -> bool:
        """Whether a label's key, as the JSON of its values, is of it; `names`: the columns, where they are known."""
        if not names:
            return self.is_named_in(key)
        values = msgspec.json.decode(key, type=list[str])
        return any(name in self.names and value in self.texts for name, value in zip(names, values, strict=False))

    def is_named_in(self, text: str) -> bool:
        """Whether a text has its value or its hash as a whole JSON string."""
        return any(msgspec.json.encode(part).decode() in text for part in self.texts)


def subject_of(value: str, salt: bytes, columns: Mapping[str, str]) -> Subject:
    return Subject(value=value, hash=mask(value, salt), columns=columns)


class SubjectPlace(msgspec.Struct, frozen=True, kw_only=True):
    """One place that holds something of the subject. `rows`: how many records; `store`: the name of its store."""

    store: str
    where: str
    rows: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did in one store.

    `erased`: nothing of the subject is left there; `pending`: something is, the reason says what erases it; `kept`: it
    stays, the reason says why and until when; `nothing`: there was nothing. `rewritten`: what was deleted or written
    anew.
    """

    store: str
    status: Status
    rows: int = 0
    rewritten: tuple[str, ...] = ()
    reason: str = ""


class SubjectStore(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of store can do for a subject.

    `packages`: the packages of the flows that write there. `find` and `erase` are None where nothing personal can be;
    `holds` says what is there.
    """

    name: str
    packages: tuple[str, ...]
    holds: str
    find: Callable[[Context, Subject], list[SubjectPlace]] | None = None
    erase: Callable[[Context, Subject], Receipt] | None = None


def total(places: list[SubjectPlace]) -> int:
    return sum(place.rows for place in places)


def kept_receipt(store: str, places: list[SubjectPlace], reason: str) -> Receipt:
    """Of a store that keeps these places, for this reason."""
    if not places:
        return Receipt(store=store, status="nothing")
    return Receipt(store=store, status="kept", rows=total(places), reason=reason)


def erased_receipt(store: str, places: list[SubjectPlace], remaining: list[SubjectPlace], pending: str) -> Receipt:
    """Of a store that erased these places and found those afterwards, for the reason `pending`."""
    return Receipt(
        store=store,
        status=status_after(places, remaining),
        rows=total(places),
        rewritten=tuple(place.where for place in places),
        reason=pending if remaining else "",
    )


def status_after(before: list[SubjectPlace], after: list[SubjectPlace]) -> Status:
    """Of an erasure that found these places, and left those."""
    if after:
        return "pending"
    return "erased" if before else "nothing"
