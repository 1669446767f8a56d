"""Limits of the gate that no model, or every model, would pass, and a test of more than half of the rows."""

from __future__ import annotations

import pytest

from cumulant.project.file.gate_rules import gate_faults, split_faults, split_notes
from cumulant.project.file.loading import load
from cumulant.project.file.spec import ProjectSpec


@pytest.fixture
def spec_of(tmp_path):
    """The project file with these lines at its end."""

    def read(lines: str) -> ProjectSpec:
        (tmp_path / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: m}}\n{lines}\n")
        with load(tmp_path) as project:
            return project.spec

    return read


def texts_of(spec: ProjectSpec) -> list[str]:
    return [text for _, text in gate_faults(spec)]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("accuracy: {min: 0}", "0 lets every model pass"),
        ("roc_auc: {min: -0.5}", "-0.5 lets every model pass"),
        ("accuracy: {max: 1}", "1 lets every model pass"),
        ("calibration_error: {max: 1}", "1 lets every model pass"),
        ("log_loss: {min: 0}", "0 lets every model pass"),
        ("log_loss: {min: 0.5}", "refuses the better models and accepts the worse; write max"),
        ("log_loss: {max: 0}", "0 lets no model pass"),
        ("mae: {max: 0}", "0 lets no model pass"),
        ("accuracy: {min: 1.2}", "1.2 is above 1"),
        ("roc_auc: {max: 0.5}", "0.5 lets no model pass"),
    ],
)
def test_a_limit_that_decides_nothing_is_a_fault(spec_of, rule, message):
    (text,) = texts_of(spec_of(f"evaluation: {{gate: {{{rule}}}}}"))
    assert message in text


@pytest.mark.parametrize(
    "rule",
    [
        "accuracy: {min: 0.5}",
        "roc_auc: {min: 0.5}",
        "roc_auc: {max: 0.99}",
        "r2: {min: 0}",
        "log_loss: {max: 0.5}",
        "calibration_error: {max: 0.05}",
        "log_loss: {margin: 50}",
    ],
)
def test_a_limit_that_some_models_pass_is_none(spec_of, rule):
    assert texts_of(spec_of(f"evaluation: {{gate: {{{rule}}}}}")) == []


def test_a_cost_may_have_either_limit(spec_of):
    cost = "training: {target: y, cost: {false_negative: -a, false_positive: 1}}"
    assert texts_of(spec_of(f"{cost}\nevaluation: {{gate: {{cost: {{min: 0}}}}}}")) == []
    assert texts_of(spec_of(f"{cost}\nevaluation: {{gate: {{cost: {{max: 0}}}}}}")) == []


def test_a_test_of_more_than_half_is_a_fault_only_without_times(spec_of):
    untimed = spec_of("data: {rows: {path: rows.csv}}\nevaluation: {test: 55%}")
    (fault,) = split_faults(untimed)
    assert "a test of 55% leaves fewer rows to learn from than to evaluate on" in fault[1]
    timed = spec_of("data: {rows: {path: rows.csv, event_time: at}}\nevaluation: {test: 55%}")
    assert list(split_faults(timed)) == []
    (note,) = split_notes(timed)
    assert "a test of 55% leaves fewer rows to learn from than to evaluate on" in note
    for test in ("50%", "20%", "60d"):
        assert split_notes(spec_of(f"evaluation: {{test: {test}}}")) == ()
