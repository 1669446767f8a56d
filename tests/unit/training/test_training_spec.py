"""The sections of the project file, and how light the public face is."""

import json
import subprocess
import sys

import msgspec
import pytest

from cumulant.training.spec import DecisionCost, EvaluationSpec, GateRule, Threshold, TrainingSpec, quick


def test_the_sections_of_the_intended_projects_are_read():
    found = msgspec.convert(
        {
            "target": "TX_FRAUD",
            "since": "2018-05-01",
            "cost": {"false_negative": "TX_AMOUNT", "false_positive": 5},
            "threshold": {"alerts": "100/day"},
        },
        TrainingSpec,
    )
    assert found.cost == DecisionCost(false_negative="TX_AMOUNT", false_positive=5)
    assert found.threshold == Threshold(alerts="100/day")
    assert (found.trials, found.folds, found.trainers) == (30, 4, ["naive", "linear", "lightgbm"])
    judged = msgspec.convert(
        {"test": "14d", "slices": ["origin"], "gate": {"cost": {"margin": 0}, "calibration_error": {"max": 0.05}}},
        EvaluationSpec,
    )
    assert judged.gate == {"cost": GateRule(margin=0), "calibration_error": GateRule(max=0.05)}


@pytest.mark.parametrize(
    "section",
    [
        {"target": "y", "trails": 3},
        {"target": "y", "trials": 0},
        {"target": "y", "threads": 0},
        {"target": "y", "threshold": {"alert": "9/day"}},
        {"trials": 3},
    ],
)
def test_what_the_section_does_not_know_is_refused(section):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(section, TrainingSpec)


@pytest.mark.parametrize("kind", [TrainingSpec, EvaluationSpec])
def test_every_field_is_described(kind):
    schema = msgspec.json.schema(kind)["$defs"]
    for name, part in schema.items():
        for field, described in part["properties"].items():
            assert "description" in json.dumps(described), f"{name}.{field}"


def test_quick_is_one_set_of_parameters():
    assert (quick(TrainingSpec(target="y")).trials, quick(TrainingSpec(target="y", folds=9)).folds) == (1, 2)


def test_the_specification_imports_no_engine():
    program = (
        "import sys, json; from cumulant.training.spec import TrainingSpec;"
        "print(json.dumps(sorted({'numpy', 'polars', 'lightgbm', 'optuna', 'sklearn', 'scipy'} & set(sys.modules))))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == []
