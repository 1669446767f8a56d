"""The sections `training` and `evaluation` as numbers with units."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.units import Rate
from cumulant.project.training_section import evaluation_policy, training_policy
from cumulant.training.policy import EvaluationPolicy, ThresholdPolicy, TrainingPolicy
from cumulant.training.spec import EvaluationSpec, Threshold, TrainingSpec


def test_every_text_is_parsed() -> None:
    policy = training_policy(
        TrainingSpec(
            target="y",
            since="2026-02-01",
            rows="2M",
            half_life="90d",
            threshold=Threshold(alerts="100 / week", source_share="10%"),
            time="1h30m",
        )
    )
    assert policy.since == datetime(2026, 2, 1, tzinfo=UTC)
    assert policy.rows == 2_000_000
    assert policy.half_life == timedelta(days=90)
    assert policy.threshold == ThresholdPolicy(alerts=Rate(100, "week"), source_share=0.1)
    assert policy.time == timedelta(hours=1, minutes=30)
    assert training_policy(TrainingSpec(target="y", time=None, threshold=0.3)).time is None
    assert training_policy(TrainingSpec(target="y", threshold=Threshold(rate="2%"))).threshold == ThresholdPolicy(
        rate=0.02
    )


def test_defaults_of_the_sections_and_of_the_policies_are_equal() -> None:
    assert training_policy(TrainingSpec(target="y")) == TrainingPolicy(target="y")
    assert evaluation_policy(EvaluationSpec()) == EvaluationPolicy()


def test_a_policy_has_the_fields_of_its_section() -> None:
    for policy, spec in ((TrainingPolicy, TrainingSpec), (EvaluationPolicy, EvaluationSpec)):
        assert [field.name for field in msgspec.structs.fields(policy)] == [
            field.name for field in msgspec.structs.fields(spec)
        ]


@pytest.mark.parametrize(
    ("text", "part"),
    [("30d", timedelta(days=30)), ("20%", 0.2), ("0.25", 0.25), (0.25, 0.25), ("12h", timedelta(hours=12))],
)
def test_a_test_is_a_span_or_a_share(text: str | float, part: timedelta | float) -> None:
    assert evaluation_policy(EvaluationSpec(test=text)).test == part


@pytest.mark.parametrize("text", ["0%", "100%", 1.0, "0"])
def test_a_test_of_nothing_or_of_all_rows_is_refused(text: str | float) -> None:
    with pytest.raises(UsageError, match="leaves nothing to train or to judge"):
        evaluation_policy(EvaluationSpec(test=text))
