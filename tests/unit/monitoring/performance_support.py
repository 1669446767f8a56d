"""Predictions made by hand, and the known cases of real data."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline
from cumulant.monitoring.performance.loss_monitor import add_window, begin_monitor
from cumulant.monitoring.performance.rows import PredictionRows, windows

DRIFT = Path(__file__).parents[4] / "shared" / "data" / "drift"
needs_drift = pytest.mark.skipif(not DRIFT.exists(), reason="the shared data folder is absent")
DAY = timedelta(days=1)
START = datetime(2020, 1, 1, tzinfo=UTC)
LATER = datetime(2040, 1, 1, tzinfo=UTC)


def daily(score, truth, *, rows, first=0, **more):
    """Predictions in their order, `rows` of them a day from day `first` on."""
    step = 86_400_000_000 // rows
    day, place = np.divmod(np.arange(len(score)), rows)
    times = np.datetime64("2020-01-01", "us") + ((first + day) * 86_400_000_000 + place * step).astype(
        "timedelta64[us]"
    )
    return PredictionRows(time=times, score=np.asarray(score, float), truth=np.asarray(truth, float), **more)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def followed(reference, current, *, every=DAY, refits=None, terms=None, task="binary"):
    """What `harm` says after each window of `current`, and the last watch."""
    terms = HarmPolicy(refit=refits is not None) if terms is None else terms
    watch = begin_monitor(learn_baseline(reference, task=task, policy=terms, every=every), terms)
    told = []
    for number, (window, part) in enumerate(windows(current, every)):
        watch, found = add_window(watch, window, part, None if refits is None else refits[number])
        told.append(found)
    return told, watch


def car_loan():
    """Reference and analysis part, a tenth of the analysis a day."""
    import polars as pl

    folder = DRIFT / "nannyml"
    reference = pl.read_parquet(folder / "synthetic_car_loan_reference.parquet")
    target = pl.read_parquet(folder / "synthetic_car_loan_analysis_target.parquet")
    analysis = pl.read_parquet(folder / "synthetic_car_loan_analysis.parquet").join(
        target, on="id", maintain_order="left"
    )
    return tuple(
        daily(
            part["y_pred_proba"].to_numpy(),
            part["repaid"].to_numpy(),
            rows=5000,
            decision=part["y_pred"].to_numpy() == 1,
        )
        for part in (reference, analysis)
    )


def employment():
    """2015 and 2016, 2,300 rows a day: the control."""
    import polars as pl

    folder = DRIFT / "nannyml"
    reference = pl.read_parquet(folder / "employment_MA_reference.parquet")
    target = pl.read_parquet(folder / "employment_MA_2016_target.parquet")
    analysis = pl.read_parquet(folder / "employment_MA_2016.parquet").join(target, on="id", maintain_order="left")
    return tuple(
        daily(part["predicted_probability"].to_numpy(), part["employed"].to_numpy(), rows=2300)
        for part in (reference, analysis)
    )
