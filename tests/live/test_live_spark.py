"""Features of the history on a real Spark: operators, windows and lookups by the public cases, and a project's table."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import msgspec
import polars as pl
import pytest

from cumulant.core.errors import DataError, EngineUnavailableError, StorageError
from cumulant.core.plan import FeaturePlan
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.features.spark.compiler import ROWS, SETTINGS, compile_query
from cumulant.features.spark.expressions import expression
from cumulant.features.spark.history import input_frame
from cumulant.features.spark.sql_text import constant, name
from cumulant.flows.features.feature_table import featurize
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.expressions import CASES
from cumulant.testing.expressions import KINDS as COLUMNS
from cumulant.testing.expressions import ROW as VALUES
from cumulant.testing.plans import oracle
from cumulant.testing.plans.cases import DTYPES, KINDS, PlanCase, plan_case
from cumulant.testing.plans.conformance import PlanConformance
from cumulant.testing.plans.oracle import Row
from cumulant.testing.servers.programs import free_port

pytest.importorskip("pyspark", reason='pip install "cumulant[spark]"')

from cumulant.drivers.spark.engine import SparkEngine
from cumulant.testing.servers.spark import spark_server

pytestmark = pytest.mark.live

ME = Principal("tester")
START = datetime(2024, 3, 25)
PROJECT = """version: 1
model: {{name: days}}
data:
  tx:
    path: tx.csv
    key: id
    event_time: {{column: at, zone: Europe/Paris}}
    known_time: {known}{more}
  rates: {{path: rates.csv, key: [card, since], event_time: {{column: since, zone: UTC}}}}
training: {{target: label, predict_at: at, trainers: [naive]}}
environments:
  spark: {{history: "{url}"}}
"""
FEATURES = """from cumulant.features import col, source
tx, rates = source("tx"), source("rates")
own = tx.columns("amount")
hour = col("at").dt.hour("Asia/Kathmandu")
card = tx.by("card")
n, total = card.count(window=["1h", "2d"]), card.sum("amount", window=["3h", "2d"])
top, last = card.max("amount", window="2d"), card.last("shop", window="2d")
shops = tx.by("card", "shop").distinct("amount", window="1d")
late = tx.by("shop").mean("result", window=["1d", "4d"])
rate = rates.as_of("card").columns("rate")
near = rates.as_of("card", within="12h").columns("since")
share = col("amount") / total["3h"]
N = n["1h"] + 1
"""


@pytest.fixture(scope="module")
def staging(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("staging")


@pytest.fixture(scope="module")
def url(tmp_path_factory, staging) -> Iterator[str]:
    try:
        with spark_server(tmp_path_factory.mktemp("spark")) as port:
            yield f"sc://127.0.0.1:{port}?staging={staging}"
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_every_operator_gives_what_the_published_cases_say(url):
    row = ", ".join(f"{constant(VALUES[column], kind)} AS {name(column)}" for column, kind in COLUMNS.items())
    values = ", ".join(f"{expression(case.node, COLUMNS)[0]} AS c{number}" for number, case in enumerate(CASES))
    with SparkEngine(url).query(
        f"SELECT 0 AS n, {values} FROM (SELECT {row})", {}, order_by="n", settings=SETTINGS
    ) as blocks:
        (answer,) = pl.concat(blocks).to_dicts()
    wrong = [
        (str(case), answer[f"c{number}"]) for number, case in enumerate(CASES) if not case.accepts(answer[f"c{number}"])
    ]
    assert wrong == []


def apart(rows: Sequence[Row], number: int) -> pl.DataFrame:
    """Rows of a case, whose cards are no other case's."""
    versions = dict.fromkeys((FROM, UNTIL), pl.Int64) if any(FROM in row for row in rows) else {}
    frame = pl.DataFrame(rows, schema={column: TYPES[dtype] for column, dtype in DTYPES.items()} | versions)
    return frame.with_columns(card=pl.lit(f"{number} ") + pl.col("card"))


class TestSpark(PlanConformance):
    """The cases of one plan are one query: a query costs seconds, whatever its rows."""

    answers: ClassVar[dict[tuple[str, int], list[Row]]] = {}

    @pytest.fixture(autouse=True)
    def _engine(self, url) -> None:
        self.url = url

    def features(self, case: PlanCase) -> list[Row]:
        if (case.kind, case.seed) not in self.answers:
            cases = [plan_case(kind, case.seed) for kind in KINDS]
            self._ask([each for each in cases if each.plan == case.plan])
        return self.answers[case.kind, case.seed]

    def _ask(self, cases: Sequence[PlanCase]) -> None:
        plan = in_order_of_known_times(cases[0].plan)
        query = compile_query(plan, rows=True)
        views = {}
        for view in query.inputs:
            of = plan.entity if view.view == ROWS else view.view
            frames = []
            for number, case in enumerate(cases):
                rows = apart(case.queries if view.view == ROWS else case.accepted[of], number)
                place = pl.int_range(pl.len(), dtype=pl.Int64) + 1000 * number
                frames.append(input_frame(plan.sources[of], view, rows.with_columns(place.alias(ROW))))
            views[view.view] = pl.concat(frames)
        with SparkEngine(self.url).query(query.text, views, order_by=ROW, settings=SETTINGS) as blocks:
            answers = pl.concat(blocks).to_dicts()
        for number, case in enumerate(cases):
            mine = [row for row in answers if row[ROW] // 1000 == number]
            self.answers[case.kind, case.seed] = [wanted | row for row, wanted in zip(mine, case.expected, strict=True)]


def in_order_of_known_times(plan: FeaturePlan) -> FeaturePlan:
    """Without the features that Spark SQL refuses."""
    measured = [(spec, spec.window or spec.lookup) for spec in plan.features]
    features = tuple(spec for spec, measure in measured if measure is None or measure.order is msgspec.UNSET)
    return msgspec.structs.replace(plan, features=features)


def files(folder: Path, days: int, *, corrected: bool) -> None:
    """Payments of some days, and rates; `corrected`: some payments come again with another amount, or are deleted."""
    rng, lines = random.Random(7), ["id,card,shop,at,amount,label,done,result,sent,op"]
    for number in range(days * 30):
        at = START + timedelta(minutes=10 * rng.randrange(144 * days))
        done = at + timedelta(minutes=rng.choice([0, 10, 600, 3000]))
        card, shop = rng.choice(["", "c0", "c1", "c2"]), rng.choice(["", "a", "b"])
        result = rng.choice(["", f"{rng.gauss(0, 1):.3f}"])
        known = "" if rng.random() < 0.1 else f"{done:%Y-%m-%dT%H:%M}"
        for version in range(rng.choice([1, 1, 3]) if corrected else 1):
            sent = at + timedelta(hours=5 * version)
            op = "D" if version and rng.random() < 0.3 else "U"
            amount = rng.choice(["", "0.1", "-0.0", "1e16", "-3.7", f"{rng.random():.4f}"])
            lines.append(
                f"{number},{card},{shop},{at:%Y-%m-%dT%H:%M},{amount},{number % 2},{known},{result},{sent:%Y-%m-%dT%H:%M},{op}"
            )
    (folder / "tx.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rates = [f"c{place % 3},{START + timedelta(hours=7 * place)},{rng.random():.3f}" for place in range(40)]
    (folder / "rates.csv").write_text("\n".join(["card,since,rate", *rates]) + "\n", encoding="utf-8")


@pytest.fixture
def open_project(tmp_path):
    """The project, with `history` at a URL, in one of its environments."""
    opened = []

    def open_one(environment: str, history: str, *, corrected: bool = False):
        known = "{done: [result], 2h: [label], sent: [amount]}" if corrected else "{done: [result], 2h: [label]}"
        more = "\n    on_repeat: latest\n    deleted: {column: op, values: [D]}" if corrected else ""
        text = PROJECT.format(url=history, known=known, more=more)
        (tmp_path / "cumulant.yaml").write_text(text, encoding="utf-8")
        features = FEATURES.replace('own = tx.columns("amount")', 'own = tx.columns("shop")') if corrected else FEATURES
        features = features.replace('col("amount") / ', "") if corrected else features
        (tmp_path / "features.py").write_text(features, encoding="utf-8")
        opened.append(load(tmp_path, environment=environment))
        return opened[-1]

    yield open_one
    for project in opened:
        project.close()


@pytest.mark.parametrize("corrected", [False, True])
def test_a_project_s_table_is_that_of_the_embedded_engine(tmp_path, url, staging, open_project, corrected):
    files(tmp_path, 8, corrected=corrected)
    tables = []
    for environment in ("local", "spark"):
        project = open_project(environment, url, corrected=corrected)
        tables.append(project.tables().scan(featurize(project, principal=ME).table).collect())
    ours, theirs = tables
    assert theirs.schema == ours.schema
    assert theirs.height == ours.height > 200
    for column in ours.columns:
        pairs = zip(theirs[column], ours[column], strict=True)
        assert [pair for pair in pairs if not oracle.same(*pair)] == [], column
    assert list(staging.iterdir()) == []  # nothing of the rows is left


def test_errors_say_what_to_do(tmp_path, url, open_project):
    files(tmp_path, 1, corrected=False)
    away = open_project("spark", f"sc://127.0.0.1:{free_port()}?staging={tmp_path}")
    with pytest.raises(EngineUnavailableError, match="Spark does not answer"):
        featurize(away, principal=ME)
    asked = SparkEngine(url).query("SELECT no_such_function(1) AS n", {}, order_by="n", settings=SETTINGS)
    with pytest.raises(DataError, match=r"Spark failed: .*no_such_function"), asked:
        pass
    full = SparkEngine(url.partition("?")[0] + "?staging=/proc")
    with (
        pytest.raises(StorageError, match="cannot be handed over"),
        full.query("SELECT 1 AS n", {}, order_by="n", settings=SETTINGS),
    ):
        pass
