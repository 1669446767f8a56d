"""Why a row is worth a look, and what the queue's figures say."""

import json
import math

import numpy as np
import polars as pl
import pytest
from review_support import NOW, POLICY, case, draw

from cumulant.core.errors import DefinitionError
from cumulant.review import reasons
from cumulant.review.cases import ReviewAnswer
from cumulant.review.labels import to_label
from cumulant.review.reasons import ReviewReference
from cumulant.review.report import summarize
from cumulant.statistics import Known, Scale

GENERATOR = np.random.default_rng(0)
AMOUNTS = GENERATOR.uniform(0, 100, 400)
KINDS = [("hat", "coat")[place] for place in GENERATOR.integers(0, 2, 400)]
SCALE = Scale.of({"amount": AMOUNTS}, {"kind": KINDS})
CHANCE = GENERATOR.beta(0.5, 2, 600)
REFERENCE = ReviewReference(
    task="binary",
    classes=(False, True),
    calibration=np.stack([1 - CHANCE, CHANCE], axis=1),
    target=(GENERATOR.random(600) < CHANCE).astype(np.int64),
    scale=SCALE,
    known=Known(SCALE.coordinates({"amount": AMOUNTS}, {"kind": KINDS})),
)


def frame(*rows):
    return pl.DataFrame(
        {
            "id": [f"r{place}" for place in range(len(rows))],
            "row": [0] * len(rows),
            "request": [json.dumps(asked) for asked, _ in rows],
            "outputs": [json.dumps(answer) for _, answer in rows],
            "score": [answer.get("probability") for _, answer in rows],
        },
        schema_overrides={"score": pl.Float64},
    )


def binary(chance):
    return {"prediction": chance >= 0.5, "probability": chance}


def test_unsure_is_where_both_classes_stay_possible_most_where_they_are_likest():
    rows = frame(({}, binary(0.01)), ({}, binary(0.35)), ({}, binary(0.99)), ({}, {"prediction": True}))
    found = reasons.score_uncertainty(rows, REFERENCE, 0.1)
    assert found[1] > 0.1
    assert found[[0, 2, 3]].tolist() == [0, 0, 0]
    assert reasons.score_uncertainty(rows, ReviewReference(task="regression"), 0.1).tolist() == [0] * 4


def test_a_number_is_unsure_where_its_interval_is_wider_than_those_of_the_others():
    def spread(points, answers):
        return np.abs(points[:, 0]) + 0 * answers

    numbers = {"amount": AMOUNTS}
    scale = Scale.of(numbers, {})
    spreads = np.abs(scale.coordinates(numbers, {})[:, 0])
    reference = ReviewReference(task="regression", scale=scale, spread=spread, spreads=spreads)
    asked = [{"amount": float(np.median(AMOUNTS))}, {"amount": 1000.0}, {"amount": 3000.0}, {"amount": 1000.0}, {}]
    rows = frame(*((one, {"prediction": 1.0}) for one in asked))
    rows = rows.with_columns(score=pl.Series([1.0, 1.0, 1.0, None, 1.0]))
    found = reasons.score_width(rows, asked, reference, 0.1)
    assert found[[0, 3, 4]].tolist() == [0, 0, 0]
    assert 0 < found[1] < found[2] < 1
    assert found[2] == pytest.approx(
        1 - np.quantile(spreads, 0.9) / spread(scale.coordinates({"amount": np.array([3000.0])}, {}), 0)[0]
    )
    # Of rows like those of the test at most a tenth.
    same = [{"amount": float(one)} for one in AMOUNTS]
    alike = frame(*((one, {"prediction": 1.0}) for one in same)).with_columns(score=pl.lit(1.0))
    assert 0.05 < (reasons.score_width(alike, same, reference, 0.1) > 0).mean() <= 0.1
    assert not reasons.score_width(rows, asked, ReviewReference(task="regression", scale=scale), 0.1).any()


def test_probabilities_of_several_classes_are_read_in_their_order():
    three = ReviewReference(task="multiclass", classes=("a", "b", "c"))
    rows = frame(({}, {"probabilities": {"c": 0.2, "a": 0.7, "b": 0.1}}), ({}, {"prediction": "a"}))
    assert reasons.read_probabilities(rows, three)[0].tolist() == [0.7, 0.1, 0.2]
    assert np.isnan(reasons.read_probabilities(rows, three)[1]).all()


def test_far_is_beyond_almost_all_training_rows():
    asked = [{"amount": 40.0, "kind": "hat"}, {"amount": 4000.0, "kind": "hat"}, {"amount": 40.0, "kind": "boat"}, {}]
    found = reasons.score_distance(asked, REFERENCE, 0.01)
    assert found[0] == 0
    assert 0.9 < found[1] <= 1
    assert found[2] > 0
    assert reasons.score_distance([], REFERENCE, 0.01).tolist() == []
    assert reasons.score_distance(asked, ReviewReference(task="binary"), 0.01).tolist() == [0] * 4


def test_disagreement_counts_another_decision_first_and_the_distance_of_the_scores():
    rows = frame(({}, binary(0.4)), ({}, binary(0.4)), ({}, binary(0.4)), ({}, {"prediction": 300.0}))
    beside = frame(({}, binary(0.6)), ({}, binary(0.45)))
    assert reasons.score_disagreement(rows, beside) == pytest.approx([0.6, 0.025, 0, 0])


def test_watched_slices_are_conditions_over_what_was_asked():
    told = reasons.parse_conditions(["amount > 100", 'kind == "hat"'])
    asked = [{"amount": 120, "kind": "coat"}, {"amount": 1.5, "kind": "hat"}, {"amount": None, "kind": None}]
    assert (reasons.score_slices(asked, told) > 0).tolist() == [True, True, False]
    assert reasons.score_slices(asked, []).tolist() == [0, 0, 0]
    with pytest.raises(DefinitionError, match=r"monitoring.review.slices: \"amount >\""):
        reasons.parse_conditions(["amount >"])


def done(number, label="true", *, chance=1.0, more=(), why=("unsure",)):
    first = ReviewAnswer(reviewer="user:ada", kind="decided", label=label, at=NOW)
    return case(number, status="done", label=label, answers=(first, *more), chance=chance, reasons=why, closed=NOW)


def test_figures_are_corrected_for_the_draw_and_tell_of_agreement():
    second = ReviewAnswer(reviewer="user:bob", kind="decided", label="true", at=NOW)
    other = ReviewAnswer(reviewer="user:bob", kind="decided", label="false", at=NOW)
    closed = [
        done(1, more=(second,)),
        done(2, more=(other,)),
        done(3, label="false", more=(other,)),
        *(done(number, chance=0.1, why=("sample",)) for number in range(4, 14)),
        case(20, status="expired", closed=NOW),
    ]
    wrong = {one.id: one.id in {closed[0].id, closed[1].id} for one in closed if one.status == "done"}
    found = summarize("m", [case(30)], closed, [draw(rows=103)], wrong)
    assert (found.queued, found.done, found.expired, found.waiting) == (15, 13, 1, 1)
    assert found.counted == pytest.approx(2 / 13)
    assert found.error["value"] == pytest.approx(2 / 103)
    assert found.error["high"] > 0.2  # none of ten is compatible with a quarter of the others
    assert (found.agreement["cases"], found.agreement["observed"]) == (3, pytest.approx(2 / 3))
    assert found.answered == 1.0
    assert (found.reasons["unsure"].queued, found.reasons["unsure"].wrong) == (5, 2)


def test_random_cases_without_an_answer_leave_more_to_err_about():
    why = {"chance": 1.0, "why": ("sample",)}
    judged = [done(number, **why) for number in range(1, 6)]
    silent = [case(number, chance=1.0, reasons=("sample",)) for number in range(6, 26)]
    wrong = {one.id: False for one in judged}
    whole, part = (summarize("m", opened, judged, [draw(rows=25)], wrong).error for opened in ([], silent))
    assert (whole["value"], whole["high"]) == (0.0, 0.0)
    assert part["value"] == 0.0
    # The interval of no error in 5 drawn from 25 (exact: at most 11 of the 25, by the hypergeometric distribution).
    assert part["high"] == pytest.approx(11 / 25, abs=0.02)
    assert summarize("m", silent, judged, [draw(rows=25)], wrong).ranked == 0


def test_without_a_random_case_nothing_is_said_of_the_others():
    found = summarize("m", [], [done(1)], [draw()], {done(1).id: True})
    assert (found.error, found.agreement, found.answered, found.counted) == (None, None, None, 1.0)


def test_a_label_carries_who_said_so_and_how_many_rows_it_stands_for():
    found = to_label(done(1, chance=0.05), POLICY, b"salt")
    assert (found.label, found.weight, found.known_time) == (True, 20, NOW)
    assert math.isclose(found.chance, 0.05)
    assert found.reviewers[0].startswith("#")
    assert "ada" not in found.reviewers[0]
