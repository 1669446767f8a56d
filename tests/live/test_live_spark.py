"""Features of the history on a real Spark: the public cases, a heavy key, a project's table, and what goes wrong."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import EngineUnavailableError, MissingPartError, OutOfMemoryError, StorageError
from cumulant.core.plan import Field, PredictAt, Source
from cumulant.data.row_columns import FROM, UNTIL
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.distributed.history import compute_in
from cumulant.features.distributed.layout import Division
from cumulant.features.offline.offline import compute
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.flows.features.feature_table import featurize
from cumulant.ports.access import Principal
from cumulant.ports.compute import HistorySession, WorkerStage
from cumulant.project.connections import check_connections
from cumulant.project.file.loading import load
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


#: the Python of workers: that of the tests, or, where a file says so, one with all of its packages but this program
PYTHON = """#!/bin/sh
if [ -e "{folder}/without" ]; then PYTHONPATH="{folder}/packages" exec "{plain}" "$@"; fi
exec "{python}" "$@"
"""


@pytest.fixture(scope="module")
def staging(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("staging")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    (folder / "packages").mkdir()
    for entry in Path(np.__file__).parents[1].iterdir():
        if not entry.name.startswith("cumulant") and entry.suffix != ".pth":
            (folder / "packages" / entry.name).symlink_to(entry)
    program = folder / "python"
    plain = Path(sys.executable).resolve()
    program.write_text(PYTHON.format(folder=folder, plain=plain, python=sys.executable), encoding="utf-8")
    program.chmod(0o700)
    return program


@pytest.fixture(scope="module")
def url(tmp_path_factory, staging, python) -> Iterator[str]:
    try:
        with spark_server(tmp_path_factory.mktemp("spark"), python=str(python)) as port:
            yield f"sc://127.0.0.1:{port}?staging={staging}"
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def session(url) -> Iterator[HistorySession]:
    with SparkEngine(url).session() as opened:
        yield opened


def apart(rows: Sequence[Row], number: int) -> pl.DataFrame:
    """Rows of a case, whose cards are no other case's."""
    versions = dict.fromkeys((FROM, UNTIL), pl.Int64) if any(FROM in row for row in rows) else {}
    frame = pl.DataFrame(rows, schema={column: TYPES[dtype] for column, dtype in DTYPES.items()} | versions)
    return frame.with_columns(card=pl.lit(f"{number} ") + pl.col("card"))


class TestSpark(PlanConformance):
    """The cases of one plan are computed together."""

    answers: ClassVar[dict[tuple[str, int], list[Row]]] = {}

    @pytest.fixture(autouse=True)
    def _engine(self, session) -> None:
        self.session = session

    def features(self, case: PlanCase) -> list[Row]:
        if (case.kind, case.seed) not in self.answers:
            cases = [plan_case(kind, case.seed) for kind in KINDS]
            self._ask([each for each in cases if each.plan == case.plan])
        return self.answers[case.kind, case.seed]

    def _ask(self, cases: Sequence[PlanCase]) -> None:
        plan = cases[0].plan
        frames = {
            of: pl.concat(apart(case.accepted[of], number) for number, case in enumerate(cases)) for of in plan.sources
        }
        rows = pl.concat(apart(case.queries, number) for number, case in enumerate(cases))
        answers = pl.concat(compute_in(self.session, plan, frames, rows=rows)).to_dicts()
        for case in cases:
            count = len(case.queries)
            self.answers[case.kind, case.seed], answers = answers[:count], answers[count:]


def test_a_key_with_100_000_rows_in_one_window_has_the_values_of_the_embedded_engine(session):
    rows = 100_000
    random = np.random.default_rng(7)
    at = random.integers(0, 3_600_000_000, rows) + 1_700_000_000_000_000
    tx = pl.DataFrame(
        {
            "id": np.arange(rows),
            "card": np.where(random.random(rows) < 0.95, "heavy", "light"),
            "at": pl.Series(at).cast(TYPES["time"]),
            "amount": random.random(rows),
        }
    )
    fields = tuple(Field(name, DTYPES[name]) for name in tx.columns)
    card = source("tx").by("card")
    features = {"n": card.count(window="1h"), "mean": card.mean("amount", window="1h")}
    plan = compile_plan(
        collect(features), {"tx": Source("tx", ("id",), "at", fields)}, entity="tx", predict_at=PredictAt("at")
    )
    division = Division(partition=4 << 20, slice=4 << 20, least_rows=20_000)
    computed = pl.concat(compute_in(session, plan, {"tx": tx}, division=division))
    assert computed["n_1h"].max() > 90_000
    assert computed.equals(compute(plan, {"tx": tx}))


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
    tables, before = [], set(staging.iterdir())
    for environment in ("local", "spark"):
        project = open_project(environment, url, corrected=corrected)
        tables.append(project.tables().scan(featurize(project, principal=ME).table).collect())
    ours, theirs = tables
    assert ours.height > 200
    assert theirs.equals(ours)
    assert theirs.schema == ours.schema
    assert set(staging.iterdir()) <= before  # nothing of the rows is left


def test_errors_say_what_to_do(tmp_path, url, open_project):
    files(tmp_path, 1, corrected=False)
    away = open_project("spark", f"sc://127.0.0.1:{free_port()}?staging={tmp_path}")
    with pytest.raises(EngineUnavailableError, match="Spark does not answer"):
        featurize(away, principal=ME)
    full = SparkEngine(url.partition("?")[0] + "?staging=/proc")
    with pytest.raises(StorageError, match="cannot be handed over"), full.session():
        pass


def test_errors_of_workers_are_those_of_the_caller(session, tmp_path):
    check = "cumulant.drivers.spark.worker:check_folder"
    with pytest.raises(StorageError, match="does not see") as raised:
        session.run([b""], [WorkerStage(check, {"folder": str(tmp_path / "other" / "x")}, 1)])
    assert raised.value.subject == "history"
    with pytest.raises(MissingPartError, match="lacks cumulant, or has another version") as missing:
        session.run([b""], [WorkerStage("cumulant.no_such:function", {}, 1)])
    assert "pip install cumulant==" in str(missing.value.hint)
    with pytest.raises(OutOfMemoryError, match="a Python worker of Spark ended"):
        session.run([b""], [WorkerStage("signal:raise_signal", 9, 1)])  # type: ignore[arg-type]  # what is called
    (block,) = session.run([b""], [WorkerStage(check, {"folder": str(tmp_path)}, 1)])
    assert block.data == b""  # the session goes on


def test_workers_without_this_program_say_what_to_install(url, python, open_project):
    project = open_project("spark", url)

    def checked():
        """As `cumulant doctor` checks it."""
        return next(each for each in check_connections(project, limit=60) if each.setting == "history").error

    (python.parent / "without").touch()
    try:
        missing = checked()
    finally:
        (python.parent / "without").unlink()
    assert isinstance(missing, MissingPartError)
    assert "lacks cumulant" in missing.message
    assert "pip install cumulant==" in str(missing.hint)
    assert checked() is None
