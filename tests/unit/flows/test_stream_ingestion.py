"""Streams are ingested exactly once: rows and positions are committed together, whatever ends the process."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from cumulant.cli.app import run
from cumulant.core.errors import (
    ContractBreachError,
    DataError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
)
from cumulant.core.events import Actor
from cumulant.data.snapshot import scan
from cumulant.data.streams.records import STREAM, StreamIngested
from cumulant.drivers.folder.streams import FolderStreams
from cumulant.flows.data import stream_ingestion, stream_pending
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_membership import StreamMember
from cumulant.flows.data.stream_reader import IngestLimits, StreamReader
from cumulant.flows.data.stream_records import find_state, read_batches
from cumulant.flows.data.stream_views import refused_messages, stream_status
from cumulant.flows.data.validate import newest_snapshot, validate
from cumulant.flows.maintenance.cleanup import clean
from cumulant.ports.streams import Bounds, Messages
from cumulant.project.file.loading import load
from cumulant.testing.log import seeded

PROJECT = """
version: 1
model: {name: shop}
data:
  payments:
    stream: pay
    key: id
    rules: {amount: {min: 0}}
"""
#: seconds after which a process that works must have got on, on a busy machine too
PATIENCE = 120.0


@pytest.fixture
def topic(tmp_path):
    """Sends payments with these numbers to the topic of the project."""
    streams = FolderStreams(f"folder://{tmp_path}/.cumulant/streams")

    def send(numbers, partition=0, name="pay"):
        streams.produce(name, [payment(number) for number in numbers], partition=partition)

    return send


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    with load(tmp_path) as project:
        yield project


def payment(number, **fields):
    return json.dumps({"id": number, "amount": number / 2, "shop": "a"} | fields).encode()


def ingest(project, **options):
    (result,) = ingest_streams(project, principal=project.principal(), once=True, **options)
    return result


def ids(project):
    """How often each payment is in the table."""
    tables = project.tables()
    frames = [batch.rows.scan(tables).collect() for batch in read_batches(project, "payments") if batch.rows]
    return Counter(number for frame in frames for number in frame["id"].to_list())


def once_each(numbers):
    return dict.fromkeys(numbers, 1)


def test_messages_become_rows_once(project, topic):
    topic(range(100), 0)
    topic(range(100, 150), 1)
    topic([], 3)
    first = ingest(project)
    assert (first.messages, first.rows, first.refused, first.lag, first.batches) == (150, 150, 0, 0, 1)
    again = ingest(project)
    assert (again.messages, again.batches, again.lag) == (0, 0, 0)
    topic(range(150, 160), 1)
    topic(range(160, 170), 2)  # a partition that was not there before
    assert find_state(project, "payments")[0].positions["3"] == 0  # what is deleted unread after this is noticed
    assert ingest(project).rows == 20
    assert ids(project) == once_each(range(170))
    events = [event.data for event in project.journal().events(kinds=[StreamIngested.kind])]
    assert [(event["batch"], event["messages"], event["rows"]) for event in events] == [(1, 150, 150), (2, 20, 20)]


def test_a_snapshot_is_made_of_the_batches(project, topic, tmp_path):
    (tmp_path / "cumulant.yaml").write_text(f"{PROJECT}environments: {{prod: {{}}}}\n")
    with (
        load(tmp_path, environment="prod") as other,
        pytest.raises(NotFoundError, match="no message of pay") as nothing,
    ):
        validate(other, principal=other.principal())
    assert nothing.value.hint.startswith("`cumulant ingest run --once --source payments --env prod`")
    with pytest.raises(NotFoundError, match="no message of pay") as nothing:
        validate(project, principal=project.principal())
    assert nothing.value.hint.startswith("`cumulant ingest run --once --source payments`")
    topic([*range(100), 7])
    ingest(project)
    first = validate(project, principal=project.principal()).snapshots["payments"]
    assert (first.rows_passed, first.rows_quarantined) == (100, 1)  # a repeated key, which the whole source shows
    topic(range(100, 300))
    ingest(project, limits=IngestLimits(bytes=4000))
    second = validate(project, principal=project.principal())
    snapshot = second.snapshots["payments"]
    assert snapshot.rows_passed == 300
    assert len(snapshot.processed) == len(snapshot.files) - 1 > 1
    rows = scan(snapshot, project.tables()).collect()
    assert sorted(rows["id"].to_list()) == list(range(300))
    assert validate(project, principal=project.principal()).reused == ("payments",)


def test_refused_messages_are_kept_with_rule_and_place(project, topic, tmp_path):
    streams = project.streams()
    topic(range(50))
    place = streams.bounds("pay")[0].end
    streams.produce("pay", [b"poison", payment(50), payment(51, amount=-1)], partition=0)
    result = ingest(project)
    assert (result.rows, result.refused, result.rules) == (51, 2, {"row:json": 1, "amount:min": 1})
    assert result.too_many_refused  # 2 of 53, where 1% are allowed
    shown = refused_messages(project, "payments", principal=project.principal())
    assert shown.total == 2
    assert shown.frame.rows()[0] == ("row:json", 0, place, "poison")
    assert refused_messages(project, "payments", principal=project.principal(), limit=1).frame.height == 1
    (status,) = stream_status(project, principal=project.principal())
    assert (status.messages, status.rows, status.refused, status.lag) == (53, 51, 2, 0)


def test_values_of_refused_messages_are_not_shown_where_columns_are_personal(tmp_path, topic):
    (tmp_path / "cumulant.yaml").write_text(PROJECT + "    personal: [shop]\n")
    with load(tmp_path) as project:
        topic([1])
        project.streams().produce("pay", [b"secret"], partition=0)
        ingest(project)
        shown = refused_messages(project, "payments", principal=project.principal())
        assert shown.frame.rows() == [("row:json", 0, len(payment(1)) + 1, "(personal)")]
        (batch,) = read_batches(project, "payments")
        assert project.tables().protection(batch.refused).columns == ("__value",)
        assert project.tables().protection(batch.rows).columns == ("shop",)


def test_batches_are_bounded(project, topic):
    topic(range(1000))
    ingest(project, limits=IngestLimits(bytes=5000))
    batches = read_batches(project, "payments")
    assert len(batches) > 5
    assert max(batch.messages for batch in batches) * (len(payment(1)) + stream_pending.OVERHEAD) <= 6000
    assert ids(project) == once_each(range(1000))


@pytest.mark.parametrize("moment", ["table", "before", "after"])
def test_a_fault_around_the_commit_neither_loses_nor_repeats(project, topic, moment):
    """The third batch meets a fault: its table cannot be written, the commit fails, or its answer is lost."""
    topic(range(600))
    limits = IngestLimits(bytes=5000)
    with pytest.MonkeyPatch.context() as patch:
        tables, journal = _Faulty(project.tables()), _Faulty(project.journal())
        (tables if moment == "table" else journal).moment = moment
        patch.setattr(project, "tables", lambda: tables)
        patch.setattr(project, "journal", lambda: journal)
        with pytest.raises(StorageError):
            ingest(project, limits=limits)
    state, _ = find_state(project, "payments")
    assert state.batches == (3 if moment == "after" else 2)
    assert sum(ids(project).values()) == state.rows < 600
    ingest(project, limits=limits)
    assert ids(project) == once_each(range(600))


class _Faulty:
    """A client of tables or of a journal whose third write meets a fault, once a moment is set."""

    def __init__(self, client):
        self._client, self._writes, self.moment = client, 0, None

    def __getattr__(self, name):
        return getattr(self._client, name)

    def write(self, *arguments, **options):
        self._fail_at("table")
        return self._client.write(*arguments, **options)

    @contextmanager
    def transaction(self, **options):
        self._fail_at("before")
        with self._client.transaction(**options) as transaction:
            yield transaction
        self._fail_at("after")

    def _fail_at(self, moment):
        # renewals of the lease, and how a process joins, are no batches
        own = threading.current_thread() is threading.main_thread()
        self._writes += moment == self.moment and own
        if moment == self.moment and own and self._writes == (3 if moment == "table" else 5):
            raise StorageError("the disk is full")


def test_what_was_read_is_committed_when_it_is_to_stop(project, topic):
    topic(range(40))
    stop = threading.Event()
    seen = []
    watcher = threading.Thread(target=lambda: (wait_until(lambda: seen), stop.set()))
    with pytest.MonkeyPatch.context() as patch:
        take = StreamReader._take
        patch.setattr(StreamReader, "_take", lambda self, messages: (take(self, messages), seen.append(messages))[0])
        watcher.start()
        limits = IngestLimits(seconds=3600)
        (result,) = ingest_streams(project, principal=project.principal(), stop=stop, limits=limits)
    watcher.join()
    assert result.messages == 40
    assert ids(project) == once_each(range(40))


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_broker_that_is_away_is_tried_again(project, topic, monkeypatch):
    topic(range(10))
    monkeypatch.setattr(stream_ingestion, "_RETRY", 0.01)
    stop, told = threading.Event(), []
    real = project.streams()

    class Away:
        """Streams that do not answer, from the start and once more after the first batch."""

        failures = 6

        def __getattr__(self, name):
            def call(*arguments):
                if self.failures:
                    self.failures -= 1
                    raise EngineUnavailableError("the broker does not answer")
                return getattr(real, name)(*arguments)

            return call

    away = Away()
    monkeypatch.setattr(project, "streams", lambda: away)
    with pytest.raises(EngineUnavailableError):
        ingest(project)

    def progress(text, share=None):
        told.append(text)
        if "10 messages" in text:
            away.failures = 3
            topic(range(10, 20))
        if "20 messages" in text:
            stop.set()

    limits = IngestLimits(seconds=0.01)
    ingest_streams(project, principal=project.principal(), stop=stop, limits=limits, progress=progress)
    assert [text for text in told if "trying again" in text] == [
        "payments: the broker does not answer; trying again"
    ] * 8
    assert ids(project) == once_each(range(20))


def test_a_topic_that_is_made_anew_while_it_is_read(project, topic, monkeypatch):
    """What is read after that is never committed, though its positions exist in both."""
    topic(range(10))
    real = project.streams()

    class Changing:
        name = "first"

        def __getattr__(self, name):
            return getattr(real, name)

        def identity(self, topic):
            return self.name

    streams = Changing()
    monkeypatch.setattr(project, "streams", lambda: streams)

    def progress(text, share=None):
        streams.name = "second"
        topic(range(100, 110))

    options = {"limits": IngestLimits(seconds=0.01), "progress": progress}
    with pytest.raises(DataError, match="a topic of this name that is gone"):
        ingest_streams(project, principal=project.principal(), **options)
    assert ids(project) == once_each(range(10))


@pytest.mark.parametrize("later", [3, 300])
def test_a_topic_of_files_that_is_made_anew_is_no_topic_with_deleted_messages(project, topic, tmp_path, later):
    """Also where the new one is longer, so that the positions are within it."""
    topic(range(10))
    first = project.streams().identity("pay")
    topic([], partition=1)
    assert project.streams().identity("pay") == first

    def progress(text, share=None):
        shutil.rmtree(tmp_path / ".cumulant" / "streams" / "pay")
        topic(range(1000, 1000 + later))

    options = {"limits": IngestLimits(seconds=0.01), "progress": progress}
    with pytest.raises(DataError, match="a topic of this name that is gone"):
        ingest_streams(project, principal=project.principal(), **options)
    assert ids(project) == once_each(range(10))
    (status,) = stream_status(project, principal=project.principal())
    assert "a topic of this name that is gone" in status.error


def test_a_file_by_hand_that_is_made_anew_is_told_by_its_contents(project, tmp_path):
    """Also where it is as long, and a line ends at the position."""
    file = tmp_path / ".cumulant" / "streams" / "pay" / "0.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(payment(1) + b"\n" + payment(2) + b"\n")
    ingest(project)
    with file.open("ab") as more:
        more.write(payment(3) + b"\n")
    ingest(project)
    state, _ = find_state(project, "payments")
    without = msgspec.to_builtins(state) | {"marks": {}}  # as earlier versions wrote it
    shutil.rmtree(file.parent)
    file.parent.mkdir()
    file.write_bytes(b"".join(payment(number) + b"\n" for number in range(5, 9)))
    with pytest.raises(DataError, match="a topic of this name that is gone"):
        ingest(project)
    (status,) = stream_status(project, principal=project.principal())
    assert "a topic of this name that is gone" in status.error
    assert ids(project) == once_each([1, 2, 3])
    with project.journal().transaction(actor=Actor(project.principal().id)) as transaction:
        transaction.put(STREAM, "payments", without)
    ingest(project)
    assert ids(project) == once_each([1, 2, 3, 8])


def test_positions_after_what_is_no_message_are_committed_alone(project, topic, monkeypatch):
    """A driver moves past markers of transactions; a retention that deletes them has deleted no message."""
    topic([], 0)
    end = 50

    class Markers:
        def identity(self, topic):
            return "one"

        def bounds(self, topic):
            return {0: Bounds(0, end)}

        def lag(self, topic, positions):
            return {0: end - positions[0]}

        @contextmanager
        def consume(self, topic, positions):
            yield self

        def read(self, limit, seconds):
            return [Messages(0, [], [], end)]

    monkeypatch.setattr(project, "streams", Markers)
    result = ingest(project)
    assert (result.messages, result.batches, result.lag) == (0, 0, 0)
    state, _ = find_state(project, "payments")
    assert state.positions == {"0": end}
    ingest(project)
    assert find_state(project, "payments")[0].batches == 0


def test_a_batch_of_which_nothing_passes_is_not_committed(project, topic):
    topic(range(-500, -1))
    with pytest.raises(ContractBreachError, match=r"none of 499 messages of pay passes: amount:min \(499\)"):
        ingest(project)
    assert read_batches(project, "payments") == []
    result = ingest(project, limits=IngestLimits(accept_refused=True))
    assert (result.rows, result.refused) == (0, 499)


def test_another_topic_and_a_shorter_one_are_refused(project, topic, tmp_path):
    topic(range(10))
    topic(range(10), name="other")
    ingest(project)
    (tmp_path / ".cumulant/streams/pay/0.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="not the topic that was read before"):
        ingest(project)
    (status,) = stream_status(project, principal=project.principal())
    assert status.lag is None
    assert "not the topic that was read before" in status.error
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("stream: pay", "stream: other"))
    with load(tmp_path) as changed, pytest.raises(DataError, match="come from pay"):
        ingest(changed)


def test_sources_that_have_no_stream_or_are_not_there(project, topic, tmp_path):
    with pytest.raises(NotFoundError, match='no topic "pay"'):
        ingest(project)
    with pytest.raises(NotFoundError, match='no source named "paymnts"'):
        ingest(project, sources=["paymnts"])
    (status,) = stream_status(project, principal=project.principal())
    assert status.lag is None
    assert "no topic" in status.error
    (tmp_path / "rows.csv").write_text("id\n1\n")
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: shop}\ndata: {rows: {path: rows.csv}}\n")
    with load(tmp_path) as files:
        with pytest.raises(UsageError, match="no stream"):
            ingest(files, sources=["rows"])
        with pytest.raises(UsageError, match="no source of the project"):
            ingest(files)


def test_several_sources_at_once(tmp_path, topic):
    (tmp_path / "cumulant.yaml").write_text(PROJECT + "  refunds: {stream: back, key: id}\n")
    topic(range(30))
    topic(range(20), name="back")
    with load(tmp_path) as project:
        results = ingest_streams(project, principal=project.principal(), once=True)
        assert {result.source: result.rows for result in results} == {"payments": 30, "refunds": 20}
        (only,) = ingest_streams(project, principal=project.principal(), once=True, sources=["refunds"])
        assert only.source == "refunds"


@pytest.mark.parametrize("once", [True, False])
def test_an_error_of_one_source_keeps_no_other_from_being_committed(tmp_path, topic, once):
    (tmp_path / "cumulant.yaml").write_text(PROJECT + "  refunds: {stream: back, key: id}\n")
    topic(range(-200, -1))
    topic(range(20), name="back")
    stop, told = threading.Event(), []

    def progress(text, share=None):
        told.append(text)
        if "20 messages" in text:
            stop.set()

    options = {"once": once, "stop": stop, "limits": IngestLimits(seconds=0.01), "progress": progress}
    with load(tmp_path) as project:
        with pytest.raises(ContractBreachError, match="source payments: none of 199 messages"):
            ingest_streams(project, principal=project.principal(), **options)
        assert find_state(project, "refunds")[0].rows == 20
    assert any("payments: ended by an error: source payments: none of 199" in text for text in told)


@pytest.mark.parametrize("declared", [True, False])
def test_clean_removes_what_a_killed_process_left_and_no_more(project, topic, tmp_path, declared):
    topic(range(20))
    ingest(project)
    tables = project.tables()
    (batch,) = read_batches(project, "payments")
    frame = batch.rows.scan(tables).collect()
    left = tables.write("streams/payments/0123-0123456789abcdef/rows", frame)
    member = StreamMember(project.journal(), "payments", Actor("ada"))
    member.join()
    coming = tables.write(f"streams/payments/{member.id}-0123456789abcdef/rows", frame)
    if not declared:
        (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("payments:", "others:"))
    with load(tmp_path) as changed:
        removed = [item.key for item in clean(changed, principal=changed.principal(), dry_run=False)]
    assert [key for key in removed if key.startswith("streams/")] == [left.key]
    assert tables.keys("streams/") == sorted([batch.rows.key, coming.key])
    member.leave()


def test_a_correction_of_the_declaration_reads_all_rows_again(project, topic, tmp_path):
    topic(range(20))
    ingest(project)
    validate(project, principal=project.principal())
    (tmp_path / "cumulant.yaml").write_text(PROJECT.replace("{min: 0}", "{max: 4}") + "    quarantine: 100%\n")
    with load(tmp_path) as changed:
        snapshot = validate(changed, principal=changed.principal()).snapshots["payments"]
        assert (snapshot.rows_passed, snapshot.rows_quarantined) == (9, 11)
        assert newest_snapshot(changed, "payments").id == snapshot.id


def test_the_command_line(project, topic, tmp_path, capsys):
    where = ["--project", str(tmp_path)]
    assert run(["ingest", "run", "--once", *where]) == 2
    topic(range(300))
    assert run(["ingest", "run", "--once", "--json", *where]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sources"][0]["rows"] == 300
    project.streams().produce("pay", [b"poison"] * 10, partition=0)
    assert run(["ingest", "run", "--once", *where]) == 1
    shown = capsys.readouterr().out
    assert "row:json (10)" in shown
    assert "cumulant ingest refused payments" in shown
    assert run(["ingest", "status", *where]) == 0
    assert "310" in capsys.readouterr().out
    assert run(["ingest", "refused", "payments", "--rows", "3", *where]) == 0
    assert "3 of 10" in capsys.readouterr().out
    assert run(["ingest", "refused", "payments", "--out", str(tmp_path / "bad.jsonl"), "--json", *where]) == 0
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 10
    capsys.readouterr()
    assert run(["ingest", "status", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["partitions"][0]["lag"] == 0
    assert run(["ingest", "run", "--every", "0s", *where]) == 2
    assert run(["ingest", "run", "--batch-size", "1TiB", *where]) == 2
    (tmp_path / ".cumulant/streams/pay/0.jsonl").unlink()
    assert run(["ingest", "status", *where]) == 1


def test_a_signal_ends_the_command_with_what_was_read(topic, tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    topic(range(100))
    code = "import sys; from cumulant.cli.app import run; sys.exit(run(sys.argv[1:]))"
    words = ["ingest", "run", "--every", "0.1s", "--project", str(tmp_path)]
    command = [sys.executable, "-c", code, *words]
    with (
        load(tmp_path) as project,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        wait_until(lambda: read_batches(project, "payments"))
        process.send_signal(signal.SIGTERM)
        shown, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, told
        assert "100" in shown
        assert ids(project) == once_each(range(100))


@pytest.mark.slow
def test_kills_at_any_moment_lose_and_repeat_nothing(topic, tmp_path):
    """Eight processes are killed one after another, and 50 in bench/streams/kills.py, while payments are sent; each payment is in the table once."""
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    topic(range(10))
    sent, ended = list(range(10)), threading.Event()
    rng = seeded(19)

    def send():
        while not ended.is_set():
            numbers = range(len(sent), len(sent) + rng.randint(1, 400))
            topic(numbers, rng.randrange(3))
            sent.extend(numbers)
            ended.wait(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    worker = [sys.executable, str(Path(__file__).with_name("stream_worker.py")), str(tmp_path)]
    with load(tmp_path) as project:
        try:
            for _ in range(8):
                with subprocess.Popen(worker, stdout=subprocess.PIPE) as process:
                    assert process.stdout.readline() == b"ready\n"
                    before = len(read_batches(project, "payments"))
                    wait_until(lambda count=before: len(read_batches(project, "payments")) > count)
                    time.sleep(rng.random() * 0.3)
                    process.kill()
        finally:
            ended.set()
            sender.join()
        result = ingest(project)
        assert result.lag == 0
        assert ids(project) == once_each(sent)
        state, _ = find_state(project, "payments")
        assert (state.messages, state.rows, state.refused) == (len(sent), len(sent), 0)
