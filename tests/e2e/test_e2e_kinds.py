"""Every kind of question and data, small: trained, registered, and served with the answers of the offline engine."""

import json
from datetime import UTC, datetime

import httpx
import numpy as np
import polars as pl
import pytest
from e2e_support import hashes, opened

from cumulant.core.errors import DefinitionError, UserCodeError
from cumulant.data.snapshot import scan
from cumulant.data.views import read_quarantine
from cumulant.drivers.mlflow.engine import load_mlflow
from cumulant.drivers.mlflow.models import signature
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.registry.lineage import reproduce
from cumulant.flows.registry.version_servable import describe_row_servable
from cumulant.flows.reports.report import report
from cumulant.flows.serving import serve
from cumulant.flows.serving.predict import predict
from cumulant.flows.training.train import train

pytestmark = pytest.mark.slow

ROWS = 1200
START = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp() * 1_000_000)
MARKS = {"low": 1, "middle": 2, "high": 3}
SEARCH = {"trials": 2, "time": None, "folds": 2, "ensemble": 1}


def visits(rows: int = ROWS, *, seed: int = 5) -> pl.DataFrame:
    """Visits with a number, a flag, two texts (one with many values), missing values, and outcomes of each kind."""
    rng = np.random.default_rng(seed)
    size, night = rng.normal(50, 20, rows), rng.random(rows) < 0.4
    colour = rng.choice(["red", "green", "blue"], rows, p=[0.5, 0.3, 0.2])
    score = 0.05 * (size - 50) + 1.2 * night + 1.5 * (colour == "red") - 0.8 + rng.normal(0, 0.7, rows)
    frame = pl.DataFrame(
        {
            "visit": np.arange(rows, dtype=np.int64),
            "at": pl.Series(START + np.sort(rng.integers(0, 40 * 86_400, rows)) * 1_000_000).cast(
                pl.Datetime("us", "UTC")
            ),
            "guest": [f"guest-{number:04d}" for number in rng.integers(0, rows // 6, rows)],
            "size": size,
            "night": night,
            "colour": colour,
            "town": [f"town {number}" for number in rng.integers(0, 400, rows)],
            "score": score,
            "bought": score > 0.5,
            "answer": np.where(score > 0.5, "yes", "no"),
            "grade": np.select([score < -0.5, score < 0.8], ["low", "middle"], "high"),
            "loss": np.round(np.abs(size), 2),
        }
    )
    gone = rng.random((rows, 3)) < 0.08
    return frame.with_columns(
        pl.when(pl.Series(gone[:, place])).then(None).otherwise(pl.col(name)).alias(name)
        for place, name in enumerate(("size", "night", "colour"))
    )


def make(
    folder,
    frame,
    *,
    target,
    features="size, night, colour, town",
    source=None,
    training=None,
    evaluation=None,
    serving=None,
    more="",
):
    """Write a project over one table; sections are given as they would stand in the file."""
    (folder / "data").mkdir(parents=True)
    frame.write_parquet(folder / "data" / "visits.parquet")
    section = {
        "version": 1,
        "model": {"name": "kind", "owner": "kinds@example.com", "purpose": "Try every kind"},
        "data": {"visits": {"path": "data/visits.parquet", "key": "visit", **(source or {})}},
        "training": {"target": target, **SEARCH, **(training or {})},
        "evaluation": evaluation or {},
        "serving": serving or {},
    }
    (folder / "cumulant.yaml").write_text(json.dumps(section, indent=1))
    columns = ", ".join(f'"{name.strip()}"' for name in features.split(","))
    (folder / "features.py").write_text(
        f'from cumulant.features import col, source\n\nvisits = source("visits")\nrow = visits.columns({columns})\n{more}'
    )
    return folder


def strange(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows as callers send them: some of the known, then missing values and texts that training never saw."""
    rows = frame.tail(60)
    empty = rows.head(5).with_columns(size=None, night=None, colour=None)
    unseen = rows.head(5).with_columns(colour=pl.lit("ultraviolet"), town=pl.lit("Ürümqi – 乌鲁木齐"))
    return pl.concat([rows, empty, unseen], how="vertical_relaxed")


def check_served(project, rows: pl.DataFrame) -> pl.DataFrame:
    """The server answers `rows` as the offline engine does; these answers."""
    who = project.principal()
    offline = predict(project, "kind", rows, principal=who)
    service = serve.prepare_service(project, "kind", principal=who)
    with serve.run_server(service) as running:
        served = predict(project, "kind", rows, principal=who, url=running.url)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cumulant.flows.serving.predict._BLOCK", 7)
        assert predict(project, "kind", rows, principal=who).equals(offline)
    assert offline.height == rows.height
    assert offline.columns == [name for name in served.columns if name != "state_age"]
    for name in offline.columns:
        assert_close(offline[name], served[name])
    return offline


def assert_close(left: pl.Series, right: pl.Series) -> None:
    if left.dtype.is_numeric():
        assert np.abs(left.to_numpy() - right.to_numpy()).max() <= 1e-6
    elif isinstance(left.dtype, pl.Struct):
        for name in left.struct.fields:
            assert_close(left.struct.field(name), right.struct.field(name))
    else:
        assert left.to_list() == right.to_list()


def trained(folder, **options):
    with opened(folder) as project:
        return train(project, principal=project.principal(), **options)


def test_a_number(tmp_path):
    frame = visits()
    found = trained(make(tmp_path / "kind", frame, target="score"))
    assert found.training.task == "regression"
    assert any("rows have no time, so 2 random folds" in note for note in found.notes), found.notes
    assert "by the hash of what identifies them" in found.split.how
    assert {"mae", "rmse", "r2"} <= set(found.evaluation.metrics)
    with opened(tmp_path / "kind") as project:
        answers = check_served(project, strange(frame))
    assert answers["prediction"].dtype == pl.Float64
    assert found.verdict.word == "better"


@pytest.mark.parametrize(
    ("target", "task", "values"),
    [
        (pl.col("bought").cast(pl.Int64), "binary", {0, 1}),
        (pl.col("grade").replace_strict(MARKS), "multiclass", {1, 2, 3}),
    ],
    ids=["two", "several"],
)
def test_classes_that_are_whole_numbers(tmp_path, target, task, values):
    frame = visits().with_columns(target.alias("mark"))
    make(tmp_path / "kind", frame, target="mark", training={"task": task})
    found = trained(tmp_path / "kind")
    assert found.training.task == task
    with opened(tmp_path / "kind") as project:
        answers = check_served(project, strange(frame))
        version = project.registry().resolve("kind")
        servable = describe_row_servable(project, version)
        kind = str(signature(load_mlflow(), servable).outputs.input_types()[0])
    assert answers["prediction"].dtype == pl.Int64
    assert set(answers["prediction"]) <= values
    assert kind == "DataType.long"
    # What the rows have besides the request's fields, and why a request does not carry it.
    assert servable.unread["mark"] == "target"
    assert servable.unread["guest"] == "unused"
    assert not servable.unread.keys() & {"size", "night", "colour", "town"}


def test_several_classes(tmp_path):
    frame = visits()
    found = trained(make(tmp_path / "kind", frame, target="grade"))
    assert found.training.task == "multiclass"
    assert found.training.classes == ("high", "low", "middle")
    with opened(tmp_path / "kind") as project:
        answers = check_served(project, strange(frame))
    chances = answers["probabilities"].struct.unnest()
    assert set(chances.columns) == {"high", "low", "middle"}
    assert np.allclose(chances.to_numpy().sum(axis=1), 1, atol=1e-5)
    assert set(answers["prediction"]) <= {"high", "low", "middle"}


def test_yes_or_no_in_words_without_time(tmp_path):
    frame = visits()
    found = trained(make(tmp_path / "kind", frame, target="answer"))
    assert found.training.task == "binary"
    assert any("random folds with classes in their shares" in note for note in found.notes), found.notes
    with opened(tmp_path / "kind") as project:
        answers = check_served(project, strange(frame))
    assert set(answers["prediction"]) == {"no", "yes"}


def test_groups_stay_whole(tmp_path):
    frame = visits()
    found = trained(make(tmp_path / "kind", frame, target="bought", evaluation={"clusters": "guest"}))
    assert any("random folds of whole groups" in note for note in found.notes), found.notes
    guests = frame["guest"].n_unique()
    # Intervals count guests, and a guest is in the test with all visits or with none.
    assert found.evaluation.metrics["log_loss"].clusters < 0.5 * guests
    assert found.split.train + found.split.test == ROWS
    with opened(tmp_path / "kind") as project:
        check_served(project, strange(frame))


def test_a_capacity_and_costs_that_stand_in_columns(tmp_path):
    frame = visits()
    folder = make(
        tmp_path / "kind",
        frame,
        target="bought",
        source={"event_time": "at", "known_time": {"2d": "bought"}},
        training={
            "cost": {"false_negative": "loss", "false_positive": 4},
            "threshold": {"alerts": "3/day"},
            "calibration": "sigmoid",
            "trainers": ["naive", "lightgbm"],
        },
        evaluation={"test": "10d", "gate": {"average_precision": {"margin": 0.01}, "cost": {"margin": 0}}},
        more='guest_n = visits.by("guest").count(window="14d")\nguest_size = visits.by("guest").mean("size", window="14d")\n',
    )
    found = trained(folder)
    assert found.training.calibration.kind == "sigmoid"
    assert found.training.threshold_text.startswith("3/day on out-of-fold rows of")
    assert found.evaluation.metrics["cost"].value < found.naive.metrics["cost"].value
    with opened(folder) as project:
        rows = strange(frame)
        answers = check_served(project, rows)
        days = rows["at"].dt.date().n_unique()
        assert answers["prediction"].to_list() == [p >= found.training.threshold for p in answers["probability"]]
        assert 0 < answers["prediction"].sum() < rows.height
        assert days


def test_a_threshold_that_is_given(tmp_path):
    frame = visits()
    found = trained(
        make(tmp_path / "kind", frame, target="bought", training={"threshold": 0.9, "trainers": ["linear"]})
    )
    assert found.training.threshold == 0.9
    with opened(tmp_path / "kind") as project:
        answers = check_served(project, strange(frame))
    assert answers["prediction"].to_list() == [p >= 0.9 for p in answers["probability"]]


def test_reasons_of_a_linear_model_are_its_weights_times_the_distances_from_the_usual_row(tmp_path):
    """Trained, packaged, served: what the server says against the linear model that was trained."""
    frame = visits()
    said = {"reasons": {"count": 2, "when": "decision", "codes": {"size": "The party is large"}}}
    folder = make(tmp_path / "kind", frame, target="bought", training={"trainers": ["linear"]}, serving=said)
    trained(folder)
    rows = frame.filter(pl.all_horizontal(pl.col("size", "night", "colour").is_not_null())).tail(40)
    with opened(folder) as project:
        who = project.principal()
        version = project.registry().resolve("kind")
        servable = describe_row_servable(project, version)
        reference = servable.reasons.reference
        assert reference["colour"] == "red"
        assert reference["night"] is False
        assert abs(reference["size"] - 50) < 5
        service = serve.prepare_service(project, "kind", principal=who)
        with serve.run_server(service) as running:
            url = f"{running.url}/v1/models/kind/predict"
            fields = rows.select("size", "night", "colour", "town").to_dicts()
            usual = httpx.post(url, json=fields).json()["predictions"]
            asked = httpx.post(url, json={"rows": fields, "reasons": 4}).json()["predictions"]
            # The oracle: every feature of every row alone put to its reference, scored as any other row.
            swapped = [row | {name: reference[name]} for row in fields for name in row]
            other = iter(httpx.post(f"{url}?reasons=0", json=swapped).json()["predictions"])
            assert predict(project, "kind", rows, principal=who, url=running.url).height == len(rows)
    assert {one["prediction"] for one in usual} == {True, False}
    for row, plain, full in zip(fields, usual, asked, strict=True):
        assert ("reasons" in plain) is plain["prediction"]
        expected = {name: logit(full) - logit(next(other)) for name in row}
        found = {one["feature"]: one["contribution"] for one in full["reasons"]}
        for name, value in expected.items():
            assert abs(found.get(name, 0.0) - value) < 1e-9
        assert list(found) == sorted(found, key=lambda name: -abs(found[name]))
        assert plain.get("reasons", full["reasons"][:2]) == full["reasons"][:2]
    slopes = {
        one["contribution"] / (row["size"] - reference["size"])
        for row, full in zip(fields, asked, strict=True)
        for one in full["reasons"]
        if one["feature"] == "size"
    }
    assert len(slopes) > 30
    assert max(slopes) - min(slopes) < 1e-4 * abs(max(slopes))  # one weight; rows are float32
    codes = {one["feature"]: one.get("code") for full in asked for one in full["reasons"]}
    assert codes["size"] == "The party is large"
    assert codes["colour"] is None


def logit(answer: dict[str, float]) -> float:
    return float(np.log(answer["probability"] / (1 - answer["probability"])))


@pytest.mark.parametrize(
    ("target", "reasons", "words"),
    [("score", {"when": "decision"}, "true or false"), ("bought", {"codes": {"sise": "?"}}, "no feature")],
)
def test_reasons_that_cannot_be_are_refused_before_anything_is_fitted(tmp_path, target, reasons, words):
    folder = make(tmp_path / "kind", visits(), target=target, serving={"reasons": reasons})
    with pytest.raises(DefinitionError, match=words):
        trained(folder)


FOREST = """\
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline


def forest(X, y, seed):
    return make_pipeline(SimpleImputer(), RandomForestClassifier(20, max_depth=6, random_state=seed)).fit(X, y)


def broken(X, y):
    raise ValueError(f"no good at all: {len(X)} rows")
"""


def test_a_trainer_of_the_users_own(tmp_path):
    frame = visits()
    folder = make(tmp_path / "kind", frame, target="bought", training={"trainers": ["trainers.py:forest"]})
    (folder / "trainers.py").write_text(FOREST)
    found = trained(folder)
    assert found.training.trainer == "trainers.py:forest"
    with opened(folder) as project:
        check_served(project, strange(frame))
        who = project.principal()
        assert reproduce(project, "kind", principal=who).identical
        (folder / "trainers.py").write_text(FOREST.replace("max_depth=6", "max_depth=3"))
        other = reproduce(project, "kind", principal=who)
        assert not other.identical
        assert "the code of trainers.py:forest is another now" in other.differences
    # Another code is another training.
    again = trained(folder)
    assert again.model.version == "2"


def test_a_trainer_that_raises_loses_nothing(tmp_path):
    folder = make(tmp_path / "kind", visits(), target="bought", training={"trainers": ["linear", "trainers.py:broken"]})
    (folder / "trainers.py").write_text(FOREST)
    with pytest.raises(UserCodeError, match=r"trainers\.py, line 11: no good at all"):
        trained(folder)
    (folder / "trainers.py").write_text(FOREST.replace("    raise", "    return forest(X, y, 0)\n    raise"))
    found = trained(folder)
    assert found.reused == ("data visits", "features")


PREPARE = """
import pandas as pd


def prepare(raw: pd.DataFrame) -> pd.DataFrame:
    raw = raw[raw["size"].isna() | (raw["size"] > 0)]
    return raw.assign(colour=raw["colour"].str.upper(), loss=raw["loss"] * 2)
"""


def test_cleaning_written_with_pandas(tmp_path):
    frame = visits()
    folder = make(
        tmp_path / "kind",
        frame,
        target="bought",
        source={"event_time": "at", "prepare": "features.py:prepare"},
        more=PREPARE,
    )
    found = trained(folder)
    snapshot = found.validation.snapshots["visits"]
    dropped = frame.filter(pl.col("size") <= 0).height
    assert dropped > 0
    assert (snapshot.rows_in, snapshot.rows_dropped, snapshot.rows_quarantined) == (ROWS, dropped, 0)
    with opened(folder) as project:
        rows = scan(newest_snapshot(project, "visits"), project.tables()).collect()
        assert set(rows["colour"].drop_nulls()) == {"RED", "GREEN", "BLUE"}
        check_served(project, strange(rows.select("at", "size", "night", "colour", "town")))


FORMATS = ("html", "md", "json")
PEOPLE = ("Ada-Lovelace", "Grace-Hopper", "Mary-Somerville", "Emmy-Noether")


def test_personal_values_show_nowhere(tmp_path):
    frame = visits()
    rng = np.random.default_rng(0)
    person = rng.integers(0, len(PEOPLE), ROWS)
    frame = frame.with_columns(
        guest=pl.Series([PEOPLE[number] for number in person]),
        mail=pl.Series([f"{PEOPLE[number].lower()}@mail.example" for number in person]),
        born=pl.Series(19_000_000 + rng.integers(0, 4, ROWS) * 7_919 + 1_357),
    )
    # Some rows that the contract refuses, each with somebody's name.
    frame = frame.with_columns(pl.when(pl.col("visit") < 8).then(-5.0).otherwise("loss").alias("loss"))
    folder = make(
        tmp_path / "kind",
        frame,
        target="bought",
        features="size, night, colour, guest, born",
        source={
            "event_time": "at",
            "personal": ["guest", "mail", "born"],
            "rules": {"loss": {"min": 0}, "mail": {"pattern": ".+@.+"}, "guest": {"in": list(PEOPLE)}},
        },
        evaluation={"slices": ["guest", "colour"]},
        more=(
            'shouted = col("mail").str.lower()\n'
            'guest_n = visits.by("guest").count(window="14d")\n'
            'guest_size = visits.by("mail").mean("size", window="14d")\n'
        ),
    )
    secrets = [word.encode() for name in PEOPLE for word in (name, name.lower())]
    secrets += [str(19_000_000 + number * 7_919 + 1_357).encode() for number in range(4)]
    found = trained(folder)
    assert any("guest is text of a personal column" in note for note in found.notes), found.notes
    assert any("shouted is text of a personal column" in note for note in found.notes), found.notes
    with opened(folder) as project:
        who = project.principal()
        rows = frame.tail(40)
        check_served(project, rows)
        state = project.state
        servable = describe_row_servable(project, found.model)
        assert servable.example["guest"].startswith("#")
        assert servable.example["born"] is None
        assert {one.feature for one in servable.inputs} == {
            "size",
            "night",
            "colour",
            "born",
            "guest_n_14d",
            "guest_size_14d",
        }
        refused = read_quarantine(newest_snapshot(project, "visits"), project.tables(), project.salt())
        assert refused.height == 8
        pages = [report(project, found.run, out=folder / f"report.{suffix}", principal=who) for suffix in FORMATS]
        shown = [str(refused.to_dicts()).encode(), *(page.read_bytes() for page in pages)]
        shown += [json.dumps([event.data for event in project.journal().events()], default=str).encode()]
        slices = {one.value for one in found.evaluation.slices if one.column == "guest"}
        assert len(slices) == len(PEOPLE)
        assert all(value.startswith("#") for value in slices)
    # Snapshots, feature tables and the server's stored state are the data themselves; all else is looked through.
    places = [state / name for name in hashes(state) if not name.startswith(("tables/", "online"))]
    assert {path.name for path in places} >= {
        "journal.db",
        "mlflow.db",
        "MLmodel",
        "servable.json",
        "input_example.json",
    }
    shown += [path.read_bytes() for path in places]
    for text in shown:
        for secret in secrets:
            assert secret not in text, (secret, text[max(0, text.index(secret) - 200) :][:400])
