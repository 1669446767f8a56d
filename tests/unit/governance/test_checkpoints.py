"""Checkpoints of a real journal: what they find that the chain alone does not, and what stops them from being signed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import pytest
from chains import Chain, add_events

from cumulant.core.errors import IntegrityError, NotFoundError, StorageError, UsageError
from cumulant.flows.governance.background import sign_in_background
from cumulant.flows.governance.checkpoints import VerifiedCheckpoints, verify_checkpoints, write_checkpoint
from cumulant.flows.ledger.run_events import verify
from cumulant.flows.maintenance.schedule import CHECKPOINTS, tick
from cumulant.governance.checkpoints import Checkpoint, Note, open_checkpoint, sign_checkpoint
from cumulant.governance.merkle import leaf_hash, tree_root
from cumulant.governance.signed_note import key_hash, new_private_key, open_note, read_private_key, sign_note
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

ADA = Principal("user:ada", via="cli")
FILE = "version: 1\nmodel: {{name: late}}\nenvironments: {{local: {{audit: 'file://{place}'{more}}}}}\n"


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "cumulant.yaml").write_text(FILE.format(place=tmp_path / "audit", more=""))
    with load(folder) as loaded:
        yield loaded


def sign(project):
    return write_checkpoint(project, principal=ADA)


def problems(project, **options):
    return [(found.seq, found.problem) for found in verify_checkpoints(project, principal=ADA, **options).breaks]


def files(tmp_path):
    return sorted((tmp_path / "audit").rglob("checkpoint.txt"))


def test_checkpoints_of_a_growing_chain_hold(project, tmp_path):
    for count in (1, 2, 7, 30):
        add_events(project, count)
        assert sign(project).new
    assert [int(path.read_text().splitlines()[1]) for path in files(tmp_path)] == [1, 4, 12, 43]
    assert problems(project) == []
    assert verify(project.journal()).breaks == []
    leaves = [leaf_hash(event.hash.encode()) for event in project.journal().events()]
    assert sign(project).root == tree_root(leaves[:43]).hex()


def test_without_new_events_nothing_is_signed(project, tmp_path):
    assert (sign(project).key, sign(project).new) == ("", False)
    add_events(project, 3)
    first = sign(project)
    again = sign(project)
    assert (again.key, again.new, first.new) == (first.key, False, True)
    assert len(files(tmp_path)) == 1
    assert project.journal().head().seq == 4


def test_a_call_that_was_cut_off_before_the_journal_knew_is_made_up_for(project, tmp_path, monkeypatch):
    add_events(project, 3)
    sign(project)
    add_events(project, 2)
    with monkeypatch.context() as patch:
        patch.setattr(project.journal(), "transaction", _full)
        with pytest.raises(StorageError):
            sign(project)
    assert len(files(tmp_path)) == 2
    assert not sign(project).new
    add_events(project, 1)
    assert sign(project).size == 7
    assert problems(project) == []


def _full(**_):
    raise StorageError("the disk is full")


def test_a_chain_made_anew_with_its_counter_and_head_is_found(project):
    """What `events verify` cannot show without checkpoints."""
    add_events(project, 20)
    sign(project)
    add_events(project, 5)
    with Chain(project) as chain:
        chain.events[7] = msgspec.structs.replace(chain.events[7], actor="user:mallory")
        chain.rehash(7)
    assert verify(project.journal()).breaks == []
    assert problems(project) == [(20, signed_otherwise(project, 20))]
    add_events(project, 1)
    _forget_row(project)
    with pytest.raises(IntegrityError, match="no checkpoint is signed"):
        sign(project)


def signed_otherwise(project, size):
    return f"or one before it is not what checkpoint {names(project)[size]} has signed"


def names(project):
    keys = [key.removeprefix("checkpoints/") for key in project.audit().keys("checkpoints/")]
    return {int(key.partition("-")[0]): key for key in keys}


def _forget_row(project):
    with closing(sqlite3.connect(project.state / "journal.db")) as connection, connection:
        connection.execute("DELETE FROM state WHERE kind = 'audit'")


def test_a_chain_that_was_shortened_is_found(project):
    add_events(project, 20, rows=False)
    sign(project)
    with Chain(project) as chain:
        del chain.events[12:]
    assert verify(project.journal()).breaks == []
    assert problems(project) == [(20, f"is missing: checkpoint {names(project)[20]} has signed it")]
    with pytest.raises(IntegrityError, match="the chain ends with event 12"):
        sign(project)


def test_two_chains_with_one_beginning_are_found(project, tmp_path):
    add_events(project, 9)
    sign(project)
    project.journal().close()
    shutil.copytree(project.root, tmp_path / "fork")
    add_events(project, 5)
    sign(project)
    with load(tmp_path / "fork") as fork:
        add_events(fork, 6)
        assert verify(fork.journal()).breaks == []
        with pytest.raises(IntegrityError, match="are not those that checkpoint"):
            sign(fork)
        assert problems(fork) == [(15, signed_otherwise(fork, 15))]


def test_lost_and_changed_checkpoints_are_found(project, tmp_path):
    for _ in range(3):
        add_events(project, 4)
        sign(project)
    sizes = [4, 9, 14]
    known, paths = names(project), files(tmp_path)
    shutil.rmtree(paths[1].parent.parent)
    assert problems(project) == [
        (14, f"has a checkpoint {known[14]}; the checkpoint before it is missing"),
        (10, f"names checkpoint {known[9]}, which is missing"),
    ]
    paths[2].chmod(0o644)
    paths[2].write_text(paths[2].read_text().replace("\n14\n", "\n13\n"))
    assert problems(project)[0][1].startswith(f"has a checkpoint {known[14]} that does not count: it has no signature")
    shutil.rmtree(tmp_path / "audit")
    with pytest.raises(IntegrityError, match=r"there is no checkpoint at file://.*, and 14 events of this journal"):
        problems(project)
    assert sizes == sorted(known)


def test_another_place_and_key(project, tmp_path):
    add_events(project, 3)
    key = tmp_path / "key.pem"
    key.write_text(sign(project).public_key)
    shutil.copytree(tmp_path / "audit", tmp_path / "copy")
    assert problems(project, place=f"file://{tmp_path / 'copy'}", public_key=key) == []
    other = tmp_path / "other.pem"
    other.write_bytes(new_private_key())
    made = subprocess.run(["openssl", "pkey", "-in", other, "-pubout"], capture_output=True, check=True)
    other.write_bytes(made.stdout)
    with pytest.raises(
        IntegrityError, match=r"the key does not fit: none of 1 checkpoints .* cumulant/default/late/local"
    ):
        problems(project, public_key=other)
    for content, message in ((b"no key", "no public key"), (None, "cannot be read")):
        other.unlink() if content is None else other.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            problems(project, public_key=other)


def test_the_key_of_a_secret(tmp_path, monkeypatch):
    (tmp_path / "cumulant.yaml").write_text(
        FILE.format(place=tmp_path / "audit", more=", audit_key: '${secret:SIGNING_KEY}'")
    )
    pem = new_private_key()
    monkeypatch.setenv("SIGNING_KEY", pem.decode().replace("\n", "\\n"))
    with load(tmp_path) as project:
        add_events(project, 2)
        written = sign(project)
        assert problems(project) == []
        assert not (project.state / "audit-key.pem").exists()
    assert written.public_key.encode() == _public(pem)
    monkeypatch.setenv("SIGNING_KEY", "no key")
    with load(tmp_path) as project, pytest.raises(UsageError, match="no private key of Ed25519"):
        sign(project)
    monkeypatch.delenv("SIGNING_KEY")
    with load(tmp_path) as project, pytest.raises(UsageError, match="no key here"):
        problems(project)


def _public(pem):
    return subprocess.run(["openssl", "pkey", "-pubout"], input=pem, capture_output=True, check=True).stdout


def test_the_key_file_is_private(project):
    add_events(project, 1)
    sign(project)
    assert (project.state / "audit-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_project_without_a_place(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as project:
        for call in (lambda: sign(project), lambda: problems(project)):
            with pytest.raises(UsageError, match="names no place for checkpoints"):
                call()
        assert CHECKPOINTS.run(project) == "the environment names no place for checkpoints"


def test_the_job_signs_once_an_hour_and_the_background_too(project, tmp_path):
    add_events(project, 2)
    results, error = tick(project, principal=ADA, jobs=[CHECKPOINTS])
    assert (results[0].outcome, error) == ("done", None)
    add_events(project, 2)
    with sign_in_background(project, pytest.fail, pause=0.01):
        assert tick(project, principal=ADA, jobs=[CHECKPOINTS])[0][0].outcome == "not_due"
    assert len(files(tmp_path)) == 1


def test_the_background_signs_what_is_due(project, tmp_path):
    add_events(project, 2)
    with sign_in_background(project, pytest.fail, pause=0.01):
        assert project.journal().wait(2, 20.0)
    assert len(files(tmp_path)) == 1
    assert [event.kind for event in project.journal().events()][2:] == ["audit.checkpoint_signed"]


def test_a_chain_that_does_not_hold_is_not_signed(project):
    add_events(project, 4)
    with Chain(project) as chain:
        chain.events[2] = msgspec.structs.replace(chain.events[2], actor="user:mallory")
    with pytest.raises(IntegrityError, match="event 3 was altered"):
        sign(project)


def test_which_checkpoint_was_verified(project, tmp_path):
    place = f"file://{tmp_path / 'audit'}"
    assert verify_checkpoints(project, principal=ADA) == VerifiedCheckpoints(place=place)
    with pytest.raises(NotFoundError, match="there is no checkpoint at file://"):
        problems(project, place=place)
    for _ in range(2):
        add_events(project, 3)
        sign(project)
    verified = verify_checkpoints(project, principal=ADA)
    assert (verified.count, verified.size, verified.newest) == (2, 7, names(project)[7])


@pytest.mark.parametrize(
    ("altered", "whole", "refused"), [(2, True, True), (2, False, False), (3, False, True), (6, False, True)]
)
def test_what_is_verified_before_a_checkpoint(project, altered, whole, refused):
    """The last signed event and all after it; with `whole` those before it too."""
    add_events(project, 4)
    sign(project)
    add_events(project, 4)
    with Chain(project) as chain:
        chain.events[altered] = msgspec.structs.replace(chain.events[altered], actor="user:mallory")
    if not refused:
        assert sign(project).new
        return
    with pytest.raises(IntegrityError, match=f"event {altered + 1} was altered"):
        write_checkpoint(project, principal=ADA, whole=whole)
    assert len(names(project)) == 1


def test_a_place_that_was_emptied_gets_no_checkpoint(project, tmp_path):
    add_events(project, 4)
    sign(project)
    shutil.rmtree(tmp_path / "audit")
    add_events(project, 1)
    with pytest.raises(IntegrityError, match="4 events were signed, and there is no checkpoint at file://"):
        sign(project)
    assert files(tmp_path) == []
    project.journal().close()
    (project.root / "cumulant.yaml").write_text(FILE.format(place=tmp_path / "audit-2", more=""))
    with load(project.root) as elsewhere:
        assert sign(elsewhere).size == 6, "another place begins anew"


KEY = read_private_key(new_private_key(), "test")
SIGNED = Checkpoint(
    origin="cumulant/a/b/c", size=7, root=b"r" * 32, time=datetime(2026, 1, 2, tzinfo=UTC), head="ab", previous=None
)


def test_a_note_is_one_of_the_kind_that_logs_publish():
    note = sign_checkpoint(SIGNED, KEY)
    text, signature = note.text.split("\n\n")
    assert text.splitlines()[:2] == ["cumulant/a/b/c", "7"]
    assert signature.startswith("\N{EM DASH} cumulant/a/b/c ")
    assert open_checkpoint(note, KEY.public_key(), SIGNED.origin) == SIGNED
    assert len(key_hash(KEY.public_key(), "a")) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda note: Note(note.key, note.text.replace("\n7\n", "\n8\n")), "no signature"),
        (lambda note: Note(note.key, note.text.partition("\n\n")[0]), "no signed note"),
        (lambda note: Note(note.key, note.text.replace("\N{EM DASH} cumulant/a/b/c", "\N{EM DASH} other")), "no signature"),
        (lambda note: Note(note.key, note.text[:-5] + "\n"), "no signature"),
        (lambda note: Note("8-00", note.text), "it is checkpoint 0000"),
        (lambda note: Note(note.key, sign_note("text\n", KEY, SIGNED.origin)), "no checkpoint"),
        (lambda note: Note(note.key, sign_note(SIGNED.text().replace("\n7\n", "\n07\n"), KEY, SIGNED.origin)), "no checkpoint"),
        (lambda note: sign_checkpoint(msgspec.structs.replace(SIGNED, root=b"r"), KEY), "no checkpoint"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_by_this_key(change, message):
    with pytest.raises(IntegrityError, match=message):
        open_checkpoint(change(sign_checkpoint(SIGNED, KEY)), KEY.public_key(), SIGNED.origin)


def test_a_note_of_two_signers_counts_for_each():
    other = read_private_key(new_private_key(), "other")
    first, second = (sign_note("a\nb\n", key, name) for key, name in ((KEY, "one"), (other, "two")))
    both = first + second.partition("\n\n")[2]
    assert open_note(both, KEY.public_key(), "one") == open_note(both, other.public_key(), "two") == "a\nb\n"
