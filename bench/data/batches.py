"""Verdicts on new batches: how often sound batches are refused, and broken ones accepted.

Run: `python bench/data/batches.py [--runs 2000]`. Drives the shipped tests of shares and means at the declared limit.
Prints a line a world: the share of runs that are refused, with the exact 95% interval (Clopper and Pearson).

shares: 20 files a run, `quarantine: 1%`. `bursts`: the refused rows of a file come in runs of 10, so that rows are not
independent; the tests learn that from batches accepted before, or from the others of the run. mean: a batch whose true
mean is the limit, with and without the deviation of earlier rows.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from scipy.stats import beta

from cumulant.data.checks.batch_checks import check_shares
from cumulant.data.checks.batch_rows import Sizes
from cumulant.data.checks.batches import Batch, BatchCounts
from cumulant.data.checks.distribution import LEVEL, mean_p_value
from cumulant.data.policy import SourcePolicy
from cumulant.data.snapshot import BatchSize
from cumulant.data.spec import SourceSpec

FILES, LIMIT = 20, 0.01
MEANS = {
    "normal": (lambda rng, n: rng.normal(0, 1, n), 0.0, 1.0),
    "lognormal(1)": (lambda rng, n: rng.lognormal(0, 1, n), np.exp(0.5), np.sqrt((np.e - 1) * np.e)),
    "lognormal(1.5)": (lambda rng, n: rng.lognormal(0, 1.5, n), np.exp(1.125), np.sqrt(np.expm1(2.25) * np.exp(2.25))),
    "Pareto(2.2)": (lambda rng, n: rng.pareto(2.2, n) + 1, 2.2 / 1.2, np.sqrt(2.2 / (1.2**2 * 0.2))),
    "2% of ones": (lambda rng, n: (rng.random(n) < 0.02).astype(float), 0.02, np.sqrt(0.02 * 0.98)),
}


def line(world: str, refused: int, runs: int) -> None:
    low = float(beta.ppf(0.025, refused, runs - refused + 1)) if refused else 0.0
    high = float(beta.ppf(0.975, refused + 1, runs - refused)) if refused < runs else 1.0
    print(f"{world:72} refused {refused / runs:8.3%} ({low:.3%} to {high:.3%}) of {runs:,}")


def shares(runs: int, rng: np.random.Generator) -> None:
    def refuses(bad: np.ndarray, rows: int, earlier: Sizes | None = None) -> bool:
        batches = [
            Batch(str(n), "file", BatchCounts(rows - int(k), Counter({"km:min": int(k)}))) for n, k in enumerate(bad)
        ]
        return bool(check_shares(batches, SourcePolicy(SourceSpec()), {}, earlier or {}))

    for rows in (10, 100, 1000, 100_000):
        for share in (0.002, LIMIT):
            line(
                f"{FILES} files of {rows:,}, {share:.1%} refused",
                sum(refuses(rng.binomial(rows, share, FILES), rows) for _ in range(runs)),
                runs,
            )
        for share in (0.002, LIMIT) if rows >= 100 else ():
            bursts = [10 * rng.binomial(rows // 10, share, FILES + 30) for _ in range(runs)]
            world = f"{FILES} files of {rows:,}, {share:.1%} refused in bursts of 10"
            line(f"{world}, none before", sum(refuses(b[:FILES], rows) for b in bursts), runs)
            before = [{"file": tuple(BatchSize(rows=rows, refused=int(k)) for k in b[FILES:])} for b in bursts]
            pairs = list(zip(bursts, before, strict=True))
            line(f"{world}, 30 before", sum(refuses(b[:FILES], rows, e) for b, e in pairs), runs)
            broken = sum(refuses(np.append(b[: FILES - 1], rows), rows, e) for b, e in pairs)
            line(f"{world}, one of them wholly, 30 before", broken, runs)
        for share in (0.05, 0.5, 1.0):
            bad = [np.append(rng.binomial(rows, 0.002, FILES - 1), rng.binomial(rows, share)) for _ in range(runs)]
            line(f"one of {FILES} files of {rows:,} with {share:.0%} refused", sum(refuses(b, rows) for b in bad), runs)


def means(runs: int, rng: np.random.Generator) -> None:
    for world, (draw, mean, deviation) in MEANS.items():
        for rows in (20, 100, 1000):
            for spread, reference in ((0.0, "no earlier rows"), (float(deviation), "earlier rows")):
                refused = 0
                for _ in range(runs):
                    values = draw(rng, rows)
                    p = min(mean_p_value(values, mean, above=above, spread=spread) for above in (False, True))
                    refused += p < LEVEL / 2
                line(f"mean at its limit, {world}, {rows:,} rows, {reference}", refused, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    rng = np.random.default_rng(0)
    shares(runs, rng)
    means(runs, rng)


if __name__ == "__main__":
    main()
