"""How often the gate promotes a model that is worse as served, where the test rows are given back for the final fit.

    python bench/gate/final_fit.py [--runs 100] [--first SEED] [--world NAME ...]

Rows come over 60 days. The champion is fitted when 50 of them are there, the candidate when all are; each has the
newest fifth of its rows as its test. One of the two lacks a feature. Rules that are compared:

    train        served as tested (`final_fit: train`)
    all, served  fitted again on all rows; the gate compares with the served champion on rows newer than it learned
    all, tested  the same, and the gate compares the tested models on rows that neither learned from

Truth is the expected log loss of the served models on the week after. `wrong`: the gate passed a candidate that loses
more there than the champion by over the margin (1%); `right`: of the runs in which the candidate is better, those that
passed; `what serves then`: the mean loss after the decision, with the worse and with the better candidate. Exact 95%
intervals in brackets.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl
from worlds import interval, sigmoid

from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.comparisons import Rival
from cumulant.training.evaluation.evaluation import scored
from cumulant.training.evaluation.gate import gate
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.search.fixed_fit import fit_once

DAY = 86_400_000_000
RULES = ("train", "all, served", "all, tested")
_PARAMETERS = {"num_leaves": 7, "learning_rate": 0.15, "rounds": 50, "min_child_samples": 10}
_SPEC = TrainingPolicy(target="y", threads=1)
_MARGIN, _LEAST = 0.01, 30


@dataclass(frozen=True)
class World:
    """drift: how far the effect of a feature moves in 60 days; jump: by how much it changes on day `changed`.
    fault: share of the labels that are turned around since day 57. test: the candidate's share of test rows.
    timed: without, rows are dealt to the test at random, and keep their side. lacks: effect of the feature that one of
    the two lacks.
    """

    rows: int = 6000
    lacks: float = 0.4
    drift: float = 0.0
    jump: float = 0.0
    changed: float = 55.0
    fault: float = 0.0
    test: float = 0.2
    timed: bool = True


WORLDS = {
    "stationary": World(),
    "drift": World(drift=2.0, lacks=0.8),
    "fast drift": World(drift=5.0, lacks=1.5),
    "jump in the newest rows": World(jump=1.5, lacks=0.7),
    "30% of the newest labels wrong": World(fault=0.3),
    "few rows": World(rows=600, lacks=0.7),
    "no times": World(timed=False),
    "drift, the candidate's test is shorter": World(drift=5.0, lacks=1.8, test=0.04),
}


@dataclass(frozen=True)
class Data:
    day: np.ndarray
    x: np.ndarray
    chance: np.ndarray
    label: np.ndarray
    side: np.ndarray


def drawn(world: World, rng: np.random.Generator) -> Data:
    """60 days of rows, and the week after with as many again."""
    day = np.concatenate([np.sort(rng.uniform(0, 60, world.rows)), rng.uniform(60, 67, 20_000)])
    x = rng.normal(size=(len(day), 4))
    effect = 1 + world.drift * (day / 60 - 0.5) + world.jump * (day >= world.changed)
    chance = sigmoid(-0.5 + effect * x[:, 0] + 0.8 * x[:, 1] * x[:, 2] + world.lacks * x[:, 3])
    label = (rng.random(len(day)) < chance).astype(float)
    turned = (day > 57) & (day < 60) & (rng.random(len(day)) < world.fault)
    return Data(day, x, chance, np.where(turned, 1 - label, label), rng.random(len(day)))


def rows_of(data: Data, chosen: np.ndarray, features: list[int]) -> TrainingSet:
    return TrainingSet(
        features=pl.DataFrame({f"x{one}": data.x[chosen, one] for one in features}),
        target=data.label[chosen],
        task="binary",
        classes=("no", "yes"),
        at=(data.day[chosen] * DAY).astype(np.int64),
        rows=np.arange(int(chosen.sum())),
    )


class Version:
    """A configuration on the rows before day `now`: its tested model and the one that was fitted on all of them."""

    def __init__(self, data: Data, world: World, now: float, features: list[int], test: float, *, refit: bool) -> None:
        known = data.day < now
        self.data, self.features, self.now = data, features, now
        cut = float(np.quantile(data.day[known], 1 - test))
        self.learned = known & (data.day < cut if world.timed else data.side >= test)
        self.test = known & ~self.learned
        self.tested = fit_once(rows_of(data, self.learned, features), _SPEC, "lightgbm", _PARAMETERS)
        self.final = fit_once(rows_of(data, known, features), _SPEC, "lightgbm", _PARAMETERS) if refit else self.tested

    def answers(self, model, chosen: np.ndarray) -> np.ndarray:
        return model.predict_frame(rows_of(self.data, chosen, self.features).features)

    def loss(self, model) -> float:
        """Expected log loss in the week after."""
        after = self.data.day >= 60
        answer, chance = self.answers(model, after), self.data.chance[after]
        return float(-np.mean(chance * np.log(answer) + (1 - chance) * np.log1p(-answer)))


def passed(rule: str, data: Data, world: World, champion: Version, candidate: Version, seed: int) -> bool:
    test = rows_of(data, candidate.test, candidate.features)
    spec = EvaluationPolicy(clusters="auto" if world.timed else "row")
    known = data.day < champion.now
    against, learned = champion.tested, champion.learned
    lag, own = champion.now - data.day[champion.learned].max(), candidate.now - data.day[candidate.learned].max()
    if rule == "all, served" or (rule == "all, tested" and world.timed and own < 0.75 * lag):
        against, learned = champion.final, known if world.timed else data.day < np.inf
    unseen = ~learned[candidate.test]
    rival = Rival(rows=None, reason="too few")
    if unseen.sum() >= _LEAST:
        rival = Rival(rows=scored(test, champion.answers(against, candidate.test), spec), unseen=unseen)
    naive = np.full(len(test), float(data.label[candidate.learned].mean()))
    found = gate(
        scored(test, candidate.answers(candidate.tested, candidate.test), spec),
        task="binary",
        main="log_loss",
        naive=scored(test, naive, spec),
        champion=rival,
        seed=seed,
    )
    return found.passed


def run(world: World, seed: int, *, worse: bool) -> dict[str, tuple[bool, float, float]]:
    """By rule: whether the candidate passed, how much more it loses as served, as a part of the champion's loss, and
    the loss of what serves after the decision.
    """
    data = drawn(world, np.random.default_rng(seed))
    lacking, whole = [0, 1, 2], [0, 1, 2, 3]
    champion = Version(data, world, 50, whole if worse else lacking, 0.2, refit=True)
    candidate = Version(data, world, 60, lacking if worse else whole, world.test, refit=True)
    found = {}
    for rule in RULES:
        models = [one.tested if rule == "train" else one.final for one in (champion, candidate)]
        first, second = champion.loss(models[0]), candidate.loss(models[1])
        taken = passed(rule, data, world, champion, candidate, seed)
        found[rule] = taken, second / first - 1, second if taken else first
    return found


def share(count: int, runs: int) -> str:
    if not runs:
        return "none"
    low, high = interval(count, runs)
    return f"{count} of {runs} [{low:.1%}, {high:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--world", nargs="*", default=[])
    asked = parser.parse_args()
    print("| world | rule | the worse, the better candidate loses | wrong | right | loss of what serves then | CPU s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, world in WORLDS.items():
        if asked.world and not any(part in name for part in asked.world):
            continue
        begun = time.process_time()
        seeds = range(asked.first, asked.first + asked.runs)
        worse, better = ([run(world, seed, worse=which) for seed in seeds] for which in (True, False))
        for rule in RULES:
            wrong = sum(one[rule][0] and one[rule][1] > _MARGIN for one in worse)
            gains = [one[rule] for one in better if one[rule][1] < 0]
            mean = np.mean([one[rule][1] for one in worse]), np.mean([one[rule][1] for one in better])
            serves = [np.mean([one[rule][2] for one in runs]) for runs in (worse, better)]
            print(
                f"| {name} | {rule} | {mean[0]:+.1%}, {mean[1]:+.1%} | {share(wrong, len(worse))} "
                f"| {share(sum(one[0] for one in gains), len(gains))} | {serves[0]:.4f}, {serves[1]:.4f} "
                f"| {time.process_time() - begun:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
