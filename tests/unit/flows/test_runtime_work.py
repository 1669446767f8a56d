"""What makes a training this training: settings added later change nothing where they are left out."""

from types import SimpleNamespace

from cumulant.flows.training.training_identity import TrainingWork
from cumulant.training.spec import EvaluationSpec, Threshold, TrainingSpec


def inputs(spec, **more):
    known, task = SimpleNamespace(id="s", key="t"), SimpleNamespace(predict_at=None)
    return TrainingWork(
        task=task,
        snapshot=known,
        table=known,
        training_spec=spec,
        evaluation_spec=EvaluationSpec(),
        trainers={},
        **more,
    ).inputs


def test_a_setting_at_its_default_is_no_part_of_the_identity():
    plain = inputs(TrainingSpec(target="y"))
    assert not {"rows", "half_life", "leak_auc", "blend", "final_fit"} & set(plain["training"])
    assert "counted" not in plain
    assert inputs(TrainingSpec(target="y", leak_auc=0.9))["training"]["leak_auc"] == 0.9
    assert inputs(TrainingSpec(target="y", rows=5000))["training"]["rows"] == 5000
    assert inputs(TrainingSpec(target="y", half_life="90d"))["training"]["half_life"] == "90d"


def test_a_threshold_that_counts_rows_is_found_anew():
    spec = TrainingSpec(target="y", threshold=Threshold(alerts="20/day"))
    found = inputs(spec)
    assert found["counted"] == "all rows"
    assert set(found["training"]["threshold"]) == {"alerts", "rate"}
    shared = TrainingSpec(target="y", threshold=Threshold(alerts="20/day", source_share="10%"))
    assert inputs(shared)["training"]["threshold"]["source_share"] == "10%"
    assert "counted" not in inputs(TrainingSpec(target="y", threshold=0.3))
    assert inputs(TrainingSpec(target="y"), reviewed=SimpleNamespace(key="r"))["judged"] == "own labels"
