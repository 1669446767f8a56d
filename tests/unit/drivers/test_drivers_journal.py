"""The SQLite journal: against a model, among processes, tampered with, damaged."""

import multiprocessing
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import ClassVar

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cumulant.core.errors import EngineUnavailableError, IntegrityError, LeaseHeldError, StorageError, UsageError
from cumulant.core.events import Actor, Fact, verify_chain
from cumulant.core.scope import Scope
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.ledger.run_events import verify
from cumulant.testing.clock import ManualClock

ADA = Actor("user:ada")


class Happened(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.happened"
    value: object = None


class Other(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.other"


# A model -------------------------------------------------------------------------------------------------------

KINDS = st.sampled_from(["step", "run"])
KEYS = st.one_of(
    st.sampled_from(["a", "a/b", "a0", "b", "\ud7ff", "\ue000", "\U0010ffff", "a\U0010ffff", ""]),
    st.text(max_size=4).filter(lambda text: "\0" not in text),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
VALUES = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
RUNS = st.sampled_from([None, "r1", "r2"])
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KINDS, KEYS, VALUES),
        st.tuples(st.just("delete"), KINDS, KEYS, st.none()),
        st.tuples(st.just("emit"), KINDS, KEYS, JSON),
    ),
    max_size=6,
)


class JournalMachine(RuleBasedStateMachine):
    """State as a dict of dicts, events as a list; a transaction that fails changes neither."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.mkdtemp(prefix="cumulant-test-")
        self.rows, self.versions, self.events = {}, {}, []
        self.reported, self.report_versions = {}, {}

    @initialize()
    def open(self):
        self.clock = ManualClock()
        self.journal = SqliteJournal(f"sqlite://{self.folder}/journal.db", clock=self.clock)

    @rule(writes=WRITES, run=RUNS, fails=st.booleans())
    def write(self, writes, run, fails):
        rows, versions, events = dict(self.rows), dict(self.versions), list(self.events)
        self.clock.move(timedelta(seconds=1))
        try:
            with self.journal.transaction(actor=ADA, run=run) as tx:
                for what, kind, key, value in writes:
                    self.apply(tx, what, kind, key, value, run, rows, versions, events)
                    row = tx.get(kind, key)
                    assert (row.value if row else None) == rows.get((kind, key))
                if fails:
                    raise RuntimeError
        except RuntimeError:
            return
        self.rows, self.versions, self.events = rows, versions, events

    def apply(self, tx, what, kind, key, value, run, rows, versions, events):
        place = (kind, key)
        if what == "put":
            versions[place] = versions.get(place, 0) + 1
            assert tx.put(kind, key, value).version == versions[place]
            rows[place] = value
        elif what == "delete":
            tx.delete(kind, key)
            if rows.pop(place, None) is not None:
                versions[place] += 1
        else:
            events.append((kind, run, value))
            assert tx.emit(Happened(value=value) if kind == "step" else Other()).seq == len(events)

    @rule(kind=KINDS, key=KEYS, expect=st.integers(0, 4), value=VALUES)
    def write_where_expected(self, kind, key, expect, value):
        stands = self.versions[kind, key] if (kind, key) in self.rows else 0
        if expect == stands:
            with self.journal.transaction(actor=ADA) as tx:
                tx.put(kind, key, value, expect=expect)
            self.versions[kind, key] = self.versions.get((kind, key), 0) + 1
            self.rows[kind, key] = value
        else:
            with pytest.raises(LeaseHeldError), self.journal.transaction(actor=ADA) as tx:
                tx.put(kind, key, value, expect=expect)

    @rule(kind=KINDS, key=KEYS, expect=st.integers(0, 3), value=VALUES)
    def report(self, kind, key, expect, value):
        place = (kind, key)
        if expect == (self.report_versions[place] if place in self.reported else 0):
            version = self.report_versions[place] = self.report_versions.get(place, 0) + 1
            assert self.journal.report(kind, key, value, expect=expect).version == version
            self.reported[place] = value
        else:
            with pytest.raises(LeaseHeldError):
                self.journal.report(kind, key, value, expect=expect)

    @rule(kind=KINDS, key=KEYS, expect=st.integers(0, 3))
    def remove_report(self, kind, key, expect):
        place = (kind, key)
        present = place in self.reported and expect == self.report_versions[place]
        assert self.journal.remove_report(kind, key, expect=expect) == present
        if present:
            del self.reported[place]
            self.report_versions[place] += 1

    @rule(kind=KINDS)
    def read_reports(self, kind):
        expected = [
            (key, value, self.report_versions[kind, key])
            for (found, key), value in sorted(self.reported.items(), key=lambda item: item[0])
            if found == kind
        ]
        assert [(row.key, row.value, row.version) for row in self.journal.reports(kind)] == expected

    @rule(kind=KINDS, prefix=KEYS, after=st.none() | KEYS, limit=st.none() | st.integers(0, 3))
    def read_rows(self, kind, prefix, after, limit):
        expected = sorted(
            key
            for found, key in self.rows
            if found == kind and key.startswith(prefix) and (after is None or key > after)
        )[:limit]
        rows = self.journal.rows(kind, prefix, after=after, limit=limit)
        assert [row.key for row in rows] == expected
        assert [row.value for row in rows] == [self.rows[kind, key] for key in expected]
        assert [row.version for row in rows] == [self.versions[kind, key] for key in expected]

    @rule(
        after=st.integers(0, 8),
        limit=st.none() | st.integers(0, 4),
        run=RUNS,
        kinds=st.sampled_from([(), ("test.other",)]),
    )
    def read_events(self, after, limit, run, kinds):
        names = {"step": "test.happened", "run": "test.other"}
        expected = [
            number
            for number, (kind, of, _) in enumerate(self.events, 1)
            if number > after and (run is None or of == run) and (not kinds or names[kind] in kinds)
        ]
        found = self.journal.events(after=after, limit=limit, run=run, kinds=kinds)
        assert [event.seq for event in found] == expected[:limit]

    @rule()
    def open_again(self):
        self.journal.close()
        self.journal = SqliteJournal(f"sqlite://{self.folder}/journal.db", clock=self.clock)

    @invariant()
    def the_chain_holds(self):
        events = list(self.journal.events())
        assert [event.data.get("value") for event in events if event.kind == "test.happened"] == [
            value for kind, _, value in self.events if kind == "step"
        ]
        assert verify(self.journal).breaks == []

    def teardown(self):
        self.journal.close()
        shutil.rmtree(self.folder)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


# Processes -----------------------------------------------------------------------------------------------------


def count_up(path, times, ready):
    journal = SqliteJournal(f"sqlite://{path}")
    ready.wait()
    for _ in range(times):
        with journal.transaction(actor=ADA) as tx:
            row = tx.get("count", "all")
            number = row.value["n"] if row else 0
            tx.put("count", "all", {"n": number + 1}, expect=row.version if row else 0)
            tx.emit(Happened(value=number))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_share_a_journal_that_none_of_them_has_made(tmp_path, method):
    context = multiprocessing.get_context(method)
    ready = context.Barrier(6)
    path = tmp_path / "deep" / "journal.db"
    processes = [context.Process(target=count_up, args=(path, 15, ready)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    journal = SqliteJournal(f"sqlite://{path}")
    assert journal.get("count", "all").value == {"n": 90}
    assert [event.data["value"] for event in journal.events()] == list(range(90))
    assert verify(journal).breaks == []


def test_a_forked_child_does_not_use_its_parents_connections(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    with journal.transaction(actor=ADA) as tx:
        tx.put("step", "a", {"by": "parent"})

    def child():
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"by": "child"})

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert journal.get("step", "a").value == {"by": "child"}


# What is in the URL --------------------------------------------------------------------------------------------


def test_an_option_in_the_url_is_refused(tmp_path):
    with pytest.raises(UsageError, match='option "project"'):
        SqliteJournal(f"sqlite://{tmp_path}/journal.db?project=late")


def test_the_scope_enters_each_event(tmp_path):
    scope = Scope(project="flight-late", tenant="acme", region="eu-1", environment="prod")
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db", scope=scope)
    with journal.transaction(actor=ADA) as tx:
        event = tx.emit(Other())
    assert (event.project, event.tenant, event.region) == ("flight-late", "acme", "eu-1")
    assert event.environment == "prod"
    assert (tmp_path / "journal.db").exists()


# Tampering -----------------------------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path):
    """A journal of six events, its file, and a way to change it behind its back."""
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    for number in range(6):
        with journal.transaction(actor=ADA) as tx:
            tx.emit(Happened(value=number))

    def tamper(statement, *values):
        with sqlite3.connect(tmp_path / "journal.db") as connection:
            connection.execute(statement, values)
        connection.close()

    return journal, tamper


def breaks(journal):
    return [(found.seq, found.problem) for found in verify(journal).breaks]


def test_an_untouched_chain_holds(told):
    assert breaks(told[0]) == []


def test_an_edited_event(told):
    journal, tamper = told
    tamper("UPDATE events SET envelope = replace(CAST(envelope AS TEXT), '\"value\":2', '\"value\":9') WHERE seq = 3")
    assert breaks(journal) == [(3, "was altered after it was written")]


def test_an_event_edited_with_its_own_hash_set_right(told):
    journal, tamper = told
    event = list(journal.events())[2]
    forged = msgspec.structs.replace(event, actor="user:eve").sealed()
    tamper("UPDATE events SET envelope = ? WHERE seq = 3", msgspec.json.encode(forged))
    assert breaks(journal) == [(4, "does not follow the event before it")]


@pytest.mark.parametrize("seq", [1, 3])
def test_a_deleted_event(told, seq):
    journal, tamper = told
    tamper("DELETE FROM events WHERE seq = ?", seq)
    assert (seq + 1, f"event {seq} is missing") in breaks(journal)


def test_the_newest_events_deleted(told):
    journal, tamper = told
    tamper("DELETE FROM events WHERE seq > 4")
    assert breaks(journal) == [(6, "the newest events are missing")]
    with journal.transaction(actor=ADA) as tx:
        tx.emit(Other())
    assert (7, "event 5 is missing") in breaks(journal)


def test_all_events_deleted(told):
    journal, tamper = told
    tamper("DELETE FROM events")
    assert breaks(journal) == [(6, "the newest events are missing")]


def test_an_inserted_event(told):
    journal, tamper = told
    last = list(journal.events())[-1]
    forged = msgspec.structs.replace(last, seq=7, previous=last.hash, actor="user:eve").sealed()
    tamper(
        "INSERT INTO events VALUES ('default/default/local', 7, 'test.happened', NULL, ?)", msgspec.json.encode(forged)
    )
    assert breaks(journal) == [(7, "was not written by this journal")]


def test_the_last_event_replaced(told):
    journal, tamper = told
    forged = msgspec.structs.replace(list(journal.events())[-1], actor="user:eve").sealed()
    tamper("UPDATE events SET envelope = ? WHERE seq = 6", msgspec.json.encode(forged))
    assert breaks(journal) == [(6, "is not the event that was written here")]


def test_two_events_exchanged(told):
    journal, tamper = told
    tamper("UPDATE events SET seq = -1 WHERE seq = 3")
    tamper("UPDATE events SET seq = 3 WHERE seq = 4")
    tamper("UPDATE events SET seq = 4 WHERE seq = -1")
    assert breaks(journal) != []


MISSING = "is missing: the head that is kept beside the database names it"


def cut(journal, tamper, last):
    """The chain as if it had never gone beyond `last`, counter and all."""
    kept = list(journal.events())[last - 1]
    tamper("DELETE FROM events WHERE seq > ?", last)
    tamper("UPDATE chain SET seq = ?, hash = ?", kept.seq, kept.hash)


def test_the_newest_events_deleted_with_the_counter_rewritten(told):
    journal, tamper = told
    cut(journal, tamper, 4)
    assert breaks(journal) == [(6, MISSING)]
    for number in range(5):  # going on does not cover it
        with journal.transaction(actor=ADA) as tx:
            tx.emit(Happened(value=number))
    assert breaks(journal) == [(6, MISSING.replace("is missing", "is another one"))]
    assert journal.head().seq == 9


def test_a_whole_chain_made_anew_is_not_the_one_that_the_head_names(told, tmp_path):
    journal, _ = told
    other = SqliteJournal(f"sqlite://{tmp_path}/other.db")
    for number in range(6):
        with other.transaction(actor=ADA) as tx:
            tx.emit(Happened(value=number * 2))
    known = list(journal.events())[3].hash
    journal.close()
    other.close()
    (tmp_path / "other.db").replace(tmp_path / "journal.db")
    assert [seq for seq, _ in breaks(journal)] == [6]
    (tmp_path / "journal.db.head").unlink()
    assert breaks(journal) == [], "who may write both files can make both anew"
    assert [(found.seq, found.problem) for found in verify(journal, known=known[:12]).breaks] == [
        (6, f"is the end of a chain that has no event {known[:12]}")
    ]


def test_a_head_of_before_is_part_of_the_chain(told):
    journal, _ = told
    assert verify(journal, known=list(journal.events())[1].hash).breaks == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET kind = 'test.other' WHERE seq = 3",
        "UPDATE events SET run = 'another' WHERE seq = 3",
        "UPDATE events SET kind = '' WHERE seq = 3",
    ],
)
def test_columns_that_differ_from_the_envelope(told, statement):
    journal, tamper = told
    tamper(statement)
    assert breaks(journal) == [(3, "is stored under another number, kind or run than its own")]


def test_the_head_beside_the_database_lags_behind_and_is_never_ahead(told, tmp_path):
    journal, _ = told
    file = tmp_path / "journal.db.head"
    assert journal.witness() == journal.head()
    assert file.stat().st_mode & 0o077 == 0

    def undone():
        with journal.transaction(actor=ADA) as tx:
            tx.emit(Other())
            tx.put("step", "a", {}, expect=7)

    with pytest.raises(LeaseHeldError):
        undone()
    assert journal.witness() == journal.head()
    assert journal.head().seq == 6
    before = file.read_bytes()
    with journal.transaction(actor=ADA) as tx:
        tx.emit(Other())
    file.write_bytes(before)  # as where the process was killed in between
    assert breaks(journal) == []
    for content in (b"", b"half a li", b"x" * 86):
        file.write_bytes(content)
        assert journal.witness() is None
        assert breaks(journal) == []
    file.unlink()
    with journal.transaction(actor=ADA) as tx:
        tx.emit(Other())
    assert journal.witness() == journal.head()


def test_many_writers_keep_one_head(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")

    def write(number):
        with journal.transaction(actor=ADA) as tx:
            tx.emit(Happened(value=number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(60)))
    assert journal.witness() == journal.head()
    assert breaks(journal) == []


def write_project(folder, name):
    """What one of several projects does to a journal that they share."""
    journal = SqliteJournal(f"sqlite://{folder}/journal.db", scope=Scope(project=name))
    for number in range(8):
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", f"{number % 3}", {"by": name})
            tx.emit(Happened(value=name))
    journal.advance("console", 8)
    journal.close()


def test_forty_projects_share_a_file_and_each_has_its_own_chain_and_head(tmp_path):
    names = [f"p{number}" for number in range(40)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(write_project, [(tmp_path, name) for name in names])
    for name in names:
        journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db", scope=Scope(project=name))
        assert {row.value["by"] for row in journal.rows("step")} == {name}
        assert [event.data["value"] for event in journal.events()] == [name] * 8
        assert (journal.witness(), journal.cursor("console")) == (journal.head(), 8)
        assert breaks(journal) == []
        journal.close()


def test_a_row_or_an_event_of_another_project_is_found(told):
    journal, tamper = told
    other = SqliteJournal(journal._database.path.as_posix(), scope=Scope(project="other"))
    with other.transaction(actor=ADA) as tx:
        tx.put("step", "a", {})
        tx.emit(Other())
    tamper("UPDATE state SET scope = 'default/default/local'")
    assert [found.row for found in verify(journal).breaks] == ["state row step a"]
    tamper("UPDATE events SET scope = 'default/default/local', seq = 7 WHERE scope = 'default/other/local'")
    assert (7, "is stored under another number, kind or run than its own") in breaks(journal)
    other.close()


def test_an_event_that_is_no_event(told):
    journal, tamper = told
    tamper("UPDATE events SET envelope = 'garbage' WHERE seq = 3")
    with pytest.raises(IntegrityError, match="event 3 of the journal was altered"):
        list(verify_chain(journal.events()))


# Damage --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "journal.db").write_text("this was never a journal " * 100)
    with pytest.raises(StorageError, match="journal is damaged") as caught:
        SqliteJournal(f"sqlite://{tmp_path}/journal.db").rows("step")
    assert "restore" in caught.value.hint


def test_a_damaged_file(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    with journal.transaction(actor=ADA) as tx:
        for number in range(500):
            tx.put("step", f"{number:04d}", {"text": "x" * 200})
    journal.close()
    path = tmp_path / "journal.db"
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="journal is damaged"):
        SqliteJournal(f"sqlite://{path}").rows("step")


def test_a_journal_of_a_newer_version(tmp_path):
    SqliteJournal(f"sqlite://{tmp_path}/journal.db").rows("step")
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(UsageError, match="newer Cumulant"):
        SqliteJournal(f"sqlite://{tmp_path}/journal.db").rows("step")


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(StorageError, match="cannot be made"):
        SqliteJournal(f"sqlite://{tmp_path}/a/journal.db").rows("step")


def test_values_that_are_no_json(tmp_path):
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db")
    with pytest.raises(TypeError), journal.transaction(actor=ADA) as tx:
        tx.put("step", "a", {"f": object()})
    assert journal.get("step", "a") is None


def test_a_row_that_is_read_at_once_is_the_present_one_and_a_locked_journal_is_not_waited_for(tmp_path):
    journal, other = (SqliteJournal(f"sqlite:///{tmp_path}/journal.db") for _ in range(2))
    assert journal.get_at_once("step", "a") is None
    for number in range(3):
        with other.transaction(actor=ADA) as transaction:
            row = transaction.put("step", "a", {"n": number})
            if number:
                assert journal.get_at_once("step", "a").value == {"n": number - 1}, "writers are not waited for"
        assert journal.get_at_once("step", "a") == row == journal.get("step", "a")
    with other.transaction(actor=ADA) as transaction:
        transaction.delete("step", "a")
    assert journal.get_at_once("step", "a") is None
    for each in (journal, other):
        each.close()
    holder = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(EngineUnavailableError):
        journal.get_at_once("step", "a")
    holder.close()
    assert journal.get_at_once("step", "a") is None
    journal.close()
