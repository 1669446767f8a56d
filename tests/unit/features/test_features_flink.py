"""Flink SQL of feature plans, as text, and what is refused; `tests/live/test_live_flink.py` runs the text."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.errors import DefinitionError, StorageError, UsageError
from cumulant.core.expr import OPERATORS, Call, Column, Literal
from cumulant.core.ids import digest, short
from cumulant.features.flink.compiler import compile_query
from cumulant.features.flink.expressions import expression, operators
from cumulant.features.flink.job import FeatureJob, feature_job
from cumulant.features.flink.refusals import refusals
from cumulant.features.flink.sql_text import QuerySteps, interval, text
from cumulant.flows.features.jobs.job_record import FeatureJobRecord, place_to_resume
from cumulant.flows.features.stream_query import job_connection, stream_query
from cumulant.ports.compute import JobState
from cumulant.project.file.loading import load
from cumulant.testing.plans.cases import KINDS, plan_case

WINDOWS = ("1h", "3h", "2d")
STD = {f"{column}_std_{window}" for column in ("amount", "items") for window in WINDOWS}
LAST = {
    f"{name}_{window}" for name in ("amount_last", "items_last", "items_by_event", "word") for window in WINDOWS
} | {"amount", "word", "items", "label", "grade"}
#: in an order of event times that is not that of known times
BY_EVENT = {f"word_by_event_{window}" for window in WINDOWS} | {"done", "state"}
#: what Flink does not compute of the public cases: by whether rows correct each other, and the number of key columns
REFUSED = {
    (False, 1): STD | BY_EVENT,
    (False, 2): STD | BY_EVENT | LAST,
    (True, 1): STD | BY_EVENT | {"tx", "other"},
    (True, 2): STD | BY_EVENT | LAST | {"tx", "other"},
}
PROJECT = """version: 1
model: {name: cards}
data:
  tx: {stream: payments, key: id, event_time: at, lateness: 5m}
  other: {stream: others, key: id, event_time: at}
environments:
  prod: {streams: "kafka://ana@k1,k2:9093/?password=KAFKA"}
"""


def test_every_operator_compiles():
    assert set(operators()) == set(OPERATORS)


def test_texts_cannot_end_early():
    assert text("o'clock' OR 1=1") == "'o''clock'' OR 1=1'"
    assert text("\\'\n") == "U&'\\005c''\\000a'"
    assert interval(2 * 86_400_000_000 - 1_000) == "INTERVAL '1 23:59:59.999' DAY(3) TO SECOND(3)"


def test_the_text_grows_with_the_depth_of_an_expression_and_not_with_its_uses():
    def size(levels: int) -> int:
        node, steps = Column("x"), QuerySteps()
        for _ in range(levels):
            node = Call("mod", (Call("round", (node,), {"digits": 2}), Literal(7.5)))
        return len(steps.around(expression(node, steps.let, {"x": "float"})[0]))

    assert size(16) - size(8) < 1.1 * (size(8) - size(0))


def test_the_last_row_of_a_source_without_a_key_is_refused():
    refused = refusals(plan_case("without a key", 0).plan)
    reasons = {
        refusal.subject: refusal.reason for refusal in refused if refusal.reason.startswith("the last row of other")
    }
    assert {"items_last_1h", "amount", "word"} <= reasons.keys()


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"without a key"}))
def test_what_is_refused_of_the_public_cases(kind):
    for seed in range(2):
        plan = plan_case(kind, seed).plan
        refused = refusals(plan)
        assert {refusal.subject for refusal in refused} == REFUSED[kind == "corrected", seed + 1]
        with pytest.raises(DefinitionError, match="amount_std_1h: std of numbers, the deviation of Flink loses"):
            compile_query(plan, {})


def test_a_job_of_a_project_reads_its_topics(tmp_path, monkeypatch):
    pytest.importorskip("confluent_kafka", reason='pip install "cumulant[kafka]"')
    monkeypatch.setenv("KAFKA", 's"x')
    (tmp_path / "cumulant.yaml").write_text(PROJECT, encoding="utf-8")
    plan = plan_case("in order", 0).plan
    with load(tmp_path) as project, pytest.raises(UsageError, match="not on Kafka"):
        stream_query(project, plan)
    with load(tmp_path, environment="prod") as project:
        with pytest.raises(DefinitionError, match="other: no lateness, a watermark needs to know"):
            stream_query(project, plan)
        refused = STD | BY_EVENT
        own = [
            spec for spec in plan.features if spec.window and spec.window.source == "tx" and spec.name not in refused
        ]
        job = stream_query(project, msgspec.structs.replace(plan, features=tuple(own)))
        small = msgspec.structs.replace(plan, features=tuple(own))
        named = feature_job(small, job, project.scope, neutral=job, options={})
        clash = msgspec.structs.replace(small, features=(msgspec.structs.replace(own[0], name="id"),))
        with pytest.raises(DefinitionError, match="cannot have these features: id, which are names of its own columns"):
            feature_job(clash, job, project.scope, neutral=job, options={})
        connection = job_connection(project, encrypted=True)
        with pytest.raises(UsageError, match="password of the brokers would be sent to Flink as it is"):
            job_connection(project, encrypted=False)
    assert len({table.partition(" WITH ")[2] for table in job.tables}) == 1
    assert "'topic' = 'payments', 'properties.bootstrap.servers' = 'k1:9092,k2:9093'" in job.tables[0]
    assert "secret" not in "".join(job.tables)
    assert named.name == f"cumulant.default.cards.prod.{short(named.definition)}"
    assert named.fingerprint == short(digest(small))
    assert connection["properties.bootstrap.servers"] == "k1:9092,k2:9093"
    login = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule"
    assert connection["properties.sasl.jaas.config"] == f'{login} required username="ana" password="s\\"x";'


def test_a_job_goes_on_where_its_results_end():
    job = FeatureJob(name="cards", definition="d", fingerprint="f", statements=(), settings={})
    at = datetime(2026, 12, 1, tzinfo=UTC)
    ran = FeatureJobRecord(name="cards", definition="d", fingerprint="f", job="1", savepoint=None, at=at, who="ada")
    stopped = msgspec.structs.replace(ran, savepoint="s3://a/savepoint")
    nothing, checkpoint = JobState(), JobState(path="s3://a/chk-7", at=at)
    assert place_to_resume(job, None, None, known=False, filled=False) is None
    assert place_to_resume(job, stopped, checkpoint, known=True, filled=True) == "s3://a/savepoint"
    assert place_to_resume(job, ran, checkpoint, known=True, filled=True) == "s3://a/chk-7"
    assert place_to_resume(job, ran, nothing, known=True, filled=True) is None, "nothing was committed"
    with pytest.raises(StorageError, match="ended without a savepoint, and nothing says how far it came"):
        place_to_resume(job, ran, None, known=True, filled=False)
    with pytest.raises(StorageError, match="the topic cards has results"):
        place_to_resume(job, None, None, known=False, filled=True)
