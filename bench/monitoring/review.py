"""Labels that the review queue chooses against labels at random: `python bench/monitoring/review.py [DATA] [SEEDS] [KEPT]`.

The Fraud Handbook's payments, a fifth of each day's. A model begins with 4,000 labelled payments of two weeks; then
four weeks of review at 50 a day, retrained weekly. The queue chooses with the review room's own parts: unsure by conformal sets by class (on
answers to labelled rows out of fold), far from the labelled rows, a fifth at random. The other arm labels as many
payments at random. Both answer the same later weeks; features that hold labels of others are left out. A seed is
another first sample and another draw; differences are paired by seed. KEPT is a file that holds the figures of seeds
that are done (`0-5`, then `5-10`).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score

from cumulant import statistics
from cumulant.project.monitoring_section import review_policy
from cumulant.review.budget import compute_allowance
from cumulant.review.cases import QueueState
from cumulant.review.policy import ReviewPolicy
from cumulant.review.reasons import ReviewReference, score_distance, score_uncertainty
from cumulant.review.sampling import CandidateRow, RowSelector, combine_scores, draw_number
from cumulant.review.spec import ReviewSpec

ROOT = Path(__file__).resolve().parents[2]
START = 4_000
WEEKS = 4
ARMS = ("queue", "random")
SHARE = 0.2
PARAMS = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 10,
    "verbose": -1,
    "num_threads": 1,
    "deterministic": True,
}


def table(data: Path) -> pl.DataFrame:
    """The handbook's features without those of the terminal's frauds, and the week of each payment."""
    frame = pl.read_parquet(data / "fraud" / "handbook_tx_2018-04_06.parquet").sort("TX_DATETIME")
    frame = frame.with_columns(pl.lit(1.0).alias("one"))
    day = (pl.col("TX_DATETIME") - pl.col("TX_DATETIME").min()).dt.total_days()
    windows = []
    for key in ("CUSTOMER_ID", "TERMINAL_ID"):
        for span in (1, 7, 30):
            name = f"{key[:4].lower()}_{span}"
            by = {"by": "TX_DATETIME", "window_size": f"{span}d"}
            windows.append(pl.col("TX_AMOUNT").rolling_mean_by(**by).over(key).alias(f"{name}_mean"))
            windows.append(pl.col("one").rolling_sum_by(**by).over(key).alias(f"{name}_n"))
    return frame.with_columns(
        *windows,
        day.alias("day"),
        pl.col("TX_DATETIME").dt.hour().alias("hour"),
        pl.col("TX_DATETIME").dt.weekday().alias("weekday"),
    ).with_columns((pl.col("TX_AMOUNT") / pl.col("cust_30_mean")).alias("ratio"))


class Arm:
    """One way of choosing labels, over the weeks."""

    def __init__(self, name: str, x: np.ndarray, y: np.ndarray, names: list[str], first: np.ndarray, seed: int) -> None:
        self.name, self.x, self.y, self.names, self.seed = name, x, y, names, seed
        self.rows, self.weight = first, np.ones(len(first))

    def model(self, rows: np.ndarray, weight: np.ndarray | None = None):
        import lightgbm as lgb

        data = lgb.Dataset(self.x[rows], self.y[rows], weight=weight, free_raw_data=True)
        return lgb.train({**PARAMS, "seed": self.seed}, data, 100)

    def reference(self) -> ReviewReference:
        """Answers out of fold, and labelled rows as coordinates."""
        fold = np.random.default_rng(self.seed).integers(0, 3, len(self.rows))
        answers = np.zeros(len(self.rows))
        for part in range(3):
            held = fold == part
            answers[held] = self.model(self.rows[~held]).predict(self.x[self.rows[held]])
        numbers = {name: self.x[self.rows, place] for place, name in enumerate(self.names)}
        scale = statistics.Scale.of(numbers, {})
        return ReviewReference(
            task="binary",
            classes=(False, True),
            calibration=np.stack([1 - answers, answers], axis=1),
            target=self.y[self.rows].astype(np.int64),
            scale=scale,
            known=statistics.Known(scale.coordinates(numbers, {})),
        )

    def label(self, pool: np.ndarray, policy: ReviewPolicy) -> None:
        """Add a day's budget of labels for each day of a week's payments."""
        generator = np.random.default_rng((self.seed, len(self.rows)))
        if self.name == "random":
            found = generator.choice(pool, 7 * 50, replace=False)
            self.rows, self.weight = np.append(self.rows, found), np.append(self.weight, np.ones(len(found)))
            return
        answers = self.model(self.rows).predict(self.x[pool])
        useful = self.usefulness(pool, answers)
        for day in range(7):
            places = np.array_split(np.arange(len(pool)), 7)[day]
            rows, weight = self.drawn(pool[places], useful[places], policy)
            self.rows, self.weight = np.append(self.rows, rows), np.append(self.weight, weight)

    def combine_scores(self, pool: np.ndarray, answers: np.ndarray) -> np.ndarray:
        reference = self.reference()
        outputs = [json.dumps({"probability": p}) for p in answers]
        frame = pl.DataFrame({"outputs": outputs})
        asked = [dict(zip(self.names, row, strict=True)) for row in self.x[pool].tolist()]
        return combine_scores([score_uncertainty(frame, reference, 0.1), score_distance(asked, reference, 0.01)])

    def drawn(self, rows: np.ndarray, useful: np.ndarray, policy: ReviewPolicy) -> tuple[np.ndarray, np.ndarray]:
        from datetime import UTC, datetime

        now = datetime(2018, 6, 1, tzinfo=UTC)
        most = compute_allowance(policy, QueueState(model="m"), since=now, until=now, at_once=True)
        choice = RowSelector(ranked=most.cases - most.sample, sample=most.sample)
        fates = [draw_number(str(self.seed).encode(), "w", row, 0) for row in rows.tolist()]
        for part in np.array_split(np.arange(len(rows)), 20):
            wanted = choice.eligible(useful[part], [fates[place] for place in part])
            choice.skip(int((~wanted).sum()))
            for place in part[wanted]:
                choice.add(candidate(int(rows[place]), float(useful[place]), fates[place]))
        found = choice.select()
        chosen = [one.sequence for one in (*found.ranked, *found.sample)]
        weight = np.ones(len(chosen))
        weight[len(found.ranked) :] = 1 / found.chance
        return np.array(chosen), weight


def candidate(row: int, useful: float, fate: bytes) -> CandidateRow:
    return CandidateRow(
        request="",
        row=0,
        worker="w",
        sequence=row,
        time=0,
        model="m",
        version="1",
        ref=None,
        reasons=("unsure",) if useful else (),
        useful=useful,
        draw_number=fate,
    )


def run(frame: pl.DataFrame, seed: int) -> dict[str, dict[str, float]]:
    names = [
        name
        for name in frame.columns
        if name in {"TX_AMOUNT", "hour", "weekday", "ratio"} or name.startswith(("cust_", "term_"))
    ]
    x, y = frame.select(names).to_numpy().astype(np.float64), frame["TX_FRAUD"].to_numpy().astype(np.float64)
    day = frame["day"].to_numpy()
    first = np.random.default_rng(seed).choice(np.flatnonzero((day >= 30) & (day < 44)), START, replace=False)
    test = np.flatnonzero(day >= 44 + 7 * WEEKS)
    seen = np.random.default_rng((seed, 1)).random(len(day)) < SHARE

    def told(model, new: np.ndarray) -> dict[str, float]:
        precision = float(average_precision_score(y[test], model.predict(x[test])))
        return {"average_precision": precision, "labels": len(new), "frauds": float(y[new].sum())}

    found = {}
    for name in ARMS:
        arm = Arm(name, x, y, names, first, seed)
        for week in range(WEEKS):
            start = 44 + 7 * week
            arm.label(
                np.flatnonzero((day >= start) & (day < start + 7) & seen), review_policy(ReviewSpec(budget="50/day"))
            )
        found[name] = told(arm.model(arm.rows), arm.rows[START:])
        if name == "queue":
            found["queue, sampling weights"] = told(arm.model(arm.rows, arm.weight), arm.rows[START:])
    found["no new labels"] = told(arm.model(first), first[:0])
    return found


def paired(values: list[float], others: list[float]) -> str:
    from scipy.stats import t

    apart = np.array(values) - np.array(others)
    wide = t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return f"{apart.mean():+.4f} [{apart.mean() - wide:+.4f}, {apart.mean() + wide:+.4f}]"


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT.parent / "shared" / "data")
    first, _, last = (sys.argv[2] if len(sys.argv) > 2 else "0-10").partition("-")
    kept = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    seeds = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    frame = table(data)
    for seed in range(int(first), int(last)):
        begun = time.monotonic()
        seeds[str(seed)] = run(frame, seed)
        told = ", ".join(f"{name} {one['average_precision']:.4f}" for name, one in seeds[str(seed)].items())
        print(f"seed {seed}: {told} ({time.monotonic() - begun:.0f} s)", flush=True)
        if kept is not None:
            kept.write_text(json.dumps(seeds))
    figures = {name: [one[name]["average_precision"] for one in seeds.values()] for name in next(iter(seeds.values()))}
    for name, values in figures.items():
        frauds = np.mean([one[name]["frauds"] for one in seeds.values()])
        apart = "" if name == "random" or len(values) < 2 else f", against random {paired(values, figures['random'])}"
        print(f"{name}: average precision {np.mean(values):.4f}, {frauds:.0f} frauds labelled{apart}")


if __name__ == "__main__":
    main()
