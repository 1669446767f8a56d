"""Flink SQL of feature plans, as text, and what is refused; `tests/live/test_live_flink.py` runs the text."""

from __future__ import annotations

import msgspec
import pytest

from cumulant.core.errors import DefinitionError, UsageError
from cumulant.core.expr import OPERATORS, Call, Column, Literal
from cumulant.core.ids import digest, short
from cumulant.core.plan import Field, PredictAt, Source
from cumulant.core.scope import Scope
from cumulant.features import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.flink.compiler import StreamTable, compile_query
from cumulant.features.flink.expressions import expression, operators
from cumulant.features.flink.job import check_results, feature_job
from cumulant.features.flink.refusals import refusals
from cumulant.features.flink.sql_text import QuerySteps, interval, text
from cumulant.flows.features.stream_query import job_connection, stream_query
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
        named = feature_job(small, job, project.scope, unconnected=job, options={})
        clash = msgspec.structs.replace(small, features=(msgspec.structs.replace(own[0], name="id"),))
        with pytest.raises(DefinitionError, match="cannot have these features: id, which are names of its own columns"):
            feature_job(clash, job, project.scope, unconnected=job, options={})
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


def card_job(windows, *fields, key="id"):
    """The job of windows over card payments."""
    columns = (Field(key, "int"), Field("at", "time"), Field("card", "str", personal=True), *fields)
    sources = {"tx": Source("tx", (key,), "at", columns)}
    plan = compile_plan(collect(windows), sources, entity="tx", predict_at=PredictAt("at"))
    query = compile_query(plan, {"tx": StreamTable(0, {"topic": "t"})})
    return plan, feature_job(plan, query, Scope(), unconnected=query, options={})


def test_what_documents_a_feature_is_no_part_of_its_job():
    card = source("tx").by("card")
    plan, job = card_job({"n": card.count(window="1h")})
    documented = card.count(window="1h").described("Payments of an hour.", owner="risk", tags=("fraud",))
    assert card_job({"n": documented})[1] == job
    _, wider = card_job({"n": card.count(window="1h")}, Field("merchant", "str"))
    assert (wider.name, wider.definition) == (job.name, job.definition)
    longer = card_job({"n": card.count(window="2h")})[1]
    assert longer.name != job.name
    assert (job.reads, job.span, longer.span) == (("tx",), 3600.0, 7200.0)
    last = source("tx").as_of("card").columns("amount")
    assert card_job({"last": last}, Field("amount", "float"))[1].span is None, "a lookup without an end"
    assert job.fingerprint == short(digest(plan)), "that of servers"


def test_results_show_no_personal_values_and_names_that_their_topic_can_have():
    mail = Field("email", "str", personal=True)
    card = source("tx").by("card")
    assert card_job({"mails": card.distinct("email", window="1h")}, mail)[1].statements
    with pytest.raises(DefinitionError, match="results of a job cannot show personal values: mail_1h; no erasure"):
        card_job({"mail": card.last("email", window="1h")}, mail)
    with pytest.raises(DefinitionError, match='cannot have this column: "a;b"'):
        card_job({"n": card.count(window="1h")}, key="a;b")
    plan, _ = card_job({"n": card.count(window="1h")})
    own = plan.sources["tx"]
    keyed = msgspec.structs.replace(plan, sources={"tx": msgspec.structs.replace(own, key=("card",))})
    with pytest.raises(DefinitionError, match=r"personal values: tx\.card;"):
        check_results(keyed)
