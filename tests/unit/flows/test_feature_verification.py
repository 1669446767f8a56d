"""Served features are recomputed from the history: equal, explained by rows that came later, or reported."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest
from test_feature_store import END, FILE, ME, OBJECT, TABLE, fill, open_project, post, serve

from cumulant.cli.app import run as command
from cumulant.core.ids import digest, short
from cumulant.core.prediction import read_object
from cumulant.core.units import to_micros
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import entity_key
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import decode_entity
from cumulant.features.posted.posted_events import SourceLog, log_table
from cumulant.features.posted.row_versions import version_key
from cumulant.features.posted.state_update import advance
from cumulant.features.verification import is_equal
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.features import served_rows
from cumulant.flows.features.stream_features import apply_ingested
from cumulant.flows.features.stream_rows import StreamRows
from cumulant.flows.features.verification_record import last_verification, later_without_rows
from cumulant.flows.features.verify import verification_sentence, verify_features
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.observe.data_metrics import data_series
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load
from cumulant.serving.logged_answers import feature_texts
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.clock import ManualClock
from cumulant.testing.registry import MemoryRegistry

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(monkeypatch):
    registry = MemoryRegistry()
    version = ModelVersion(
        name="visits", version="1", uri="visits/1", run_id=None, created=datetime.now(UTC),
        tags={"cumulant.servable": OBJECT},
    )  # fmt: skip
    monkeypatch.setattr(registry, "resolve", lambda uri: version)
    monkeypatch.setattr("cumulant.project.project.Project.registry", lambda self: registry)


@pytest.fixture
def served(tmp_path, registry):
    """A project whose version 1 is served from stored features, with a log of what it was answered with."""
    with open_project(tmp_path) as project:
        plan, _ = fill(project, TABLE)
        serve(project, plan, tmp_path / "model")
        yield Served(project, plan)


class Served:
    def __init__(self, project, plan):
        self.project, self.plan, self.number = project, plan, 0
        hashed = HashedKeys.of(plan, project.salt)
        self.online = OnlineFeatures(hashed.plan, project.online(), TABLE)

    def answer(self, at, who="w0", fingerprint="", after=timedelta(0)):
        """A request that is answered and logged, as a server does it whose clock is ahead by `after`."""
        self.number += 1
        row = {"id": 5000 + self.number, "at": at.isoformat(), "who": who, "kind": "k", "pages": 3}
        begun = datetime.now(UTC) + after
        vectors = self.online.vectors([row])
        ended = datetime.now(UTC) + after
        entry = LogEntry(
            id=f"r{self.number}", time_us=to_micros(ended), latency_us=to_micros(ended) - to_micros(begun),
            model="visits", version="1", sequence=self.number, rows=json.dumps([row]).encode(),
            fingerprint=fingerprint or short(digest(self.plan)), answers=b'[{"prediction": true}]',
            features=feature_texts(vectors.columns, self.plan.names),
            incomplete=[",".join(vectors.incomplete.get(0, ()))],
        )  # fmt: skip

        def failed(error, count):
            raise error

        masks = PersonalValueMask(b"", {"visits": []})
        parts = LogParts(Path(self.project.log().location), masks, file_size=1 << 26, failed=failed)
        parts.add(entry, f"w{self.number}", "")
        parts.close()

    def verify(self):
        found = verify_features(self.project, principal=ME)
        assert found == last_verification(self.project.journal(), "visits")
        return {each.feature: (each.rows, each.late, each.mismatches) for each in found.features}


def test_served_features_equal_the_history_and_late_rows_are_told_apart(served):
    empty = verify_features(served.project, principal=ME)
    assert (empty.rows, empty) == (0, later_without_rows(served.project.journal(), "visits"))
    assert last_verification(served.project.journal(), "visits") is None
    served.answer(END)
    served.answer(END + timedelta(hours=1))
    post(served.project, served.plan, TABLE, 900, END + timedelta(hours=2))
    served.answer(END + timedelta(hours=3))
    served.answer(END + timedelta(hours=30))
    assert set(served.verify().values()) == {(4, 0, 0)}
    assert later_without_rows(served.project.journal(), "visits") is None
    # A row of the past comes after three answers that it would have changed; the fourth, of before it, stays.
    post(served.project, served.plan, TABLE, 901, END + timedelta(minutes=30))
    by_feature = served.verify()
    assert by_feature["number_2d"] == (4, 3, 0)
    assert by_feature["pages_2d"] == by_feature["double"] == by_feature["share"] == (4, 3, 0)
    assert not read_alerts(served.project.journal())[0].alerts


def test_rows_that_were_answered_as_incomplete_are_counted_apart(served):
    later = END + timedelta(days=20)
    post(served.project, served.plan, TABLE, 900, later)
    post(served.project, served.plan, TABLE, 901, later + timedelta(hours=1))
    served.answer(END)
    found = verify_features(served.project, principal=ME)
    assert (found.logged, found.rows, found.incomplete, found.mismatches) == (1, 0, 1, ())
    assert "1 were answered as incomplete" in verification_sentence(found)
    served.answer(later + timedelta(hours=2))
    assert set(served.verify().values()) == {(1, 0, 0)}


def test_an_altered_event_and_another_definition_are_mismatches(served):
    served.answer(END + timedelta(hours=1), who="w1")
    store, key = served.project.online(), entity_key(0, ["w0"])
    events = decode_entity(store.get(TABLE, [key])[0])
    (slot, *others) = events.slots
    altered = msgspec.structs.replace(slot, data=b"\x09" + slot.data[1:])
    store.put(TABLE, [(key, msgspec.msgpack.encode(msgspec.structs.replace(events, slots=(altered, *others))))])
    served.online = OnlineFeatures(served.plan, store, TABLE)
    served.answer(END)
    found = verify_features(served.project, principal=ME)
    wrong = {each.feature: each.mismatches for each in found.features}
    assert wrong == {"double": 1, "pages_2d": 1, "share": 1, "last_2d": 0, "number_2d": 0}
    (mean,) = [each for each in found.mismatches if each.feature == "pages_2d"]
    assert (mean.id, mean.version, mean.served > mean.expected) == ("r2", "visits/1", True)
    (figures,) = [each for each in found.features if each.feature == "pages_2d"]
    assert (figures.rate, round(figures.low, 4), round(figures.high, 4)) == (0.5, 0.0126, 0.9874)
    alerts = read_alerts(served.project.journal())[0].firing
    assert {alert.finding.subject for alert in alerts} == {"double", "pages_2d", "share"}
    assert {alert.level for alert in alerts} == {"critical"}
    rates = [series for series in data_series(served.project) if series.family == "cumulant_feature_mismatch_ratio"]
    assert {series.labels[0]: series.value for series in rates}["pages_2d"] == 0.5

    served.answer(END + timedelta(hours=1), who="w1", fingerprint="another")
    found = verify_features(served.project, principal=ME, clock=ManualClock(datetime.now(UTC)))
    assert {each.feature: each.mismatches for each in found.features}["number_2d"] == 1


def test_the_snapshots_of_the_served_table_explain_its_rows_also_after_other_fillings(tmp_path, registry, monkeypatch):
    with open_project(tmp_path, "keep: 1h") as project:
        plan, _ = fill(project, TABLE)
        serve(project, plan, tmp_path / "model")
        served = Served(project, plan)
        visits = tmp_path / "visits.csv"
        for number in range(4):  # other tables of the same definition, of more rows of the past
            row = f"{700 + number},{END - timedelta(minutes=30 + number):%Y-%m-%d %H:%M},w0,k,500,1\n"
            visits.write_text(visits.read_text() + row)
            fill(project)
        served.answer(END)
        served.answer(END, who="w1")
        assert served.verify()["number_2d"] == (2, 1, 0)
        # Retention keeps the snapshot that the served table was filled from.
        later = ManualClock(datetime.now(UTC) + timedelta(hours=2))
        monkeypatch.setattr("cumulant.flows.maintenance.cleanup.SystemClock", lambda: later)
        assert clean(project, principal=ME, dry_run=False, expired_only=True)
        assert served.verify()["number_2d"] == (2, 1, 0)
        # Without it, nothing is known of rows that differ.
        monkeypatch.setattr("cumulant.flows.maintenance.cleanup.table_readers", lambda project: [])
        assert clean(project, principal=ME, dry_run=False, expired_only=True)
        found = verify_features(project, principal=ME)
        assert (found.logged, found.rows, found.unknown) == (2, 0, 2)
        assert verification_sentence(found) == "no served rows compared; 2 cannot be recomputed"
        assert not read_alerts(project.journal())[0].alerts


def test_rows_after_those_that_are_explained_are_counted_and_few_rows_are_decoded(served, monkeypatch):
    for number in range(3):
        served.answer(END + timedelta(minutes=number))
    post(served.project, served.plan, TABLE, 901, END - timedelta(minutes=30))
    monkeypatch.setattr("cumulant.flows.features.verifier._EXPLAINED", 1)
    found = verify_features(served.project, principal=ME)
    assert (found.logged, found.rows, found.uncompared) == (3, 1, 2)
    assert verification_sentence(found).startswith("1 served rows compared, 2 left after so many with differences, ")
    decoded = []
    monkeypatch.setattr(served_rows, "read_object", lambda text: decoded.append(text) or read_object(text))
    now = datetime.now(UTC)
    every = served_rows.choose_rows(served.project, now - timedelta(days=1), now, 3)
    decoded.clear()
    chosen = served_rows.choose_rows(served.project, now - timedelta(days=1), now, 2)
    assert (chosen.rows, chosen.logged, len(decoded)) == (every.rows[:2], 3, 4)


@pytest.mark.parametrize(
    ("served", "expected", "equal"),
    [
        (4000000000039, 4000000001039, False),
        (2**62, 2**62, True),
        (1e-10, 5e-10, False),
        (0.3, 0.1 + 0.2, True),
        (0.0, 0.1 + 0.2 - 0.3, True),
        (3, 3.0000000001, True),
        (0, False, False),
        (None, 0, False),
    ],
)
def test_whole_numbers_are_equal_exactly_and_floats_by_their_size(served, expected, equal):
    assert is_equal(served, expected) is is_equal(expected, served) is equal


@pytest.mark.parametrize("since", ["1h", "1h30m", "2026-11-30", "2026-11-30T09:55:06Z", "2026-11-30 09:55:06Z"])
def test_since_takes_the_form_that_the_command_prints(tmp_path, since):
    with open_project(tmp_path):
        assert command(["features", "verify", "--since", since, "--project", str(tmp_path)]) == 0


def test_rows_of_a_stream_count_from_the_batch_that_brought_them(tmp_path, registry, monkeypatch):
    with open_project(tmp_path) as project:  # for its rows, as messages
        lines = (tmp_path / "visits.csv").read_text().splitlines()[1:]
    text = (tmp_path / "cumulant.yaml").read_text().replace("path: visits.csv", "stream: web")
    (tmp_path / "cumulant.yaml").write_text(text)
    names = ("id", "at", "who", "kind", "pages", "bought")
    with load(tmp_path) as project:
        streams = project.streams()

        def bring(rows):
            messages = [json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows]
            streams.produce("web", messages, partition=0)
            ingest_streams(project, principal=ME, once=True)

        def row(number, at):
            return [number, at.isoformat(), "w0", "k", 1000, 0]

        bring(
            [[int(n), at, who, kind, int(pages), int(bought)] for n, at, who, kind, pages, bought in csv.reader(lines)]
        )
        plan, _ = fill(project, TABLE)
        serve(project, plan, tmp_path / "model")
        served = Served(project, plan)
        served.answer(END)
        once = row(900, END + timedelta(hours=1))
        bring([once, once])  # one event, which counts once
        served.answer(END + timedelta(hours=2))  # before the batch is in online features
        apply_ingested(project, principal=ME, once=True)
        served.answer(END + timedelta(hours=2))
        bring([row(901, END + timedelta(minutes=30))])  # the rows of which no snapshot has any
        read, of_batch = [], StreamRows.of_batch

        def recorded(rows, batch, fields):
            read.append(batch.number)
            return of_batch(rows, batch, fields)

        monkeypatch.setattr(StreamRows, "of_batch", recorded)
        by_feature = served.verify()
        assert by_feature["number_2d"] == by_feature["pages_2d"] == (3, 2, 0)
        assert read == [2, 3]  # the first batch is in the snapshots that the table and the history are of
        assert not read_alerts(project.journal())[0].alerts


CORRECTED = """known_time: {told: [bought]}
    on_repeat: latest
    deleted: {column: op, values: [D]}
    rules: {told: {type: time}, op: {type: str}, pages: {type: int}}"""


class Corrections:
    """A project whose stream has rows that correct each other, which come by messages and by posts."""

    def __init__(self, folder, random):
        with open_project(folder):
            pass
        text = FILE.replace("DECLARED", CORRECTED).replace("path: visits.csv", "stream: web")
        (folder / "cumulant.yaml").write_text(text)
        self.random, self.now = random, datetime.now(UTC).replace(microsecond=0)
        self.project = load(folder)
        self.streams = self.project.streams()
        self.bring([self.row(number) for number in range(6)])
        plan = self.fill()
        serve(self.project, plan, folder / "model")
        self.served = Served(self.project, plan)

    def row(self, number=None):
        pick = self.random.choice
        return {
            "id": self.random.randrange(6) if number is None else number,
            "at": (self.now - timedelta(hours=pick((1, 2, 30)))).isoformat(),
            "who": pick(("w0", "w0", "w1")),
            "kind": "k",
            "pages": pick((None, 1, 2, 3, 500)),
            "bought": pick((0, 1)),
            "told": pick((None, *((self.now - timedelta(minutes=minutes)).isoformat() for minutes in (5, 10, 90)))),
            "op": "U" if number is not None else pick(("U", "U", "U", "D")),
        }

    def bring(self, rows):
        self.streams.produce("web", [json.dumps(row).encode() for row in rows], partition=0)
        ingest_streams(self.project, principal=ME, once=True)

    def fill(self):
        return fill(self.project, TABLE)[0]

    def apply(self):
        apply_ingested(self.project, principal=ME, once=True)

    def post(self, row):
        return self.served.online.advance("visits", [row])

    def answer(self, who="w0", after=timedelta(0)):
        self.served.answer(datetime.now(UTC) + after, who, after=after)

    def act(self):
        what = self.random.choice(("post", "post", "part", "bring", "bring", "apply", "apply", "fill"))
        if what == "post":
            self.post(self.row())
        elif what == "part":  # the row in force completes it
            row = self.row()
            self.post({name: row[name] for name in ("id", *self.random.sample([*row], 3))})
        elif what == "bring":
            self.bring([self.row(), self.row()])
        else:
            getattr(self, what)()

    def verify(self, after=timedelta(0)):
        return verify_features(self.project, principal=ME, clock=ManualClock(datetime.now(UTC) + after))


def test_rows_that_correct_each_other_are_verified_and_a_lost_correction_is_a_mismatch(tmp_path, registry):
    world = Corrections(tmp_path, Random(7))
    with world.project:
        for _ in range(12):
            world.act()
            world.answer()
        found = world.verify()
        assert (found.rows, found.unknown, found.failed) == (12, 0, False)
        world.apply()
        # Of a post that the log has, the table loses what it changed.
        row = world.row(1) | {"who": "w0", "pages": 7000, "told": None, "at": world.now.isoformat()}
        world.post({"id": 1, "op": "D", "told": world.now.isoformat()})
        store = world.project.online()
        places = [entity_key(0, ["w0"]), entity_key(1, ["k"]), version_key("visits", [1])]
        before = store.get(TABLE, places)
        assert world.post(row | {"told": datetime.now(UTC).isoformat()}).accepted == 1
        world.answer()
        assert not world.verify().failed
        late = timedelta(hours=1)  # after a row is committed, however slow this test is
        store.put(TABLE, [(place, blob) for place, blob in zip(places, before, strict=True) if blob is not None])
        world.served.online = OnlineFeatures(world.served.online._plan, store, TABLE)
        world.answer(after=late)
        found = world.verify(late)
        assert {each.feature for each in found.features if each.mismatches} >= {"pages_2d", "number_2d"}
        assert {each.id for each in found.mismatches} == {"r14"}
        # Of a row that is corrected so often that the log does not have its first versions any more, earlier answers
        # that differ are not known; those that do not read it are.
        plan, after = world.served.online._plan, to_micros(datetime.now(UTC) + 2 * late)
        writer = StateWriter(plan, store, TABLE, now_us=lambda: after)
        other = world.row(50) | {"who": "w2", "kind": "other", "told": None}
        for number in range(18):
            advance([writer], "visits", [other | {"pages": number}])
        found = world.verify(late)
        assert (found.rows, found.unknown, {each.id for each in found.mismatches}) == (14, 0, {"r14"})
        for number in range(18):
            world.post({"id": 1, "pages": number})
        found = world.verify(late)
        assert (found.rows + found.unknown, {each.id for each in found.mismatches}) == (14, {"r14"})
        assert 0 < found.unknown < 14
        # After the store lost all, and was filled again, the posts that earlier answers had are not known.
        for table in store.tables():
            store.drop(table)
        world.fill()
        found = world.verify(late)
        assert {each.id for each in found.mismatches} == {"r14"}
        assert found.unknown
        # An alert is not over as long as it is not known of rows that differ.
        table = log_table(HashedKeys.of(world.served.plan, world.project.salt).log_scope(world.project.name), "visits")
        store.update(lambda cells: lose(SourceLog(cells, table), datetime.now(UTC) + 2 * late))
        world.served.online = OnlineFeatures(world.served.online._plan, store, TABLE)
        world.answer(after=late)
        found = world.verify(late)
        assert (found.failed, found.unknown > 0, found.rows > 0) == (False, True, True)
        alerts = read_alerts(world.project.journal())[0].firing
        assert {"pages_2d", "number_2d"} <= {alert.finding.subject for alert in alerts}


def test_batches_stand_for_the_log_that_an_emptied_store_lost(tmp_path, registry):
    world = Corrections(tmp_path, Random(7))
    with world.project:
        for number, minutes in ((100, 90), (101, 30)):  # the second one was known before the answer, and comes after it
            told = (world.now - timedelta(minutes=minutes)).isoformat()
            world.bring([world.row(number) | {"who": "w0", "pages": 40, "told": told, "at": world.now.isoformat()}])
            world.apply()
            if number == 100:
                world.answer()
        store = world.project.online()
        for table in store.tables():
            store.drop(table)
        world.fill()
        found = world.verify()
        assert (found.rows, found.unknown, found.failed) == (1, 0, False)
        assert {each.feature: each.late for each in found.features}["number_2d"] == 1


def lose(log, at):
    log.note_loss(to_micros(at))
    log.save()
