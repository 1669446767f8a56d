"""`cumulant monitor backtest` on small projects: a break in the middle, numbers, and what cannot be replayed."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest
from e2e_support import opened

from cumulant.cli.app import run
from cumulant.core.units import moment
from cumulant.flows.monitoring.backtest.backtest_record import stored_backtests
from cumulant.flows.registry.lineage import record_of, reproduce
from cumulant.flows.training.train import train
from cumulant.monitoring.policy import HistoryPolicy
from cumulant.ports.access import Principal

pytestmark = pytest.mark.slow

START, DAY, DAYS, SIZE = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1), 60, 200
BREAK = 35
SEARCH = "trials: 1, time: null, folds: 2, ensemble: 1, trainers: [linear]"


def visits():
    """60 days of 200 visits; from the 36th day on large ones no longer buy, and small ones do."""
    generator = np.random.default_rng(6)
    n = DAYS * SIZE
    day, x = np.arange(n) // SIZE, generator.normal(size=n)
    noise = generator.normal(size=n)
    bought = generator.random(n) < np.where((x > 0) == (day < BREAK), 0.85, 0.15)
    return pl.DataFrame(
        {
            "visit": np.arange(n),
            "at": [START + timedelta(days=row // SIZE, minutes=7 * (row % SIZE)) for row in range(n)],
            "size": x,
            "bought": bought,
            "grade": np.select([x + noise < -0.5, x + noise < 0.5], ["low", "middle"], "high"),
            "spent": 10 + 3 * np.where(day < BREAK, x, -x) + noise,
            "nothing": pl.Series([None] * n, dtype=pl.Boolean),
        }
    )


def project(folder, *, target="bought", timed=True, more=""):
    folder.mkdir()
    visits().write_parquet(folder / "visits.parquet")
    (folder / "features.py").write_text(
        'from cumulant.features import source\n\nrow = source("visits").columns("size")\n'
    )
    time = "\n    event_time: at\n    known_time: {2d: [bought, grade, spent, nothing]}" if timed else ""
    (folder / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: shop}\ndata:\n  visits:\n    path: visits.parquet\n    key: visit"
        + time
        + f"\nfeatures: features.py\ntraining: {{target: {target}, {SEARCH}}}\nevaluation: {{test: 10d}}\n"
        + more
    )
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return project(tmp_path_factory.mktemp("backtest") / "shop")


@pytest.fixture
def cumulant(capfd):
    """A command line in this process: its exit code, output and errors."""

    def call(folder, *words):
        capfd.readouterr()
        code = run(["monitor", "backtest", "--project", str(folder), *words])
        found = capfd.readouterr()
        return code, found.out, found.err

    return call


def document(ended):
    code, out, err = ended
    assert code == 0, err
    return json.loads(out)


def test_the_default_rule_trains_once_after_the_break(shop, cumulant):
    told = document(
        cumulant(shop, "--every", "1d", "--first", "8", "--memory", "8d", "--history", "growing,8d", "--json")
    )
    assert (told["windows"], told["first"], told["delay"], told["rows"]) == (60, 8, 2, 12_000)
    assert (told["trainer"], told["parameters_of"], told["loss"], told["history"]) == ("linear", None, "brier", "8d")
    rules = {one["rule"]: one for one in told["rules"]}
    assert list(rules) == ["default", "never", "each month", "at every alarm"]
    default, never = rules["default"], rules["never"]
    first, *others = (datetime.fromisoformat(when) for when in default["trainings"])
    # The labels of the first day after the break are there two days later.
    assert START + (BREAK + 3) * DAY <= first <= START + (BREAK + 8) * DAY
    assert len(others) <= 1
    assert never["trainings"] == []
    assert default["loss"] < never["loss"] - 0.02
    assert default["losses"][: BREAK - 10] == never["losses"][: BREAK - 10]
    assert default["looks"] == len(default["losses"]) == 60 - 8 - 2
    assert never["difference"]["low"] > 0
    for one in told["rules"]:
        if one["better"]:  # by no more loss and no more trainings; whether surely is what `difference` says
            assert one["loss"] <= default["loss"] * 1.001
            assert len(one["trainings"]) <= len(default["trainings"])
    assert [one["history"] for one in told["histories"]] == ["8d", "growing"]
    assert [one["best"] for one in told["histories"]] == [True, False]
    better = any(one["better"] for one in told["rules"])
    assert told["sentences"][1].startswith("This rule does better" if better else "No listed rule has less loss")
    with opened(shop) as project:
        newest = stored_backtests(project, principal=Principal("user:ada"))[0].result
    assert msgspec.json.decode(msgspec.json.encode(newest)) == told


def test_a_person_reads_a_table_and_a_conclusion(shop, cumulant):
    code, out, err = cumulant(shop, "--first", "8", "--memory", "half-life:4d")
    assert code == 0, err
    for words in (
        "bought: 12,000 labelled rows in 60 windows of 1d (2026-01-01 to 2026-03-02); the first 8 train the first model",
        "labels 2 windows late",
        "at each training: linear, on a history that is of a half-life of 4d",
        "Brier loss",
        "at every alarm",
        "loss over time (* a training)",
        "The default rule would",
        "the project trains by hand only",
    ):
        assert words in " ".join(out.split())


def test_the_rule_of_the_project_comes_first_and_the_champion_says_what_is_fitted(tmp_path, cumulant):
    """Also: a training that the rule starts learns from the history that the project says."""
    more = (
        "monitoring: {retrain: {every: 20d, cool_down: 0d, least_labels: 0, history: {window: 20d, half_life: 10d}}}\n"
    )
    folder = project(tmp_path / "shop", more=more)
    with opened(folder) as held:
        made = train(held, principal=held.principal(), history=held.policies.monitoring.history)
        record = record_of(held, made.model)
        assert record.training.half_life == "10d"
        newest = START + (DAYS - 1) * DAY + timedelta(minutes=7 * (SIZE - 1))
        assert moment(record.training.since) == newest - 20 * DAY
        assert made.split.train_from >= newest - 20 * DAY
        assert reproduce(held, made.model.uri, principal=held.principal()).identical
        alike = train(held, principal=held.principal(), history=HistoryPolicy(window=20 * DAY))
        assert record_of(held, alike.model).servable != record.servable
    told = document(cumulant(folder, "--every", "1d", "--first", "8", "--json"))
    own = told["rules"][0]
    assert own["rule"] == "the project's"
    assert [datetime.fromisoformat(when) for when in own["trainings"]] == [START + day * DAY for day in (30, 50)]
    assert told["rules"][1]["rule"] == "default"
    assert (told["history"], told["parameters_of"].split("/")[0]) == ("20d+half-life:10d", "models:")


def test_numbers_are_replayed_too(tmp_path, cumulant):
    told = document(cumulant(project(tmp_path / "shop", target="spent"), "--every", "2d", "--memory", "8d", "--json"))
    assert (told["task"], told["loss"]) == ("regression", "squared_error")
    rules = {one["rule"]: one for one in told["rules"]}
    assert rules["default"]["loss"] < rules["never"]["loss"]
    assert len(rules["default"]["trainings"]) >= 1


@pytest.mark.parametrize(
    ("asked", "words", "code", "says"),
    [
        ({}, ["--every", "7d"], 2, "9 windows of 7d are too few: 2 train the first model, labels come 1 window late"),
        ({}, ["--first", "55"], 2, "too few: 55 train the first model"),
        ({}, ["--since", "2027-01-01"], 2, "no row with a label lies there"),
        ({}, ["--memory", "lots"], 2, '"lots" is no kind of history'),
        ({}, ["--every", "0d"], 2, "--every may not be 0"),
        ({}, ["--every", "weekly"], 2, '"weekly" is not a duration'),
        ({"target": "grade"}, [], 2, "grade has 3 classes"),
        ({"target": "nothing"}, [], 2, "the target nothing is null in every row"),
        ({"timed": False}, [], 2, "visits has no event time"),
    ],
)
def test_what_cannot_be_replayed_is_told(tmp_path, cumulant, asked, words, code, says):
    ended = cumulant(project(tmp_path / "shop", **asked), *words)
    assert (ended[0], says in " ".join(ended[2].split())) == (code, True), ended[2]
