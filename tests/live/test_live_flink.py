"""Features of streams on a real Flink: operators, and windows and lookups by the public cases, as rows come; and the job
of a project, from topic to topic of a real Kafka.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

import cumulant
from cumulant.core.errors import DataError, DefinitionError, EngineUnavailableError, LeaseHeldError, StorageError
from cumulant.core.events import Actor
from cumulant.core.plan import FeaturePlan, PredictAt
from cumulant.core.units import micros
from cumulant.demo.fraud.card_windows import CardWindows
from cumulant.demo.fraud.recomputation import Recomputation
from cumulant.drivers.flink.engine import FlinkEngine
from cumulant.drivers.flink.rest import FlinkRest
from cumulant.drivers.flink.sql_session import SqlSession, sql_session
from cumulant.features.flink.compiler import JSON, KEY, SETTINGS, StreamTable, compile_query
from cumulant.features.flink.expressions import expression
from cumulant.features.flink.refusals import refusals
from cumulant.features.flink.sql_text import TYPES, QuerySteps
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.features.jobs.job_control import StartedJob
from cumulant.flows.features.jobs.job_record import job_records
from cumulant.flows.features.jobs.job_status import JobStatus, job_status
from cumulant.flows.features.jobs.run_job import start_job
from cumulant.flows.features.jobs.supervise_job import supervise_job
from cumulant.flows.project.planning import plan as make_plan
from cumulant.ports.access import Principal
from cumulant.ports.streams import Streams
from cumulant.project.file.loading import load
from cumulant.project.project import Project
from cumulant.testing.certificates import Authority
from cumulant.testing.expressions import CASES
from cumulant.testing.expressions import KINDS as COLUMNS
from cumulant.testing.expressions import ROW as VALUES
from cumulant.testing.plans.cases import KINDS, START, PlanCase, plan_case
from cumulant.testing.plans.oracle import Row, features, same
from cumulant.testing.servers.flink import FlinkCluster, flink_cluster

ME = Principal("user:ada")
#: watermarks follow the rows closely, as in a stream that never ends
CLOSELY = {"pipeline.auto-watermark-interval": "1 ms"}
pytestmark = pytest.mark.live

#: rows of a case are spread over less
LATENESS = timedelta(hours=12)
#: those of one plan, which Flink computes parts of
KINDS_COMPUTED = [kind for kind in KINDS if kind not in {"corrected", "without a key"}]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[FlinkCluster]:
    try:
        with flink_cluster(tmp_path_factory.mktemp("flink")) as started:
            yield started
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def open_session(cluster) -> Iterator[Callable[[Mapping[str, str]], SqlSession]]:
    gateway = FlinkRest(f"http://127.0.0.1:{cluster.gateway}", "the gateway", headers={}, authority=None)
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(sql_session(gateway, settings))


def options(file: Path) -> dict[str, str]:
    return {"connector": "filesystem", "path": file.as_uri(), **JSON}


def test_every_operator_gives_what_the_published_cases_say(tmp_path, open_session):
    (tmp_path / "row.json").write_text(json.dumps(VALUES), encoding="utf-8")
    session = open_session(SETTINGS)
    columns = ", ".join(f"`{column}` {TYPES[kind]}" for column, kind in COLUMNS.items())
    listed = ", ".join(f"'{key}' = '{value}'" for key, value in options(tmp_path / "row.json").items())
    session.run(f"CREATE TEMPORARY TABLE cases ({columns}) WITH ({listed})")
    steps = QuerySteps()
    values = [f"{expression(case.node, steps.let, COLUMNS)[0]} AS c{number}" for number, case in enumerate(CASES)]
    (answer,) = session.run(f"SELECT {', '.join(values)} FROM ({steps.around('SELECT * FROM cases')})")
    wrong = [
        (str(case), answer[f"c{number}"]) for number, case in enumerate(CASES) if not case.accepts(answer[f"c{number}"])
    ]
    assert wrong == []


def computed(plan: FeaturePlan, names: str) -> FeaturePlan:
    """The features of a plan that Flink computes, of those whose names match."""
    refused = {refusal.subject for refusal in refusals(plan)}
    features = [spec for spec in plan.features if spec.name not in refused and re.fullmatch(names, spec.name)]
    return msgspec.structs.replace(plan, features=tuple(features))


def moved(row: Row, world: int) -> Row:
    """A row in a time and with a card and key of its own."""
    later = {name: at + timedelta(days=world) for name, at in row.items() if isinstance(at, datetime)}
    own = {"id": row["id"] + 1000 * world, "card": None if row["card"] is None else f"{world} {row['card']}"}
    return row | later | own


def worlds(plan: FeaturePlan) -> list[PlanCase]:
    """Each query of the cases with a history of its own, which it is the last row of: rows that are apart do not count
    for each other. Columns that come later are no part of it.
    """
    cases: list[PlanCase] = []
    for kind in KINDS_COMPUTED:
        case = plan_case(kind, 0)
        arrivals = case.accepted if kind == "late" else case.deliveries  # streams are of whole rows
        for query in case.queries:
            world, key = len(cases), plan.sources["tx"].key
            histories = {of: [moved(row, world) for row in rows] for of, rows in arrivals.items()}
            mine = moved(query | {"done": None, "word": None}, world)
            if all(any(row[name] != mine[name] for name in key) for row in histories["tx"]):
                histories["tx"].append(mine)
            cases.append(replace(case, plan=plan, deliveries=histories, queries=[moved(query, world)]))
    return cases


def written(file: Path, rows: Sequence[Row]) -> Mapping[str, str]:
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, default=lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) + "\n")
    return options(file)


# planning takes a second for each group of windows, so that some of the cases' features are left out
SOME = "amount_(sum|distinct|last)_2d|amount_sum_3h|words_2d|amount"


def test_rows_in_any_order_get_what_a_loop_over_all_rows_gives(tmp_path, open_session):
    plan = computed(plan_case("in order", 0).plan, SOME)
    plan = msgspec.structs.replace(plan, predict_at=PredictAt("at", micros(timedelta(minutes=30))))
    cases = worlds(plan)
    streams = {
        of: StreamTable(
            micros(LATENESS), written(tmp_path / of, [row for case in cases for row in case.deliveries[of]])
        )
        for of in plan.sources
    }
    query = compile_query(plan, streams)
    session = open_session({**query.settings, **CLOSELY})
    for statement in query.tables:
        session.run(statement)
    results: dict[tuple[Any, ...], list[Row]] = {}
    keys = plan.sources["tx"].key
    for row in session.run(query.text):
        results.setdefault(tuple(row[KEY + name] for name in keys), []).append(row)
    wrong = []
    for case in cases:
        (mine,) = results[tuple(case.queries[0][name] for name in keys)]
        times = {spec.name for spec in plan.features if spec.dtype == "time" and mine[spec.name] is not None}
        values = mine | {name: datetime.fromisoformat(mine[name]) for name in times}
        wrong += [(case.kind, mismatch) for mismatch in case.mismatches([values])]
    assert wrong == []
    assert len(plan.features) == 6


def test_a_time_that_is_finer_than_a_millisecond_ends_the_job(tmp_path, open_session):
    case = plan_case("in order", 0)
    rows = [case.deliveries["tx"][0], case.deliveries["tx"][1] | {"at": START + timedelta(microseconds=7)}]
    stream = StreamTable(0, written(tmp_path / "tx", rows))
    query = compile_query(computed(case.plan, "n_2d"), {"tx": stream})
    session = open_session({**query.settings, **CLOSELY})
    session.run(query.tables[0])
    with pytest.raises(DataError, match=r"a time of tx.at is finer than a millisecond: .*000007"):
        session.run("SELECT id, `__at` FROM `tx 0`")


PATIENCE = 120.0
LATE = timedelta(minutes=10)
PROJECT = """version: 1
model: {name: cards}
data:
  tx: {stream: payments, key: TRANSACTION_ID, event_time: at, known_time: {7d: [fraud]}, lateness: 10m, idle: 10m}
training: {target: fraud, predict_at: at}
environments:
  prod:
    streams: STREAMS
    stream_engine: flink://127.0.0.1:GATEWAY?checkpoints=FOLDER&interval=1s&jobmanager=127.0.0.1:JOBS
"""
FEATURES = """from cumulant.features import source

card = source("tx").by("card")
n = card.count(window="1h")
total = card.sum("amount", window="WINDOW")
"""


@pytest.fixture
def broker(tmp_path, monkeypatch) -> Iterator[str]:
    """The URL of the encrypted listener of a broker, with a user and a password."""
    pytest.importorskip("confluent_kafka", reason='pip install "cumulant[kafka]"')
    from cumulant.testing.servers.kafka import PASSWORD, USER, kafka_server

    (tmp_path / "kafka").mkdir()
    monkeypatch.setenv("KAFKA", PASSWORD)
    authority = Authority(tmp_path / "authority")
    signed = authority.signed("DNS:localhost")
    pem = (Path(signed.certificate), Path(signed.private_key))
    try:
        with kafka_server(tmp_path / "kafka", pem=pem) as server:
            server.create_topic("payments", 2)
            yield f"kafkas://{USER}@localhost:{server.encrypted_port}?password=KAFKA&ca={authority.file}"
    except FileNotFoundError as error:
        pytest.skip(str(error))


class Payments:
    """Rows in two partitions, each in an order that its watermark allows, with an hour between two calls."""

    def __init__(self, streams: Streams) -> None:
        self._streams, self._random = streams, Random(7)
        self._partitions: list[list[Row]] = [[], []]
        self._begin = START

    def produce(self, count: int) -> None:
        for partition in range(2):
            times = [self._begin + timedelta(seconds=self._random.randrange(3600)) for _ in range(count)]
            times.sort(key=lambda at: at + self._random.random() * LATE / 2)
            new = [self._row(at) for at in (*times, self._begin + timedelta(minutes=90))]
            self._partitions[partition] += new
            lines = [json.dumps(row, default=lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")).encode() for row in new]
            self._streams.produce("payments", lines, partition=partition)
        self._begin += timedelta(hours=2)

    def _row(self, at: datetime) -> Row:
        amount = self._random.choice((0.1, 1e16, -1e16, 3.0, None))
        return {
            "TRANSACTION_ID": self._random.getrandbits(50),
            "card": self._random.choice("abc"),
            "at": at,
            "amount": amount,
            "fraud": self._random.random() < 0.1,
        }

    def expected(self, plan: FeaturePlan) -> dict[int, Row]:
        """The features of each row that the watermark has passed, by its key."""
        watermark = min(max(row["at"] for row in rows) for rows in self._partitions) - LATE
        rows = [row for part in self._partitions for row in part]
        values = zip(rows, features(plan, {"tx": rows}), strict=True)
        return {row["TRANSACTION_ID"]: right for row, right in values if row["at"] < watermark}


def results(streams: Streams, topic: str, count: int) -> list[Row]:
    """What is committed in a topic, once that are so many."""
    rows: list[Row] = []
    with streams.consume(topic, dict.fromkeys(streams.partitions(topic), 0)) as consumer:
        deadline = time.monotonic() + PATIENCE
        while len(rows) < count and time.monotonic() < deadline:
            rows += [json.loads(value) for part in consumer.read(1 << 20, 1.0) for value in part.values if value]
        rows += [json.loads(value) for part in consumer.read(1 << 20, 0.5) for value in part.values if value]
    return rows


def check_results(streams: Streams, job: StartedJob | JobStatus, plan: FeaturePlan, payments: Payments) -> None:
    expected = payments.expected(plan)
    rows = results(streams, job.topic, len(expected))
    assert sorted(row["TRANSACTION_ID"] for row in rows) == sorted(expected)
    assert {row["fingerprint"] for row in rows} == {job.fingerprint}
    rights = [(row, name, value) for row in rows for name, value in expected[row["TRANSACTION_ID"]].items()]
    assert [(row, name, value) for row, name, value in rights if not same(row[name], value, 1e-9)] == []


def test_a_job_of_a_project_outlives_its_worker_and_resumes(tmp_path, cluster, broker, monkeypatch):
    place = tmp_path / "cards"
    place.mkdir()
    ports = {"GATEWAY": str(cluster.gateway), "JOBS": str(cluster.jobs)}
    named = {"STREAMS": broker, "FOLDER": (tmp_path / "flink").as_uri(), **ports}
    (place / "cumulant.yaml").write_text(re.sub("|".join(named), lambda match: named[match[0]], PROJECT))

    def defined(window: str, more: str = "") -> Project:
        (place / "features.py").write_text(FEATURES.replace("WINDOW", window) + more)
        return stack.enter_context(load(place, environment="prod"))

    def plan_of(project: Project) -> FeaturePlan:
        return make_plan(project, principal=ME, checks=False).features

    with ExitStack() as stack:
        project = defined("1h", 'spread = card.std("amount", window="1h")\n')
        payments, streams = Payments(project.streams()), project.streams()
        payments.produce(40)
        ingest_streams(project, principal=ME, once=True)
        with pytest.raises(DefinitionError, match="spread_1h: std of numbers"):
            make_plan(project, principal=ME)

        project = defined("1h")
        plan = plan_of(project)
        with ThreadPoolExecutor(2) as pool:
            starts = [pool.submit(start_job, each, principal=ME) for each in (project, defined("1h"))]
        jobs = [start.result() for start in starts if not isinstance(start.exception(), LeaseHeldError)]
        first = next(job for job in jobs if job.started)
        assert {(job.job, job.resumed) for job in jobs} == {(first.job, None)}
        check_results(streams, first, plan, payments)

        cluster.kill_worker()
        payments.produce(40)
        cluster.start_worker()
        check_results(streams, first, plan, payments)
        engine = project.stream_engine()
        assert engine is not None
        assert (engine.job_state(first.job).restores or 0) > 0
        assert supervise_job(project, principal=ME) == f"the job {first.job} runs"

        with project.journal().transaction(actor=Actor(ME.id)) as transaction:  # as if killed before it was recorded
            transaction.delete("feature_job", first.topic)
        assert not start_job(project, principal=ME).started
        (status,) = job_status(project, principal=ME)
        assert (status.job, status.fingerprint, status.faulty) == (first.job, first.fingerprint, False)
        assert status.checkpoint is not None

        changed = defined("30m")
        with monkeypatch.context() as away:
            away.setattr(FlinkEngine, "submit", refuse)
            with pytest.raises(DataError):
                start_job(changed, principal=ME)
        supervise_job(changed, principal=ME)
        (second, _) = job_status(changed, principal=ME)
        assert (second.state, second.topic != first.topic) == ("RUNNING", True), "the supervision has started it"
        saved = job_records(changed)[first.topic].place
        assert saved is not None
        assert saved.exact, "every transaction is marked in the topic"
        assert sum(saved.ends.values()) > len(payments.expected(plan))
        assert saved.path, "the first was stopped with a savepoint"
        check_results(streams, second, plan_of(changed), payments)

        payments.produce(20)
        back = start_job(defined("1h"), principal=ME)
        assert (back.resumed, [job.name for job in back.stopped]) == (saved.path, [second.topic])
        check_results(streams, back, plan, payments)

        cancel(cluster.jobs, back.job)
        (other, status) = sorted(job_status(project, principal=ME), key=lambda job: job.faulty)
        assert (other.state, other.checkpoint) == ("stopped", back.stopped[0].savepoint)
        assert (status.job, status.state, status.faulty) == (back.job, "CANCELED", True)
        assert "was cancelled in Flink: start it again" in supervise_job(project, principal=ME)
        assert back.topic in {alert.finding.subject for alert in read_alerts(project.journal())[0].firing}

        payments.produce(20)
        windows = CardWindows(stack.enter_context(cumulant.open(place, env="prod")), "refused")  # as the demo does
        expected = payments.expected(plan)
        windows.await_results(expected)
        windows.stop()
        report = windows.report(expected, expected, time.monotonic(), Recomputation(0, 0, 0, 0, expected))
        count = len(expected)
        assert (report.results, report.repeated, report.missing) == (count, 0, 0)
        assert (report.events, report.compared, report.mismatches) == (count, 2 * count, 0)
        wrong = {number: {"n_1h": -1} for number in expected}
        later = windows.report(expected, expected, time.monotonic(), Recomputation(0, 0, 0, 0, wrong))
        assert later.mismatches == count
        record = job_records(project)[back.topic]
        assert (record.resumed, record.stopped, record.job != back.job) == (status.checkpoint, True, True)
        kinds = Counter(event.kind for event in project.journal().events())
        assert (kinds["features.job_started"], kinds["features.job_stopped"]) == (5, 3)


def refuse(*_: object, **__: object) -> str:
    raise DataError("Flink refuses: it has no slot for a job now")


def cancel(port: int, job: str) -> None:
    """End a job as Flink's own tools do, and wait until it has ended."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("PATCH", f"/jobs/{job}?mode=cancel")
    connection.getresponse().read()
    deadline, state = time.monotonic() + PATIENCE, ""
    while state != "CANCELED" and time.monotonic() < deadline:
        connection.request("GET", f"/jobs/{job}")
        state = json.loads(connection.getresponse().read())["state"]
        time.sleep(0.05)
    connection.close()


def test_what_is_wrong_with_an_engine_is_said_with_what_to_do(cluster):
    """The last test of this file: it ends the JobManager."""
    url = f"flink://127.0.0.1:{cluster.gateway}?checkpoints=file:///tmp/flink"
    FlinkEngine(f"{url}&jobmanager=127.0.0.1:{cluster.jobs}").check()
    with pytest.raises(StorageError, match="no JobManager is at"):
        FlinkEngine(f"{url}&jobmanager=127.0.0.1:{cluster.gateway}").check()
    cluster.processes["jobmanager"].kill()
    cluster.processes["jobmanager"].wait()
    with pytest.raises(EngineUnavailableError, match="its cluster does not") as raised:
        FlinkEngine(url).check()
    assert "start the cluster" in str(raised.value.hint)
