"""The limit: PSI, Jensen-Shannon, Kolmogorov-Smirnov and chi-square of two frames, by hand in Polars, numpy and scipy.

No missing shares, unseen values, intervals or dependence; one pass, no windows. It is what ours is measured against.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
from scipy import special, stats


def distances(before, now):
    """PSI and Jensen-Shannon distance of two counts."""
    p, q = (np.maximum(counts / counts.sum(), 1e-6) for counts in (before, now))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    bits = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2
    return float(((q - p) * np.log(q / p)).sum()), float(np.sqrt(max(bits, 0.0)))


def number(before, now):
    """Of two samples: deciles of the first for the distances, and the exact two-sample statistic."""
    before, now = (np.sort(one[~np.isnan(one)]) for one in (before, now))
    n, m = len(before), len(now)
    edges = np.unique(before[np.arange(1, 10) * n // 10])
    counts = [np.diff([0, *np.searchsorted(one, edges, side="right"), len(one)]) for one in (before, now)]
    right = np.searchsorted(before, now, side="right") / n
    left = np.searchsorted(before, now, side="left") / n
    tied = bool((now[1:] == now[:-1]).any())
    last = np.searchsorted(now, now, side="right") / m if tied else np.arange(1, m + 1) / m
    first = np.searchsorted(now, now, side="left") / m if tied else np.arange(m) / m
    statistic = max(np.abs(right - last).max(), np.abs(left - first).max())
    return (*distances(*counts), float(statistic), float(special.kolmogorov(np.sqrt(n * m / (n + m)) * statistic)))


def text(before, now):
    """Of two text columns: the distances of their counts, and chi-square of both."""
    counts = [dict(one.drop_nulls().value_counts().iter_rows()) for one in (before, now)]
    values = sorted(set(counts[0]) | set(counts[1]))
    table = np.array([[one.get(value, 0) for value in values] for one in counts], dtype=float)
    found = stats.chi2_contingency(table, correction=False)
    return (*distances(*table), float(found.statistic), float(found.pvalue))


def column(before, now):
    if before.dtype == pl.String:
        return text(before, now)
    return number(*(one.cast(pl.Float64).fill_null(float("nan")).to_numpy() for one in (before, now)))


def in_memory(before, now, threads=2):
    with ThreadPoolExecutor(threads) as pool:
        return dict(
            zip(before.columns, pool.map(lambda name: column(before[name], now[name]), before.columns), strict=True)
        )


def from_files(before, now, threads=1):
    """One column at a time."""

    def one(name):
        return column(*(pl.read_parquet(path, columns=[name])[name] for path in (before, now)))

    names = list(pl.read_parquet_schema(before))
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
