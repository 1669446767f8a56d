"""Figures go into the registry in groups, and come back under plain names, whatever version registered them."""

from __future__ import annotations

from cumulant.flows.registry.registry_metrics import plain_metrics, registry_metrics
from cumulant.statistics import Estimate

FIGURES = {"log_loss": Estimate(value=0.4, low=0.3, high=0.5), "precision": Estimate(value=None)}


def test_figures_are_grouped_and_what_is_not_defined_is_left_out():
    assert registry_metrics(FIGURES, naive={"log_loss": 0.6}, folds={"log_loss": 0.45}) == {
        "log_loss": 0.4,
        "interval/log_loss_low": 0.3,
        "interval/log_loss_high": 0.5,
        "naive/log_loss": 0.6,
        "folds/log_loss": 0.45,
    }


def test_new_and_old_runs_read_alike():
    old = {"log_loss": 0.4, "log_loss_low": 0.3, "log_loss_high": 0.5, "naive_log_loss": 0.6, "cv_log_loss": 0.45}
    assert plain_metrics(old) == old
    assert plain_metrics(registry_metrics(FIGURES, naive={"log_loss": 0.6}, folds={"log_loss": 0.45})) == old


def test_names_of_other_groups_stay():
    assert plain_metrics({"system/cpu": 1.0, "interval/": 2.0}) == {"system/cpu": 1.0, "interval/": 2.0}
