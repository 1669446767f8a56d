"""Decisions reach training rows by key and moment, as often as they should, and no further."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.core.expr import Column
from cumulant.core.masking import HIDDEN, mask
from cumulant.core.plan import FeaturePlan, Field, PredictAt, Source
from cumulant.flows.features.task import Task
from cumulant.flows.review.views import _hashed
from cumulant.flows.training.training_labels import reviewed_labels
from cumulant.outcomes.prediction_refs import key_ref, request_ref
from cumulant.training.dataset import training_set
from cumulant.training.policy import TrainingPolicy
from cumulant.training.search import sampling

SALT = b"pepper"
START = datetime(2026, 3, 1, tzinfo=UTC)
FIELDS = (
    Field("card", "str", personal=True),
    Field("number", "int"),
    Field("at", "time"),
    Field("bad", "bool"),
)
SOURCE = Source(name="pay", key=("card", "number"), event_time="at", fields=FIELDS)
PLAN = FeaturePlan(
    entity="pay", predict_at=PredictAt("at", -3_600_000_000), sources={"pay": SOURCE}, features=(), request=FIELDS[:3]
)
TASK = Task(entity="pay", target=Column("bad"), predict_at=PLAN.predict_at, plan=PLAN)
RAW = pl.DataFrame(
    {
        "card": ["c1", "c1", "c2", None, "c3"],
        "number": [1, 2, 1, 4, 5],
        "at": [START + timedelta(days=day) for day in (0, 1, 1, 2, 3)],
        "bad": [True, None, None, None, None],
    },
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)
AT = RAW.select((pl.col("at") - pl.duration(hours=1)).alias("at"))["at"]


def ref(card, number, day):
    key = json.dumps([mask(card, SALT), str(number)], separators=(",", ":"))
    return key_ref(key, START + timedelta(days=day) - timedelta(hours=1))


def table(*rows):
    found = [{"ref": one, "label": json.dumps(label), "weight": weight, "case": "x"} for one, label, weight in rows]
    return pl.DataFrame(found, schema={"ref": pl.String, "label": pl.String, "weight": pl.Float64, "case": pl.String})


def test_a_row_without_a_label_takes_the_one_of_its_key_and_moment():
    told = table((ref("c1", 1, 0), False, 9.0), (ref("c2", 1, 1), True, 5.0), (ref("c3", 5, 1), True, 7.0))
    found = reviewed_labels(told, RAW, TASK, AT, target=RAW["bad"], salt=SALT)
    assert found.used.to_list() == [False, False, True, False, False]
    assert found.weight.to_list() == [1, 1, 5, 1, 1]
    known = RAW["at"] + timedelta(days=7)
    target, since = found.fill(RAW["bad"], known, AT)
    assert target.to_list() == [True, None, True, None, None]
    assert since[2] == AT[2]
    assert since[0] == known[0]


def test_another_salt_knows_no_row():
    found = reviewed_labels(table((ref("c2", 1, 1), True, 5.0)), RAW, TASK, AT, target=RAW["bad"], salt=b"salt")
    assert not found.used.any()
    assert not reviewed_labels(
        table((ref("c2", 1, 1), True, 5.0)), RAW, TASK, None, target=RAW["bad"], salt=SALT
    ).used.any()


def test_a_row_is_found_by_all_that_was_asked_where_the_request_has_no_key():
    asked = tuple(field for field in FIELDS[:3] if field.name != "number")
    task = replace(TASK, plan=msgspec.structs.replace(PLAN, request=asked))
    logged = {"at": START + timedelta(days=2), "card": None}
    alike = RAW.with_columns(at=pl.Series([START + timedelta(days=2)] * 5, dtype=pl.Datetime("us", "UTC")))
    moment = START + timedelta(days=2) - timedelta(hours=1)
    told = table((request_ref(logged, asked, moment, SALT), True, 3.0))
    found = reviewed_labels(told, RAW, task, AT, target=RAW["bad"], salt=SALT)
    assert found.used.to_list() == [False, False, False, True, False]
    assert found.weight.to_list() == [1, 1, 1, 3, 1]
    # A request that has changed since is found by what was asked then; what was asked does not stand in the reference.
    assert reviewed_labels(told, RAW, TASK, AT, target=RAW["bad"], salt=SALT).used.to_list() == found.used.to_list()
    assert "2026" not in told["ref"][0]
    # Two rows that were asked alike: whose the answer is nobody knows. A hidden value could be anyone's.
    same = alike.with_columns(card=pl.lit(None, pl.String))
    at = same.select((pl.col("at") - pl.duration(hours=1)).alias("at"))["at"]
    assert not reviewed_labels(
        told, same, task, at, target=pl.Series([None] * 5, dtype=pl.Boolean), salt=SALT
    ).used.any()
    assert request_ref({"card": HIDDEN, "at": logged["at"]}, asked, moment, SALT) is None


@pytest.mark.parametrize("most", [40, 12])
def test_weights_of_rows_reach_the_trainers(most):
    features = pl.DataFrame({"x": np.arange(40.0)})
    target, weight = pl.Series("y", [0, 1] * 20), pl.Series("w", np.arange(40.0) + 1)
    spec = TrainingPolicy(target="y")
    rows = training_set(features, target, spec=spec, reviewed=pl.Series([True] + [False] * 39), weight=weight)
    assert (rows.reviewed.sum(), rows.take(np.array([0, 3])).weight.tolist()) == (1, [1, 4])
    matrix = features.to_numpy().astype(np.float32)
    found = sampling.learned(rows, matrix, np.arange(40), most=most, seed=0)
    share = 1.0 if most == 40 else 40 / 12
    assert found.weight == pytest.approx((found.matrix[:, 0] + 1) * share, rel=1e-6)


def test_personal_values_are_hashed_once():
    hashed = mask("c1", SALT)
    assert _hashed("c1", SALT) == hashed
    assert _hashed(hashed, SALT) == hashed
    assert _hashed(None, SALT) is None
