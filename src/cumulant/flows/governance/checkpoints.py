"""Checkpoints of a project's event chain: signed, written where the journal is not, and compared with the chain."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import IntegrityError, LeaseHeldError, NotFoundError, UsageError
from cumulant.core.events import GENESIS, Actor, Break, Event, verify_chain
from cumulant.flows.ledger.actions import verb
from cumulant.governance.checkpoints import (
    Checkpoint,
    CheckpointSigned,
    Note,
    checkpoint_breaks,
    event_leaf,
    open_checkpoint,
    origin_of,
    sign_checkpoint,
    signed_by,
    size_of,
)
from cumulant.governance.merkle import EMPTY_ROOT, GrowingTree
from cumulant.governance.signed_note import public_pem, read_public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.ports.objects import ObjectStore
    from cumulant.project.project import Project

#: what checkpoints do not show
SINCE = "events after the newest checkpoint, in a chain made anew together with the head beside the database"
#: the row of the newest checkpoint
_KIND, _KEY = "audit", "checkpoint"
_PREFIX = "checkpoints/"
_FILE = "checkpoint.txt"


class WrittenCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """`new` is False where no event came since, and `key` is empty where there is no event at all. `public_key` is PEM,
    for others to verify with.
    """

    size: int
    root: str
    key: str
    place: str
    public_key: str
    new: bool = True


class VerifiedCheckpoints(msgspec.Struct, frozen=True, kw_only=True):
    """`breaks`: where the chain is not the one that was signed. `newest`: the name of the newest of `count` checkpoints
    at `place`, which signed the first `size` events; empty where nothing was signed yet.
    """

    place: str
    breaks: list[Break] = []
    count: int = 0
    newest: str = ""
    size: int = 0


class _SignedTree(msgspec.Struct, frozen=True, kw_only=True):
    """The row: the tree of the newest checkpoint, to which later events are added, and where that checkpoint is."""

    size: int = 0
    head: str = GENESIS
    peaks: list[str] = []
    place: str = ""


@verb("events.checkpoint")
def write_checkpoint(
    project: Project, *, principal: Principal, whole: bool = False, clock: Clock | None = None
) -> WrittenCheckpoint:
    """Sign the events up to the newest one, and write the checkpoint to the environment's place for them.

    Verified before: the events since the newest checkpoint and the last one that it signed, or with `whole` all of
    them. The place is written before the journal: a call that is cut off is made up for by the next.

    Raises:
        UsageError: the environment names no place.
        IntegrityError: the chain is not what the newest checkpoint signed, the verified events do not hold, or the
            place has lost its checkpoints.
    """
    store = project.audit()
    if store is None:
        raise UsageError(
            "the environment names no place for checkpoints",
            subject="audit",
            hint="write `audit: s3://BUCKET/FOLDER`, or a folder that others keep, under environments",
        )
    key, origin, journal = project.audit_key.read(), origin_of(project.scope), project.journal()
    row, place = journal.get(_KIND, _KEY), project.endpoints.audit or ""
    known = msgspec.convert({} if row is None else row.value, _SignedTree)
    newest = _newest(store)
    if newest is None and known.size and known.place in ("", place):
        raise _unsigned(f"{known.size:,} events were signed, and there is no checkpoint at {place} any more")
    last = None if newest is None else _open(newest, key.public_key(), origin)
    tree, head, new = _grow(journal, _SignedTree() if whole else known, last)
    if not new and (last is not None or tree.size == 0):
        return _written(project, last, key.public_key(), new=False)
    checkpoint = Checkpoint(
        origin=origin,
        size=tree.size,
        root=tree.root(),
        time=(clock or SystemClock()).now(),
        head=head,
        previous=None if newest is None else newest.sha256,
    )
    _store(store, sign_checkpoint(checkpoint, key))
    signed = _SignedTree(size=tree.size, head=head, peaks=[peak.hex() for peak in tree.peaks], place=place)
    fact = CheckpointSigned(size=tree.size, root=tree.root().hex(), key=checkpoint.key)
    try:
        with journal.transaction(actor=Actor(principal.id)) as transaction:
            transaction.put(_KIND, _KEY, msgspec.to_builtins(signed), expect=0 if row is None else row.version)
            transaction.emit(fact)
    except LeaseHeldError:
        pass  # another process has signed the same events, or more
    return _written(project, checkpoint, key.public_key(), new=True)


@verb("events.verify")
def verify_checkpoints(
    project: Project, *, principal: Principal, place: str | None = None, public_key: Path | None = None
) -> VerifiedCheckpoints:
    """Compare the chain with the checkpoints.

    Args:
        project: its journal, and where nothing else is given, its place for checkpoints and its key.
        principal: who verifies.
        place: the URL of another place with checkpoints of this project.
        public_key: a file with the key that they must be signed with.

    Raises:
        UsageError: no place or no key is known.
        NotFoundError: the place that was named has no checkpoint.
        IntegrityError: events were signed, and the place has no checkpoint; or none is signed by the key.
    """
    store, where = project.audit(place), place or project.endpoints.audit or ""
    if store is None:
        raise UsageError(
            "the environment names no place for checkpoints", subject="audit", hint="give --checkpoints URL"
        )
    notes, journal = [_load(store, name) for name in store.keys(_PREFIX)], project.journal()
    if not notes:
        row, named = journal.get(_KIND, _KEY), place is not None
        signed = _SignedTree() if row is None else msgspec.convert(row.value, _SignedTree)
        _refuse_empty(where, signed.size, named=named)
        return VerifiedCheckpoints(place=where)
    key = project.audit_key.public() if public_key is None else _read_key(public_key)
    if key is None:
        hint = "give --public-key FILE, which `cumulant events checkpoint --public-key FILE` wrote"
        raise UsageError("there is no key here that signs checkpoints", subject="audit_key", hint=hint)
    origin = origin_of(project.scope)
    if not signed_by(notes, key, origin):
        raise IntegrityError(
            f"the key does not fit: none of {len(notes)} checkpoints at {where} is signed by it for {origin}",
            subject="audit_key" if public_key is None else str(public_key),
            hint="give the key that `cumulant events checkpoint --public-key FILE` writes where they are signed",
        )
    breaks = list(checkpoint_breaks(journal.events(), notes, key, origin))
    newest = notes[-1].key
    return VerifiedCheckpoints(place=where, breaks=breaks, count=len(notes), newest=newest, size=size_of(newest))


def _refuse_empty(place: str, signed: int, *, named: bool) -> None:
    if signed:
        raise IntegrityError(
            f"there is no checkpoint at {place}, and {signed:,} events of this journal were signed",
            subject="--checkpoints" if named else "audit",
            hint="check the URL; if it is right, the checkpoints there were removed",
        )
    if named:
        raise NotFoundError(
            f"there is no checkpoint at {place}", subject="--checkpoints", hint="`cumulant events checkpoint` signs one"
        )


def _grow(journal: Journal, signed: _SignedTree, last: Checkpoint | None) -> tuple[GrowingTree, str, bool]:
    """The tree of all events, the hash of the newest one, and whether any but those of checkpoints is new."""
    tree = GrowingTree(signed.size, map(bytes.fromhex, signed.peaks))
    if last is None or (tree.size, tree.root(), signed.head) != (last.size, last.root, last.head):
        # The row is older than the newest checkpoint, or not as it was written: all events are read.
        signed, tree = _SignedTree(), GrowingTree()
    head, new = signed.head, False
    for event in _checked(journal.events(after=max(0, tree.size - 1)), signed):
        tree.append(event_leaf(event))
        head = event.hash
        if last is not None and tree.size == last.size and (tree.root(), head) != (last.root, last.head):
            raise _unsigned(f"the events up to {last.size} are not those that checkpoint {last.key} has signed")
        new = new or (event.kind != CheckpointSigned.kind and (last is None or tree.size > last.size))
    if last is not None and tree.size < last.size:
        raise _unsigned(f"the chain ends with event {tree.size}: checkpoint {last.key} has signed {last.size}")
    return tree, head, new


def _checked(events: Iterator[Event], signed: _SignedTree) -> Iterator[Event]:
    """The events after the signed ones, which begin with the last of those: they must continue the chain.

    A checkpoint of a broken chain would hide when it broke.
    """
    previous = signed
    if signed.size:
        last = next(events, None)
        if last is None or (last.seq, last.hash) != (signed.size, signed.head):
            raise _unsigned(f"event {signed.size} is not the one that was signed")
        _verify_next(last, _SignedTree(size=last.seq - 1, head=last.previous))
    for event in events:
        _verify_next(event, previous)
        previous = _SignedTree(size=event.seq, head=event.hash)
        yield event


def _verify_next(event: Event, previous: _SignedTree) -> None:
    for problem in verify_chain([event], after=previous.size, head=previous.head):
        raise _unsigned(f"event {problem.seq} {problem.problem}")


def _unsigned(message: str) -> IntegrityError:
    return IntegrityError(
        f"no checkpoint is signed: {message}",
        subject="events",
        hint="`cumulant events verify` lists every break; restore lost checkpoints; with a new key, or after a restore "
        "of the project, name another place",
    )


def _open(note: Note, key: Ed25519PublicKey, origin: str) -> Checkpoint:
    try:
        return open_checkpoint(note, key, origin)
    except IntegrityError as error:
        raise _unsigned(f"checkpoint {note.key} does not count: {error.message}") from None


def _newest(store: ObjectStore) -> Note | None:
    keys = store.keys(_PREFIX)
    return _load(store, keys[-1]) if keys else None


def _load(store: ObjectStore, key: str) -> Note:
    with store.open(key) as path:
        return Note(key.removeprefix(_PREFIX), path.read_text(encoding="utf-8", errors="replace"))


def _store(store: ObjectStore, note: Note) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, _FILE)
        path.write_text(note.text, encoding="utf-8", newline="")
        store.put(f"{_PREFIX}{note.key}", path)


def _read_key(path: Path) -> Ed25519PublicKey:
    try:
        return read_public_key(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"the public key cannot be read: {error.strerror}", subject=str(path)) from None


def _written(project: Project, checkpoint: Checkpoint | None, key: Ed25519PublicKey, *, new: bool) -> WrittenCheckpoint:
    return WrittenCheckpoint(
        size=0 if checkpoint is None else checkpoint.size,
        root=EMPTY_ROOT.hex() if checkpoint is None else checkpoint.root.hex(),
        key="" if checkpoint is None else checkpoint.key,
        place=project.endpoints.audit or "",
        public_key=public_pem(key).decode(),
        new=new,
    )
