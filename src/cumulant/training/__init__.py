"""From rows to a judged model: tasks, splits, search, trainers, calibration, threshold, evaluation, gate."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.training.class_names import label, rare_classes
    from cumulant.training.comparisons import Rival
    from cumulant.training.dataset import TrainingSet, training_set
    from cumulant.training.evaluation import evaluate, scored
    from cumulant.training.events import GateDecided, ModelEvaluated, SearchFinished, TrialFinished
    from cumulant.training.final import fit_all
    from cumulant.training.fixed import fit_once
    from cumulant.training.model import FittedModel
    from cumulant.training.payloads import LinearWeights
    from cumulant.training.plots import save_plots
    from cumulant.training.records import (
        BLEND,
        Evaluation,
        FittedBooster,
        RuleVerdict,
        SliceResult,
        TrainingSummary,
        TrialRecord,
        Verdict,
    )
    from cumulant.training.replay import refit
    from cumulant.training.spec import Cost, EvaluationSpec, GateRule, Parameter, Threshold, TrainingSpec, quick
    from cumulant.training.splits import Fold, Split, folds, split
    from cumulant.training.study import SearchResult, search
    from cumulant.training.threshold import advice
    from cumulant.training.trainer_checks import check_trainers
    from cumulant.training.verdicts import check_gate, gate
    from cumulant.training.weighting import aged, weighted

_HOMES = {
    "BLEND": "records",
    "Cost": "spec",
    "Evaluation": "records",
    "EvaluationSpec": "spec",
    "FittedBooster": "records",
    "FittedModel": "model",
    "Fold": "splits",
    "GateDecided": "events",
    "GateRule": "spec",
    "LinearWeights": "payloads",
    "ModelEvaluated": "events",
    "Parameter": "spec",
    "Rival": "comparisons",
    "RuleVerdict": "records",
    "SearchFinished": "events",
    "SearchResult": "study",
    "SliceResult": "records",
    "Split": "splits",
    "Threshold": "spec",
    "TrainingSet": "dataset",
    "TrainingSpec": "spec",
    "TrainingSummary": "records",
    "TrialFinished": "events",
    "TrialRecord": "records",
    "Verdict": "records",
    "aged": "weighting",
    "evaluate": "evaluation",
    "fit_once": "fixed",
    "folds": "splits",
    "advice": "threshold",
    "label": "class_names",
    "rare_classes": "class_names",
    "check_gate": "verdicts",
    "check_trainers": "trainer_checks",
    "fit_all": "final",
    "gate": "verdicts",
    "quick": "spec",
    "refit": "replay",
    "save_plots": "plots",
    "scored": "evaluation",
    "search": "study",
    "split": "splits",
    "training_set": "dataset",
    "weighted": "weighting",
}

__all__ = [
    "BLEND",
    "Cost",
    "Evaluation",
    "EvaluationSpec",
    "FittedBooster",
    "FittedModel",
    "Fold",
    "GateDecided",
    "GateRule",
    "LinearWeights",
    "ModelEvaluated",
    "Parameter",
    "Rival",
    "RuleVerdict",
    "SearchFinished",
    "SearchResult",
    "SliceResult",
    "Split",
    "Threshold",
    "TrainingSet",
    "TrainingSpec",
    "TrainingSummary",
    "TrialFinished",
    "TrialRecord",
    "Verdict",
    "advice",
    "aged",
    "check_gate",
    "check_trainers",
    "evaluate",
    "fit_all",
    "fit_once",
    "folds",
    "gate",
    "label",
    "quick",
    "rare_classes",
    "refit",
    "save_plots",
    "scored",
    "search",
    "split",
    "training_set",
    "weighted",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
