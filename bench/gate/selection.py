"""Thresholds, leaks and quantized forms that choose wrongly: worlds that tried to fool the shipped functions.

Run: `python bench/gate/selection.py [--runs 40] [--parts alerts,rate,leaks,copies,forms,clock] [--json FILE]`. Drives `training_set`, `split`,
`search` and `packaging.quantization.choose` as a training and a packaging do. Prints a line a world: how often it went wrong (or was found), with
the exact 95% interval (Clopper and Pearson).

alerts, rate: a run is wrong where the model gives over 1.25 times the declared alerts on 30 later days, all of whose requests are scored.
leaks, copies: a run is a hit where a warning names the leak. forms: a run is wrong where the form that is taken changes more decisions than the loss.
clock: a run is a hit where a search that its time ended says so, and its records give the same bytes again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import beta

from cumulant.core.units import Rate
from cumulant.training.dataset import training_set
from cumulant.training.policy import EvaluationPolicy, ThresholdPolicy, TrainingPolicy
from cumulant.training.search.refit import refit
from cumulant.training.search.search import search
from cumulant.training.splits import split

DAY, DAYS, FRESH, A_DAY = 86_400_000_000, 100, 30, 200
ALERTS, RATE, BEYOND = 20, 0.05, 1.25
LOSS, ROWS, FORMS = 0.01, 2000, 14


def interval(hits: int, runs: int) -> tuple[float, float]:
    low = float(beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1.0


def times(at):
    return None if at is None else pl.Series(at).cast(pl.Datetime("us"))


# --- thresholds ---------------------------------------------------------------------------------------------------------------------------------


def requests(rng, world, start, days):
    """Features, outcome, moments, true score."""
    growth = 1.0 if world == "traffic doubles in 100 days" else 0.0
    counts = rng.poisson(A_DAY * (1 + growth * np.arange(start, start + days) / 100))
    if world == "no traffic at weekends":
        counts[np.arange(start, start + days) % 7 >= 5] = 0
    at = np.repeat(np.arange(start, start + days), counts) * DAY + rng.integers(0, DAY, counts.sum())
    at.sort()
    x = rng.normal(size=(len(at), 5))
    if world == "one key is a fifth":
        heavy = rng.random(len(at)) < 0.2
        x[heavy] = [1.2, 0.3, 0.0, -0.5, 0.8] + 0.1 * x[heavy]
    if world == "scores rise":
        x[:, 0] += 0.008 * (at / DAY)
    score = 1.2 * x[:, 0] + 0.8 * x[:, 1] * (x[:, 2] > 0) - 2.5
    outcome = rng.random(len(at)) < 1 / (1 + np.exp(-score))
    return pl.DataFrame({f"x{place}": x[:, place] for place in range(5)}), outcome, at, score


def labels(rng, world, score, at):
    """Which rows have a label, and which of these were reviewed."""
    count = len(score)
    if world == "10% labelled":
        return rng.random(count) < 0.1, None
    if world == "only high scores labelled":
        return score > np.quantile(score, 0.7), None
    if world == "only low scores labelled":
        return score < np.quantile(score, 0.9), None
    if world == "labels dry up":
        return rng.random(count) < np.linspace(0.9, 0.05, count), None
    if world.startswith("reviewed"):
        own = rng.random(count) < 0.3
        asked = np.zeros(count, dtype=bool)
        useful = np.where(own, -np.inf, score + rng.normal(scale=0.3, size=count))
        asked[np.argsort(-useful)[: count // 25]] = True
        if world == "reviewed, and at random":
            asked |= ~own & (rng.random(count) < 0.01)
        return own | asked, asked
    if world in ("all labelled", "a sample of 10%"):
        return np.ones(count, dtype=bool), None
    return rng.random(count) < 0.3, None


WORLDS = [
    "all labelled",
    "30% labelled",
    "10% labelled",
    "only high scores labelled",
    "only low scores labelled",
    "labels dry up",
    "a sample of 10%",
    "reviewed",
    "reviewed, and at random",
    "labels 10 days late",
    "no traffic at weekends",
    "one key is a fifth",
    "scores rise",
    "traffic doubles in 100 days",
]


def threshold_run(world, rule, trainers, seed, timed=True):
    """Alerts on later days as a multiple of those declared."""
    rng = np.random.default_rng(seed)
    features, outcome, at, score = requests(rng, world, 0, DAYS)
    has, asked = labels(rng, world, score, at)
    target = pl.Series(
        [bool(value) if known else None for value, known in zip(outcome, has, strict=True)], dtype=pl.Boolean
    )
    spec = TrainingPolicy(target="y", threshold=rule, trainers=trainers, time=None, trials=3, folds=4)
    late = 10 * DAY if world == "labels 10 days late" else 0
    rows = training_set(
        features,
        target,
        spec=spec,
        at=times(at if timed else None),
        known=times(at + late if timed else None),
        reviewed=None if asked is None else pl.Series(asked),
    )
    train = split(rows, EvaluationPolicy(test=0.1)).train
    found = search(train.sample(0.1, counted=True) if world == "a sample of 10%" else train, spec)
    fresh, _, moments, _ = requests(rng, world, DAYS, FRESH)
    reached = (found.best.predict_frame(fresh) >= found.best.threshold).sum()
    days = len(np.unique(moments // DAY))
    return reached / (ALERTS * days if rule.alerts else RATE * len(fresh))


def thresholds(part, runs, out):
    rule = ThresholdPolicy(alerts=Rate(ALERTS, "day")) if part == "alerts" else ThresholdPolicy(rate=RATE)
    cases = [(world, ["linear"], True) for world in WORLDS]
    cases += [(world, ["lightgbm"], True) for world in ("30% labelled", "only high scores labelled", "reviewed")]
    if part == "rate":
        cases += [("30% labelled", ["linear"], False), ("reviewed", ["linear"], False)]
    for world, trainers, timed in cases:
        some = runs if trainers == ["linear"] else max(runs // 4, 5)
        ratios = [threshold_run(world, rule, trainers, seed, timed) for seed in range(some)]
        label = f"{world}, {trainers[0]}" + ("" if timed else ", no times")
        show(
            out,
            part,
            label,
            sum(ratio > BEYOND for ratio in ratios),
            some,
            f"mean {np.mean(ratios):.2f} of what is declared",
        )


# --- leaks --------------------------------------------------------------------------------------------------------------------------------------


def plain(rng, count, share):
    x = rng.normal(size=(count, 6))
    score = 1.2 * x[:, 0] + 0.8 * x[:, 1] + rng.logistic(size=count)
    return x, score > np.quantile(score, 1 - share)


def frame(x, **more):
    return pl.DataFrame({f"x{place}": x[:, place] for place in range(x.shape[1])} | more)


def flipped(rng, y, share=0.01):
    return np.where(rng.random(len(y)) < share, ~y, y)


LEAKS = {
    "copy, 1% flipped": lambda rng, y: flipped(rng, y).astype(float),
    "copy with noise of .3": lambda rng, y: y + rng.normal(scale=0.3, size=len(y)),
    "amount after 60% of events": lambda rng, y: np.where(
        y & (rng.random(len(y)) < 0.6), rng.lognormal(size=len(y)), 0.0
    ),
    "the same, and 0.5% elsewhere": lambda rng, y: np.where(
        (y & (rng.random(len(y)) < 0.6)) | (rng.random(len(y)) < 0.005), rng.lognormal(size=len(y)), 0.0
    ),
    "repaid in 70% of others": lambda rng, y: np.where(
        ~y & (rng.random(len(y)) < 0.7), rng.lognormal(size=len(y)), 0.0
    ),
    "date missing, 1% flipped": lambda rng, y: pl.Series(
        np.where(flipped(rng, y), rng.normal(size=len(y)), np.nan)
    ).fill_nan(None),
    "closing code of 40%": lambda rng, y: np.where(
        y & (rng.random(len(y)) < 0.4), "chargeback", rng.choice(["a", "b", "c"], len(y))
    ),
}
HONEST = {
    "null: normal features": lambda rng, y: rng.normal(size=len(y)),
    "null: a flag 5 times as frequent": lambda rng, y: np.where(y, rng.random(len(y)) < 0.5, rng.random(len(y)) < 0.1),
    "null: strong, AUC .92": lambda rng, y: y * 2.0 + rng.normal(size=len(y)),
    "null: seldom set": lambda rng, y: np.where(rng.random(len(y)) < 0.05, rng.lognormal(size=len(y)), 0.0),
    "null: names of rows": lambda rng, y: np.array([f"r{place}" for place in range(len(y))]),
    "null: 60 shops": lambda rng, y: rng.choice([f"s{place}" for place in range(60)], len(y)),
}


def leaks(runs, out):
    for name, make in (LEAKS | HONEST).items():
        for count, share in ((1500, 0.5), (1500, 0.1), (10_000, 0.02)):
            hits = 0
            for seed in range(runs):
                rng = np.random.default_rng(seed)
                x, y = plain(rng, count, share)
                spec = TrainingPolicy(target="y")
                rows = training_set(frame(x, gift=make(rng, y)), pl.Series(y), spec=spec)
                hits += any("alone tells" in text for text in (*getattr(rows, "warnings", ()), *rows.notes))
            show(out, "leaks", f"{name}; {count:,} rows, {share:.0%} positive", hits, runs)


def copied(rng, world, count):
    x, y = plain(rng, count, 0.3)
    groups = None
    if world == "a fifth of rows again, noise 1%":
        again = rng.choice(count, count // 5)
        x, y = np.concatenate([x, x[again] + 0.01 * rng.normal(size=(len(again), 6))]), np.concatenate([y, y[again]])
        order = rng.permutation(len(y))
        x, y = x[order], y[order]
    elif world != "null: independent rows":
        customer = rng.integers(0, count // 5, count)
        x = x[customer] + 0.02 * rng.normal(size=x.shape)
        own = 1.2 * x[:, 0] + 0.8 * x[:, 1] + rng.logistic(size=count) > 1
        y = own if world == "null: customers, labels of their own" else y[customer]
        groups = pl.Series(customer) if world == "null: customers, grouped" else None
    return x, y, groups


def copies(runs, out):
    for world in (
        "a fifth of rows again, noise 1%",
        "customers with one label",
        "null: customers, grouped",
        "null: customers, labels of their own",
        "null: independent rows",
    ):
        for timed in (False, True):
            if timed and world == "null: customers, grouped":
                continue
            hits = 0
            for seed in range(runs):
                x, y, groups = copied(np.random.default_rng(seed), world, 2000)
                spec = TrainingPolicy(target="y", trainers=["linear"], time=None, threshold=0.5)
                at = times(np.arange(len(y)) * DAY // 24) if timed else None
                rows = training_set(frame(x), pl.Series(y), spec=spec, at=at, known=at, groups=groups)
                hits += any(
                    "near copies" in text
                    for text in search(split(rows, EvaluationPolicy()).train, spec).summary.warnings
                )
            show(out, "copies", f"{world}; {'in time order' if timed else 'at random'}", hits, runs)


# --- quantized forms and the clock ----------------------------------------------------------------------------------------------------------------


def forms(runs, out):
    from cumulant.packaging.quantize.choice import ORIGINAL, FormTrial, choose_form
    from cumulant.packaging.quantize.decisions import exact_limit
    from cumulant.packaging.quantize.measure import agreement_bound, measure_agreement

    def drawn(rng, shares, ordered):
        hits = rng.binomial(ROWS, shares)
        far = 1 - np.array(shares) if ordered else rng.random(len(shares))
        return [FormTrial(ORIGINAL, 100, 1.0)] + [
            FormTrial(
                f"form {k}", 90 - k, hits[k] / ROWS, bound=exact_limit(int(hits[k]), ROWS), distance=float(far[k])
            )
            for k in range(len(shares))
        ]

    limit = 1 - LOSS - 1e-9
    worlds = {
        "14 forms that just miss the loss": [limit] * FORMS,
        "5 sound, then 9 that just miss it": [0.9999] * 5 + [limit] * 9,
        "5 sound, then worse and worse": [0.9999] * 5 + list(np.linspace(limit, 0.95, 9)),
    }
    many = runs * 50
    for name, shares in worlds.items():
        for ordered in (True, False):
            wrong = 0
            for seed in range(many):
                found = choose_form(drawn(np.random.default_rng(seed), shares, ordered), aim="size", accuracy_loss=LOSS)
                chosen = next(place for place, one in enumerate(found) if one.chosen)
                wrong += chosen > 0 and shares[chosen - 1] < 1 - LOSS
            show(out, "forms", f"{name}; {'nearest first' if ordered else 'order by chance'}", wrong, many)
    sound = sum(
        choose_form(drawn(np.random.default_rng(seed), [0.9999, 0.9995, 0.999], True), aim="size", accuracy_loss=LOSS)[
            3
        ].chosen
        for seed in range(many)
    )
    show(out, "forms", "power: the smallest of 3 sound forms is taken", sound, many)
    decisions(runs, out, measure_agreement, agreement_bound)


def decisions(runs, out, agreement, bound):
    """Scores of a rare class near .05, of which a form moves a quarter across: the largest class never changes."""
    for name, threshold in (("threshold 0.05 declared", 0.05), ("no threshold", None)):
        taken, least = 0, []
        for seed in range(runs):
            rng = np.random.default_rng(seed)
            p = rng.beta(1, 15, ROWS)
            near = rng.random(ROWS) < 0.25
            p[near] = 0.05 - 1e-3 * rng.random(near.sum())
            moved = np.where(near, p + 2e-3, p)
            pair = [[np.stack([1 - one, one], axis=1).astype(np.float32)] for one in (p, moved)]
            least.append(agreement(*pair, threshold))
            taken += bound(*pair, threshold) >= 1 - LOSS
        show(
            out,
            "forms",
            f"a quarter of decisions at .05 change; {name}",
            taken,
            runs,
            f"agreement {np.mean(least):.2%}",
        )


def clock(runs, out):
    some, told, same, trials = max(runs // 8, 3), 0, 0, []
    for seed in range(some):
        x, y = plain(np.random.default_rng(seed), 8000, 0.2)
        spec = TrainingPolicy(target="y", trainers=["lightgbm"], time=timedelta(seconds=3), trials=500, folds=3)
        rows = training_set(frame(x), pl.Series(y), spec=spec)
        found = search(rows, spec)
        trials.append(len(found.trials))
        told += any("ended this search" in note for note in found.summary.notes)
        again = refit(replace(rows), spec, found.summary, found.trials)
        with tempfile.TemporaryDirectory() as folder:
            made = [
                {file.name: file.read_bytes() for file in model.to_folder(Path(folder) / name).iterdir()}
                for name, model in (("a", found.best), ("b", again))
            ]
        same += made[0] == made[1]
    show(out, "clock", "a search that 3 s ended says so", told, some, f"trials {min(trials)} to {max(trials)}")
    show(out, "clock", "its records give the same model", same, some)


def show(out, part, world, hits, runs, more=""):
    low, high = interval(hits, runs)
    out.append({"part": part, "world": world, "hits": int(hits), "runs": runs, "low": low, "high": high, "more": more})
    print(f"| {part} | {world} | {hits} of {runs} | {low:.1%} to {high:.1%} | {more} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--parts", default="alerts,rate,leaks,copies,forms,clock")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    out: list[dict] = []
    begun = time.monotonic()
    print("| part | world | runs | exact 95% interval | |\n|---|---|---|---|---|")
    for part in options.parts.split(","):
        if part in ("alerts", "rate"):
            thresholds(part, options.runs, out)
        else:
            {"leaks": leaks, "copies": copies, "forms": forms, "clock": clock}[part](options.runs, out)
    print(f"\n{time.monotonic() - begun:.0f} s", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
