"""Checkpoints of the event chain: what the events up to a number hash to, signed and kept where the journal is not."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.core.events import Break, Event, Fact
from cumulant.core.scope import Scope
from cumulant.governance.merkle import GrowingTree, leaf_hash
from cumulant.governance.signed_note import names_key, open_note, sign_note

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_LINES = ("time", "head", "previous")
_NONE = "-"
_HASH_BYTES, _NAME_DIGITS, _ROOT_DIGITS = 32, 20, 12


class CheckpointSigned(Fact, frozen=True, kw_only=True):
    """The events up to number `size` were signed; the checkpoint is at `key` of the place for checkpoints."""

    kind: ClassVar[str] = "audit.checkpoint_signed"
    size: int
    root: str
    key: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The first `size` events: the root of their Merkle tree, and the hash of the last one.

    `origin` says whose chain it is; `previous` is the SHA-256 of the note of the checkpoint before, None for the first.
    """

    origin: str
    size: int
    root: bytes
    time: datetime
    head: str
    previous: str | None

    @property
    def key(self) -> str:
        """Its name in a store: in the order of sizes, and another one for another chain of the same size."""
        return f"{self.size:0{_NAME_DIGITS}d}-{self.root.hex()[:_ROOT_DIGITS]}"

    def text(self) -> str:
        """Its lines as they are signed: those of a checkpoint of a transparency log, then its own."""
        root = base64.b64encode(self.root).decode()
        own = {"time": self.time.isoformat(), "head": self.head, "previous": self.previous or _NONE}
        lines = [self.origin, str(self.size), root, *(f"{name} {own[name]}" for name in _LINES)]
        return "".join(f"{line}\n" for line in lines)


class Note(msgspec.Struct, frozen=True):
    """A stored checkpoint: its name in the store, and its text as it is there."""

    key: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def origin_of(scope: Scope) -> str:
    """Whose chain it is, as checkpoints name it."""
    return f"cumulant/{scope.prefix.rstrip('/')}"


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> Note:
    return Note(checkpoint.key, sign_note(checkpoint.text(), key, checkpoint.origin))


def open_checkpoint(note: Note, key: Ed25519PublicKey, origin: str) -> Checkpoint:
    """The checkpoint in a note.

    Raises:
        IntegrityError: the key has not signed it, it is of another chain, or it has another name.
    """
    checkpoint = _parse(open_note(note.text, key, origin))
    if checkpoint.origin != origin or checkpoint.key != note.key:
        raise IntegrityError(f"it is checkpoint {checkpoint.key} of {checkpoint.origin}")
    return checkpoint


def _parse(text: str) -> Checkpoint:
    try:
        origin, size, root, *own = text.splitlines()
        values = dict(line.split(" ", 1) for line in own)
        previous = values["previous"]
        checkpoint = Checkpoint(
            origin=origin,
            size=int(size),
            root=base64.b64decode(root, validate=True),
            time=datetime.fromisoformat(values["time"]),
            head=values["head"],
            previous=None if previous == _NONE else previous,
        )
    except (ValueError, KeyError, binascii.Error) as error:
        raise IntegrityError(f"its text is no checkpoint ({error})") from None
    if checkpoint.text() != text or len(checkpoint.root) != _HASH_BYTES:
        raise IntegrityError("its text is no checkpoint")
    return checkpoint


def event_leaf(event: Event) -> bytes:
    """The leaf of an event: its hash, which stands for everything in it."""
    return leaf_hash(event.hash.encode())


def signed_by(notes: Sequence[Note], key: Ed25519PublicKey, origin: str) -> list[Note]:
    """Those with a signature of this key, be it a wrong one."""
    return [note for note in notes if names_key(note.text, key, origin)]


def checkpoint_breaks(
    events: Iterable[Event], notes: Sequence[Note], key: Ed25519PublicKey, origin: str
) -> Iterator[Break]:
    """Where a chain is not the one that was signed, and what is missing of its checkpoints.

    The events' own hashes are compared by `core.events.verify_chain`: here each one stands for its event.
    """
    signed: list[Checkpoint] = []
    for note in notes:
        try:
            signed.append(open_checkpoint(note, key, origin))
        except IntegrityError as error:
            yield Break(size_of(note.key), f"has a checkpoint {note.key} that does not count: {error.message}")
    known = {note.sha256 for note in notes}
    for checkpoint in signed:
        if checkpoint.previous is not None and checkpoint.previous not in known:
            yield Break(checkpoint.size, f"has a checkpoint {checkpoint.key}; the checkpoint before it is missing")
    yield from _chain_breaks(events, sorted(signed, key=lambda checkpoint: checkpoint.size))


def _chain_breaks(events: Iterable[Event], signed: Sequence[Checkpoint]) -> Iterator[Break]:
    tree, waiting, announced = GrowingTree(), list(reversed(signed)), dict[str, int]()
    for event in events:
        tree.append(event_leaf(event))
        if event.kind == CheckpointSigned.kind:
            announced[str(event.data.get("key"))] = event.seq
        while waiting and waiting[-1].size <= tree.size:
            checkpoint = waiting.pop()
            if (checkpoint.size, checkpoint.root, checkpoint.head) != (tree.size, tree.root(), event.hash):
                yield Break(checkpoint.size, f"or one before it is not what checkpoint {checkpoint.key} has signed")
    for checkpoint in reversed(waiting):
        yield Break(checkpoint.size, f"is missing: checkpoint {checkpoint.key} has signed it")
    present = {checkpoint.key for checkpoint in signed}
    for key, seq in announced.items():
        if key not in present:
            yield Break(seq, f"names checkpoint {key}, which is missing")


def size_of(key: str) -> int:
    """How many events the checkpoint of that name signed."""
    digits = key.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0
