"""The data sets of these benchmarks, from the shared data folder (its place: CUMULANT_DATA, else ../shared/data)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(os.environ.get("CUMULANT_DATA", Path(__file__).parents[3] / "shared" / "data"))
_DAY = 86_400
_DAYS = (1, 7, 30)

#: name -> file, target
TABULAR = {
    "adult": ("tabular/adult.csv.gz", None),
    "german_credit": ("tabular/german_credit.csv.gz", None),
    "telco_churn": ("tabular/telco_churn.csv.gz", "Churn"),
    "california_housing": ("tabular/california_housing.parquet", "MedHouseVal"),
}


def tabular(name: str) -> tuple[pl.DataFrame, pl.Series]:
    """Features and target. Without a named target the last column is it."""
    path, target = TABULAR[name]
    file = ROOT / path
    frame = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, infer_schema_length=None)
    target = target or frame.columns[-1]
    drop = [column for column in ("customerID",) if column in frame.columns]
    return frame.drop(target, *drop), frame[target]


def _windowed(key: np.ndarray, value: np.ndarray, seconds: np.ndarray, delay: int, days: int) -> tuple[np.ndarray, ...]:
    """Count and mean of `value` over (t - delay - days, t - delay] of the same key, by one sort and cumulative sums."""
    composite = key.astype(np.int64) * (1 << 26) + seconds.astype(np.int64) + (1 << 24)
    order = np.argsort(composite, kind="stable")
    ranked = composite[order]
    sums = np.concatenate(([0.0], np.cumsum(value[order].astype(np.float64))))
    high = np.searchsorted(ranked, ranked - delay, "right")
    low = np.searchsorted(ranked, ranked - delay - days * _DAY, "right")
    count = high - low
    mean = np.divide(sums[high] - sums[low], count, out=np.zeros(len(count)), where=count > 0)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return count[back].astype(float), mean[back]


def handbook() -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """Features of the Fraud Detection Handbook, target and time, in time order."""
    frame = pl.read_parquet(ROOT / "fraud" / "handbook_tx_2018-04_06.parquet")
    frame = frame.sort("TX_TIME_SECONDS", "TRANSACTION_ID", maintain_order=True)
    column = {name: frame[name].to_numpy() for name in frame.columns if name != "TX_DATETIME"}
    seconds, fraud = column["TX_TIME_SECONDS"], column["TX_FRAUD"]
    features = {"TX_AMOUNT": column["TX_AMOUNT"]}
    for days in _DAYS:
        count, mean = _windowed(column["CUSTOMER_ID"], column["TX_AMOUNT"], seconds, 0, days)
        features |= {f"card_n_{days}d": count, f"card_mean_{days}d": mean}
    for days in _DAYS:
        count, rate = _windowed(column["TERMINAL_ID"], fraud, seconds, 7 * _DAY, days)
        features |= {f"term_n_{days}d": count, f"term_rate_{days}d": rate}
    features |= {"hour": (seconds // 3600) % 24, "wday": column["TX_TIME_DAYS"] % 7}
    return pl.DataFrame(features), frame["TX_FRAUD"], frame["TX_DATETIME"].cast(pl.Datetime("us"))
