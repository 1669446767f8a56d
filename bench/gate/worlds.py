"""What the gate decides in worlds whose truth is known, by the functions that `train` and `evaluate` call.

    worlds.py [--runs 400] [--world NAME ...] [--first SEED]

Each world is drawn anew in each run: answers of a candidate (and of a champion) to test rows, which `training.gate`
compares, or a whole split and fit where rows that were learned from matter. Printed are the share of runs in which the
event of the second column came true, and its exact 95% interval (Clopper-Pearson). `most`, `least`: what the share
should be at most, or at least, where the world has such a bound.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl
from scipy.stats import beta

from cumulant.flows.training.window_uses import level_of
from cumulant.statistics import Rows, cluster_codes
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.comparisons import Rival
from cumulant.training.evaluation.evaluation import evaluate, scored
from cumulant.training.evaluation.gate import gate
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.row_hash import row_hashes
from cumulant.training.search.fixed_fit import fit_once
from cumulant.training.spec import GateRule
from cumulant.training.splits import split

DAY = 86_400_000_000


@dataclass(frozen=True)
class World:
    """`run` says of a seed whether the event came true."""

    event: str
    run: Callable[[int], bool]
    most: float | None = None
    least: float | None = None
    part: float = 1.0


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- models without information


def noise(task, main, *, count, rate=0.05, days=None, follows=False):
    """A candidate whose answers know nothing of the rows. `days`: the rate differs by day; `follows`: so do answers."""

    def run(seed):
        rng = np.random.default_rng(seed)
        day = None if days is None else np.sort(rng.integers(0, days, count))
        shock = np.zeros(count) if day is None else rng.normal(0, 1, days)[day]
        own = rng.normal(0, 1, days)[day] if follows else np.zeros(count)
        cluster = None if day is None else cluster_codes(day)
        if task == "binary":
            truth = (rng.random(count) < sigmoid(np.log(rate / (1 - rate)) + shock)).astype(float)
            answers = sigmoid(np.log(rate / (1 - rate)) + 0.3 * rng.normal(size=count) + 0.3 * own)
            if main in ("average_precision", "roc_auc"):
                answers = sigmoid(rng.normal(size=count) + own)
            base = np.full(count, rate)
        elif task == "regression":
            truth = rng.exponential(size=count) * np.exp(0.3 * shock)
            level = {"pinball_90": np.log(10), "mae": np.log(2)}.get(main, 1.0)
            answers, base = level + rng.normal(0, 0.05, count) + 0.05 * own, np.full(count, level)
        else:
            truth = rng.integers(0, 3, count).astype(float)
            answers, base = rng.dirichlet(np.ones(3), count), np.tile([1 / 3] * 3, (count, 1))
        rows = Rows(truth=truth, prediction=answers, cluster=cluster)
        return gate(rows, task=task, main=main, naive=replace(rows, prediction=base), seed=seed).passed

    return run


def many(seed):
    """Thirty models without information, one after the other on the same rows."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(500) < 0.05).astype(float)
    naive = Rows(truth=truth, prediction=np.full(500, 0.05))
    return any(
        gate(
            replace(naive, prediction=rng.random(500)),
            task="binary",
            main="average_precision",
            naive=naive,
            level=level_of(number),
            seed=seed,
        ).passed
        for number in range(30)
    )


# --- a candidate and a champion


def pair(rng, *, count=4000, days=20, worse=0.0, own=0.15, shared=0.3, uneven=0.0, costs=False):
    """Test rows of days; the logits of both models have errors in common and of their own. `worse`: variance that the
    candidate's logits have beside; `uneven`: how much the log of it differs between days.
    """
    day = np.sort(rng.integers(0, days, count))
    logit = -1 + 1.2 * rng.normal(size=count) + 0.4 * rng.normal(size=days)[day]
    truth = (rng.random(count) < sigmoid(logit)).astype(float)
    extra = np.exp(uneven * rng.normal(size=days) - uneven**2 / 2)
    both = logit + shared * rng.normal(size=count)
    champion = both + own * rng.normal(size=count)
    candidate = both + own * rng.normal(size=count) + np.sqrt(worse * extra[day]) * rng.normal(size=count)
    return (
        rows_of(truth, sigmoid(candidate), day, costs=costs),
        rows_of(truth, sigmoid(champion), day, costs=costs),
        rows_of(truth, np.full(count, truth.mean()), day, costs=costs),
    )


def rows_of(truth, answers, day, *, threshold=0.5, costs=False):
    return Rows(
        truth=truth,
        prediction=answers,
        cluster=cluster_codes(day),
        decision=answers >= threshold,
        cost_false_negative=np.ones(len(truth)) if costs else None,
        cost_false_positive=np.ones(len(truth)) if costs else None,
    )


def compared(rules, holds, **terms):
    def run(seed):
        candidate, champion, naive = pair(np.random.default_rng(seed), **terms)
        return holds(
            gate(candidate, task="binary", main="log_loss", naive=naive, champion=champion, rules=rules, seed=seed)
        )

    return run


def excess(worse, uneven, seeds=30):
    """How much more the candidate loses, in expectation over the truth."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng([9, seed])
        logit = -1 + 1.2 * rng.normal(size=20_000) + 0.4 * rng.normal(size=20_000)
        both = logit + 0.3 * rng.normal(size=20_000)
        extra = worse * np.exp(uneven * rng.normal(size=20_000) - uneven**2 / 2)
        draws = rng.normal(size=(2, 20_000))
        champion, candidate = both + 0.15 * draws[0], both + np.sqrt(0.15**2 + extra) * draws[1]
        found.append(np.mean(expected(logit, candidate) - expected(logit, champion)))
    return float(np.mean(found))


def expected(logit, answer):
    """The log loss of `answer` [n] where the truth follows `logit`."""
    return np.logaddexp(0, answer) - sigmoid(logit) * answer


def at_margin(margin, uneven=0.0):
    """The variance that costs the candidate just the margin."""
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle, uneven) < margin else (low, middle)
    return (low + high) / 2


def costly(seed):
    """The same scores; the candidate's threshold makes its cost half as high again."""
    rng = np.random.default_rng(seed)
    count, day = 3000, np.sort(rng.integers(0, 20, 3000))
    chance = rng.beta(0.8, 1.2, count)
    truth = (rng.random(count) < chance).astype(float)
    champion = rows_of(truth, chance, day, costs=True)
    candidate = rows_of(truth, chance, day, threshold=0.9, costs=True)
    naive = rows_of(truth, np.full(count, 0.4), day, costs=True)
    return gate(candidate, task="binary", main="log_loss", naive=naive, champion=champion, seed=seed).passed


def successors(seed):
    """Thirty candidates, each worse than the champion by half of the margin, on new rows; how far the last one fell."""
    rng = np.random.default_rng(seed)
    margin, step = {"rmse": GateRule(margin=0.01)}, 0.005
    champion, first = 1.0, 1.0
    for _ in range(30):
        truth = rng.normal(0, 2, 4000)
        day = np.sort(rng.integers(0, 20, 4000))
        error = rng.normal(size=(3, 4000)) * 0.3 + rng.normal(size=4000) * 0.954
        rows = [
            Rows(truth=truth, prediction=truth + scale * part, cluster=cluster_codes(day))
            for scale, part in zip((champion + step, champion, first), error, strict=True)
        ]
        verdict = gate(
            rows[0],
            task="regression",
            main="rmse",
            naive=replace(rows[0], prediction=np.zeros(4000)),
            champion=rows[1],
            before=Rival(rows=rows[2]) if first != champion else None,
            rules=margin,
            seed=seed,
        )
        if verdict.passed:
            against = "champion_before" if first != champion else "champion"
            if any(rule.against == against and rule.word == "better" for rule in verdict.rules):
                first = champion + step
            champion += step
    return champion > 1.02


# --- few days


def coverage(days, skewed=False):
    def run(seed):
        rng = np.random.default_rng(seed)
        size = 80
        draw = rng.exponential(0.2, days) - 0.2 if skewed else rng.normal(0, 0.2, days)
        loss = 1 + np.repeat(draw, size) + rng.normal(0, 0.3, days * size)
        rows = TrainingSet(
            features=pl.DataFrame({"x": loss}),
            target=np.zeros(len(loss)),
            task="regression",
            at=np.repeat(np.arange(days), size) * DAY + rng.integers(0, DAY, len(loss)),
            rows=np.arange(len(loss)),
        )
        found = evaluate(rows, np.abs(loss), EvaluationPolicy(), resamples=1000, seed=seed).metrics["mae"]
        return found.low <= 1 <= found.high

    return run


# --- rows without times


def grown(by_hash):
    """Equal models; the candidate's data have a tenth more rows, in front. Both learn their rows by heart."""
    parameters = {"num_leaves": 60, "min_child_samples": 2, "learning_rate": 0.3, "rounds": 60}

    def table(rng):
        x = rng.normal(size=(2200, 3))
        bought = rng.random(2200) < sigmoid(2 * x[:, 0] + x[:, 1] - 1)
        return pl.DataFrame({"key": np.arange(2200), "x": x[:, 0], "y": x[:, 1], "z": x[:, 2]}), bought.astype(float)

    def rows_from(frame, truth, begin):
        part = frame[begin:]
        return TrainingSet(
            features=part.drop("key"),
            target=truth[begin:],
            task="binary",
            classes=("no", "yes"),
            identity=row_hashes(part, ["key"]) if by_hash else None,
            rows=np.arange(len(part)),
        )

    def run(seed):
        frame, truth = table(np.random.default_rng(seed))
        spec = TrainingPolicy(target="bought", seed=seed % 5)
        parts = [split(rows_from(frame, truth, begin), EvaluationPolicy(), seed=spec.seed) for begin in (200, 0)]
        champion, candidate = (fit_once(one.train, spec, "lightgbm", parameters) for one in parts)
        test = parts[1].test
        naive = np.full(len(test), parts[1].train.rate)
        answers = [scored(test, model.predict_frame(test.features)) for model in (candidate, champion)]
        found = gate(
            answers[0], task="binary", main="log_loss", naive=scored(test, naive), champion=answers[1], seed=seed
        )
        return found.word == "worse"

    return run


def worlds():
    """The worlds by name."""
    margin = 0.01
    limit = {"log_loss": GateRule(max=0.9)}
    wide = {"log_loss": GateRule(margin=margin)}
    found = {
        "noise AP 5% of 500": World("passes", noise("binary", "average_precision", count=500), most=0.05),
        "noise AP 3% of 400": World("passes", noise("binary", "average_precision", count=400, rate=0.03), most=0.05),
        "noise AP 1% of 3000": World("passes", noise("binary", "average_precision", count=3000, rate=0.01), most=0.05),
        "noise AP 20 days": World("passes", noise("binary", "average_precision", count=2000, days=20), most=0.05),
        "noise AP 20 days followed": World(
            "passes", noise("binary", "average_precision", count=2000, days=20, follows=True), most=0.05
        ),
        "noise AP 60 days followed": World(
            "passes", noise("binary", "average_precision", count=3000, days=60, follows=True), most=0.05
        ),
        "noise AP 5 days": World("passes", noise("binary", "average_precision", count=1000, days=5), most=0.05),
        "noise ROC AUC": World("passes", noise("binary", "roc_auc", count=500), most=0.05),
        "noise log loss": World("passes", noise("binary", "log_loss", count=500, rate=0.3), most=0.05),
        "noise pinball 0.90": World("passes", noise("regression", "pinball_90", count=500), most=0.05),
        "noise MAE": World("passes", noise("regression", "mae", count=500), most=0.05),
        "noise MAE, days": World("passes", noise("regression", "mae", count=2000, days=20, follows=True), most=0.05),
        "noise macro F1": World("passes", noise("multiclass", "macro_f1", count=400), most=0.05),
        "30 noise models on one window": World("one passes", many, most=0.05, part=0.25),
        "equal models": World("is called worse", compared(wide, lambda found: found.word == "worse"), most=0.05),
        "equal models ": World("passes", compared(wide, lambda found: found.passed), least=0.9),
        "equal models, costs declared": World(
            "passes", compared(wide, lambda found: found.passed, costs=True), least=0.9
        ),
        "at the margin, 5 days": World(
            "passes", compared(wide, lambda found: found.passed, worse=at_margin(margin), days=5), most=0.05
        ),
        "at the margin, uneven days": World(
            "passes",
            compared(wide, lambda found: found.passed, worse=at_margin(margin, 0.7), uneven=0.7),
            most=0.05,
        ),
        "at the margin": World(
            "passes", compared(wide, lambda found: found.passed, worse=at_margin(margin)), most=0.05
        ),
        "at twice the margin": World(
            "passes", compared(wide, lambda found: found.passed, worse=at_margin(2 * margin)), most=0.05
        ),
        "a limit on the metric, log loss +0.08": World(
            "passes", compared(limit, lambda found: found.passed, worse=at_margin(0.08)), most=0.05
        ),
        "cost half as high again": World("passes", costly, most=0.05),
        "30 successors, each 0.5% worse": World("falls by over 2%", successors, most=0.05, part=0.25),
        "10% more rows, no times": World("is called worse", grown(by_hash=True), most=0.05, part=0.25),
        "the same, dealt anew (before)": World("is called worse", grown(by_hash=False), part=0.1),
    }
    for days in (2, 3, 5, 7, 10, 20):
        found[f"interval over {days} days"] = World("holds the truth", coverage(days), least=0.93)
    for days in (3, 4, 5, 7, 20):
        found[f"interval over {days} skewed days"] = World("holds the truth", coverage(days, skewed=True), least=0.93)
    return found


def interval(count, runs, level=0.95):
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, runs - count + 1))
    high = 1.0 if count == runs else float(beta.ppf(1 - tail, count + 1, runs - count))
    return low, high


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--world", nargs="*", default=[])
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    print(
        "| world | event | runs | share | 95% interval | bound | seconds |\n|---|---|---|---|---|---|---|", flush=True
    )
    for name, world in worlds().items():
        if asked.world and not any(part in name for part in asked.world):
            continue
        begun, runs = time.monotonic(), max(10, round(asked.runs * world.part))
        count = sum(world.run(asked.first + number) for number in range(runs))
        low, high = interval(count, runs)
        bound = f"at most {world.most:.0%}" if world.most else f"at least {world.least:.0%}" if world.least else ""
        print(
            f"| {name.strip()} | {world.event} | {runs} | {count / runs:.1%} | {low:.1%} to {high:.1%} | {bound} "
            f"| {time.monotonic() - begun:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
