"""What the paired evaluation refuses, and the margins that a release gets where the project declares none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from releases import policy_with

from cumulant.release.admission import refusal, with_margins
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_records import DayDifference, PairedEvaluation, SegmentDifference
from cumulant.release.spec import MetricSpec, PairedSpec

_START = datetime(2026, 1, 1, tzinfo=UTC)


def _evaluation(difference: float = 0.0, **changes: object) -> PairedEvaluation:
    """Thirty days of 1,000 rows, whose days differ by a thousandth."""
    days = tuple(
        DayDifference(rows=1000, difference=difference + (0.001 if day % 2 else -0.001), start=_START + timedelta(day))
        for day in range(30)
    )
    found = PairedEvaluation(
        rows=30_000,
        loss="brier",
        days=days,
        champion_loss=0.12,
        candidate_loss=0.12 + difference,
        baseline_loss=0.16,
        deviation=0.1,
        skewness=0.0,
        disagreement=0.04,
        disagreement_high=0.05,
        champion_score=0.2,
        candidate_score=0.2,
        shift=0.0,
        shift_high=0.002,
        distance=0.03,
        distance_high=0.03,
    )
    return msgspec.structs.replace(found, **changes)


def test_a_sound_candidate_begins_with_margins_of_its_own() -> None:
    spec = policy_with()
    assert refusal(spec, _evaluation()) is None
    named = metrics(with_margins(spec, _evaluation()))
    assert named["disagreement"].margin == pytest.approx(0.085)
    assert named["prediction"].margin == pytest.approx(0.003)
    assert named["quality"].margin == pytest.approx(0.005)
    assert named["quality"].required
    assert named["distance"].margin == pytest.approx(0.045)


def test_without_an_evaluation_a_fifth_of_the_decisions_may_differ() -> None:
    named = metrics(with_margins(policy_with(), None))
    assert (named["disagreement"].margin, named["prediction"].margin) == (0.2, None)


def test_a_declared_margin_is_kept() -> None:
    declared = policy_with(
        metrics={
            "disagreement": MetricSpec(margin="30%"),
            "prediction": MetricSpec(margin=0.5),
            "quality": MetricSpec(margin=0.02, required=True),
        }
    )
    named = metrics(with_margins(declared, _evaluation()))
    assert [named[name].margin for name in declared.metrics] == [0.3, 0.5, 0.02]
    block = policy_with(metrics={"quality": MetricSpec(required=True, block="1d")})
    found = metrics(with_margins(block, _evaluation()))["quality"]
    assert (found.margin, found.required, found.block) == (pytest.approx(0.005), True, 86_400.0)


@pytest.mark.parametrize(
    ("found", "metric", "text"),
    [
        (_evaluation(failed=3), "errors", "no answer to 3 of 30,000"),
        (_evaluation(disagreement=0.51), "disagreement", "decides otherwise than the champion in 51.00%"),
        (_evaluation(0.02), "quality", "worse by more than the margin 0.005"),
        (_evaluation(-0.1), "quality", "may know what no request holds"),
        (
            _evaluation(
                segments=(
                    SegmentDifference(
                        feature="region", value="north", rows=1500, champion_loss=0.12, candidate_loss=0.5, low=0.3
                    ),
                )
            ),
            "quality",
            "where region is north",
        ),
    ],
)
def test_what_is_refused_names_its_reason(found: PairedEvaluation, metric: str, text: str) -> None:
    why = refusal(policy_with(), found)
    assert why is not None
    assert why.metric == metric
    assert text in why.text


def test_what_is_declared_to_be_meant_is_not_refused() -> None:
    meant = policy_with(
        metrics={"disagreement": MetricSpec(margin="60%"), "quality": MetricSpec(margin=0.05)},
        evaluation=PairedSpec(gain="100%"),
    )
    for found in (_evaluation(disagreement=0.51), _evaluation(0.02), _evaluation(-0.1)):
        assert refusal(meant, found) is None
    assert refusal(meant, _evaluation(disagreement=0.61)) is not None


def test_nothing_speaks_for_a_version_that_may_have_learned_from_the_rows() -> None:
    """Harm is not held against a candidate where the champion knew the rows."""
    assert refusal(policy_with(), _evaluation(0.02, seen_by=("champion",))) is None
    assert refusal(policy_with(), _evaluation(0.02, seen_by=("candidate",))) is not None


def test_a_candidate_that_is_shown_to_be_better_may_decide_otherwise() -> None:
    """The champion has failed since the world changed: it loses more than a constant, and usually lost .12."""
    flipped = _evaluation(-0.25, champion_loss=0.38, candidate_loss=0.13, usual_loss=0.12, disagreement=0.6)
    assert refusal(policy_with(), flipped) is None
    unknown = msgspec.structs.replace(flipped, usual_loss=None)
    assert refusal(policy_with(), unknown) is None
    named = metrics(with_margins(policy_with(), msgspec.structs.replace(flipped, disagreement_high=0.62)))
    assert named["disagreement"].margin == pytest.approx(0.94)
    leaking = _evaluation(-0.37, champion_loss=0.38, candidate_loss=0.01, usual_loss=0.12, disagreement=0.6)
    why = refusal(policy_with(), leaking)
    assert why is not None
    assert "may know what no request holds" in why.text
