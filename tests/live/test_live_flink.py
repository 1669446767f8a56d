"""Features of streams on a real Flink: operators, and windows and lookups by the public cases, as rows come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulant.core.plan import FeaturePlan, PredictAt
from cumulant.core.units import micros
from cumulant.features.flink.compiler import JSON, KEY, SETTINGS, StreamTable, compile_query
from cumulant.features.flink.expressions import expression
from cumulant.features.flink.refusals import refusals
from cumulant.features.flink.sql_text import TYPES, QuerySteps
from cumulant.testing.expressions import CASES
from cumulant.testing.expressions import KINDS as COLUMNS
from cumulant.testing.expressions import ROW as VALUES
from cumulant.testing.plans.cases import KINDS, START, PlanCase, plan_case
from cumulant.testing.plans.oracle import Row
from cumulant.testing.servers.flink import FlinkError, FlinkSession, flink_gateway

pytestmark = pytest.mark.live

#: rows of a case are spread over less
LATENESS = timedelta(hours=12)
#: those of one plan, which Flink computes parts of
KINDS_COMPUTED = [kind for kind in KINDS if kind not in {"corrected", "without a key"}]


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    try:
        with flink_gateway(tmp_path_factory.mktemp("flink")) as opened:
            yield opened
    except FileNotFoundError as error:
        pytest.skip(str(error))


def options(file: Path) -> dict[str, str]:
    return {"connector": "filesystem", "path": file.as_uri(), **JSON}


def test_every_operator_gives_what_the_published_cases_say(tmp_path, port):
    (tmp_path / "row.json").write_text(json.dumps(VALUES), encoding="utf-8")
    session = FlinkSession(port, SETTINGS)
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


def test_rows_in_any_order_get_what_a_loop_over_all_rows_gives(tmp_path, port):
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
    session = FlinkSession(port, query.settings)
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


def test_a_time_that_is_finer_than_a_millisecond_ends_the_job(tmp_path, port):
    case = plan_case("in order", 0)
    rows = [case.deliveries["tx"][0], case.deliveries["tx"][1] | {"at": START + timedelta(microseconds=7)}]
    stream = StreamTable(0, written(tmp_path / "tx", rows))
    query = compile_query(computed(case.plan, "n_2d"), {"tx": stream})
    session = FlinkSession(port, query.settings)
    session.run(query.tables[0])
    with pytest.raises(FlinkError, match=r"a time of tx.at is finer than a millisecond: .*000007"):
        session.run("SELECT id, `__at` FROM `tx 0`")
