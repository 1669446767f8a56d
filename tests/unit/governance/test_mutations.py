"""More than 10,000 changes of a stored chain, with all that somebody who can write the journal can make fit, are found."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing

import msgspec
import pytest
from chains import Chain, add_events

from cumulant.core.events import verify_chain
from cumulant.flows.governance.checkpoints import verify_checkpoints, write_checkpoint
from cumulant.flows.ledger.run_events import verify
from cumulant.governance.checkpoints import Note, checkpoint_breaks, origin_of
from cumulant.ports.access import Principal
from cumulant.ports.journal_store import read_event
from cumulant.project.file.loading import load

ADA = Principal("user:ada", via="cli")
COUNT, STORED = 10_000, 300
FIELDS = (
    "actor",
    "kind",
    "id",
    "project",
    "run",
    "cause",
    "reason",
    "rows",
    "previous",
    "hash",
    "seq",
    "schema",
    "data",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A chain of 48 events with four checkpoints, the newest of which covers all but its own event."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "cumulant.yaml").write_text(
        f"version: 1\nmodel: {{name: late}}\nenvironments: {{local: {{audit: 'file://{folder}/audit'}}}}\n"
    )
    with load(folder) as loaded:
        for _ in range(4):
            add_events(loaded, 11)
            write_checkpoint(loaded, principal=ADA)
        yield loaded


class Forger:
    """Changes of a chain. Those that end in `rewritten` make all that follows fit, as `Chain.rehash` does."""

    def __init__(self, events, signed, seed) -> None:
        self.draw = random.Random(seed)
        self.events, self.signed = events, signed

    def place(self) -> int:
        return self.draw.randrange(self.signed)

    def flip(self):
        """One bit of one stored event, or one field of it, by another value."""
        chain, place = list(self.events), self.place()
        if self.draw.random() < 0.5:
            chain[place] = _flip_bit(chain[place], self.draw)
        else:
            chain[place] = _change(chain[place], self.draw)
        return chain

    def drop(self):
        chain, place = list(self.events), self.place()
        del chain[place : place + self.draw.randint(1, 3)]
        return chain

    def swap(self):
        chain = list(self.events)
        first, second = self.draw.sample(range(self.signed), 2)
        chain[first], chain[second] = chain[second], chain[first]
        return chain

    def truncate(self):
        return self.events[: self.draw.randrange(1, self.signed)]

    def fork(self):
        """Another chain from some event on, as long as this one or of another length."""
        place = self.place()
        count = max(1, len(self.events) - place + self.draw.randint(-3, 6))
        new = [
            msgspec.structs.replace(self.events[place], id=f"{self.draw.getrandbits(128):032x}") for _ in range(count)
        ]
        return rehash([*self.events[:place], *new], place)

    def insert(self):
        chain, place = list(self.events), self.place()
        chain.insert(place, msgspec.structs.replace(self.draw.choice(chain), id=f"{self.draw.getrandbits(128):032x}"))
        return chain

    def flip_rewritten(self):
        chain, place = list(self.events), self.place()
        chain[place] = _change(chain[place], self.draw, fields=FIELDS[:8])
        return rehash(chain, place)

    def drop_rewritten(self):
        chain, place = list(self.events), self.place()
        del chain[place : place + self.draw.randint(1, 3)]
        return rehash(chain, place)

    def swap_rewritten(self):
        chain = self.swap()
        return rehash(chain, 0)

    def insert_rewritten(self):
        return rehash(self.insert(), 0)


KINDS = [
    name for name, value in vars(Forger).items() if callable(value) and not name.startswith("_") and name != "place"
]


def rehash(chain, first):
    forged = Chain.__new__(Chain)
    forged.events = chain
    forged.rehash(first)
    return chain


def _change(event, draw, fields=FIELDS):
    name = draw.choice(fields)
    value = getattr(event, name)
    if name in ("seq", "schema"):
        return msgspec.structs.replace(event, **{name: value + draw.choice([-1, 1, 1000])})
    if name == "data":
        return msgspec.structs.replace(event, data={**value, "number": draw.randint(1000, 2000)})
    return msgspec.structs.replace(event, **{name: f"{value or ''}{draw.choice('0123456789')}"})


def _flip_bit(event, draw):
    """The event with a bit of its stored text changed; None where that is no event any more.

    A few texts are read as the same event, such as one whose time ends in `z`: nothing has changed then.
    """
    changed = event
    while changed == event:
        text = bytearray(msgspec.json.encode(event))
        bit = draw.randrange(len(text) * 8)
        text[bit // 8] ^= 1 << bit % 8
        try:
            changed = msgspec.json.decode(bytes(text), type=type(event))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
    return changed


def load_notes(project):
    store, notes = project.audit(), []
    for key in store.keys("checkpoints/"):
        with store.open(key) as path:
            notes.append(Note(key.removeprefix("checkpoints/"), path.read_text()))
    return notes


@pytest.mark.slow
def test_every_change_of_an_exported_chain_is_found(project):
    """The chain alone finds the careless ones, and checkpoints all."""
    events, notes = list(project.journal().events()), load_notes(project)
    key, origin = project.audit_key.public(), origin_of(project.scope)
    signed = len(events) - 1  # the event of the newest checkpoint is not in it
    assert not list(verify_chain(events))
    assert not list(checkpoint_breaks(events, notes, key, origin))
    found = Counter()
    for number in range(COUNT):
        kind = KINDS[number % len(KINDS)]
        chain = getattr(Forger(events, signed, number), kind)()
        if None in chain:
            found[kind, "unreadable"] += 1  # `read_event` refuses it
            continue
        assert chain != events, (kind, number)
        by_chain = any(True for _ in verify_chain(chain))
        by_checkpoints = any(True for _ in checkpoint_breaks(chain, notes, key, origin))
        assert by_chain or by_checkpoints, (kind, number)
        found[kind, "chain" if by_chain else "checkpoints"] += 1
    assert sum(found.values()) == COUNT
    for kind in ("fork", "truncate", *(name for name in KINDS if name.endswith("_rewritten"))):
        assert found[kind, "checkpoints"] == COUNT // len(KINDS), (kind, found)
    for kind in ("flip", "drop", "swap", "insert"):
        assert found[kind, "chain"] > COUNT // len(KINDS) // 4, (kind, found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_a_stored_chain_are_found_by_the_command(project, tmp_path, kind):
    """The same in the database, with counter, head file, keys of look-ups and records of rows that fit."""
    project.journal().close()
    shutil.copytree(project.root / ".cumulant", tmp_path / "clean")
    (tmp_path / "cumulant.yaml").write_text(project.file.path.read_text())
    with closing(sqlite3.connect(tmp_path / "clean" / "journal.db")) as connection:
        envelopes = [row[0] for row in connection.execute("SELECT envelope FROM events ORDER BY seq")]
    events = [read_event(seq, envelope) for seq, envelope in enumerate(envelopes, 1)]
    for number in range(STORED // len(KINDS)):
        chain = getattr(Forger(events, len(events) - 1, f"{kind}{number}"), kind)()
        if None in chain:
            continue
        shutil.rmtree(tmp_path / ".cumulant", ignore_errors=True)
        shutil.copytree(tmp_path / "clean", tmp_path / ".cumulant")
        with load(tmp_path) as copy:
            with Chain(copy) as stored:
                stored.events = chain
            breaks = [*verify(copy.journal()).breaks, *verify_checkpoints(copy, principal=ADA).breaks]
        assert breaks, (kind, number)
