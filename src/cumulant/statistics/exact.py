"""Exact tail probabilities of counts under a declared share or mean."""

from __future__ import annotations

from collections.abc import Sequence


def overdispersion(counts: Sequence[int], rows: Sequence[int]) -> float:
    """Pearson's statistic of several samples over its degrees of freedom, at least 1 (McCullagh and Nelder 1989)."""
    samples = [(count, n) for count, n in zip(counts, rows, strict=True) if n]
    share = sum(counts) / max(sum(rows), 1)
    if len(samples) < 2 or not 0 < share < 1:
        return 1.0
    pearson = sum((count - n * share) ** 2 / (n * share * (1 - share)) for count, n in samples)
    return max(pearson / (len(samples) - 1), 1.0)


def binomial_at_least(count: float, rows: float, share: float) -> float:
    """The chance of `count` or more of `rows` independent rows, each with chance `share`.

    Both may be divided by an overdispersion, as if there were so many fewer rows (Rao and Scott 1992).
    """
    if count <= 0:
        return 1.0
    from scipy.special import betainc  # scipy.stats takes a second to import

    return float(betainc(count, rows - count + 1, share))


def binomial_at_most(count: float, rows: float, share: float) -> float:
    """The chance of `count` or fewer of `rows` independent rows, each with chance `share`."""
    return binomial_at_least(rows - count, rows, 1.0 - share)


def poisson_at_least(count: int, mean: float) -> float:
    """The chance of `count` or more events where `mean` are expected."""
    if count <= 0:
        return 1.0
    from scipy.special import pdtrc

    return float(pdtrc(count - 1, mean))


def poisson_at_most(count: int, mean: float) -> float:
    """The chance of `count` or fewer events where `mean` are expected."""
    from scipy.special import pdtr

    return float(pdtr(count, mean))
