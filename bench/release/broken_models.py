"""How often a release with default settings promotes a broken model, and a sound one that was trained again.

    python bench/release/broken_models.py DATA [--runs 200] [--tasks flights,payments,incomes] [--kinds ...]
        [--cache FOLDER] [--json FILE] [--first SEED] [--seconds 600]

DATA is the folder of public tables. Each run trains a champion and a candidate on real rows up to a moment of its own,
breaks the candidate, compares both on the labelled rows after it (`paired_evaluation`, `refusal`), and drives what may
begin through the release's stages over the rows after those: `accumulate.seen`, `guard` and `decide`, look by look, with
the scores that both models give. No label comes in time. Requests fail and take as long on both arms alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from broken_tasks import DAY, Task, fitted, tasks
from scipy import stats

from cumulant.core.traffic import Arm
from cumulant.flows.release.start.paired_evaluation import value_texts
from cumulant.project.release_section import release_policy
from cumulant.release.admission import refusal, with_margins
from cumulant.release.decide import act_on_failure, build_failure_reference, decide, start
from cumulant.release.evidence.accumulate import count_look, with_history
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.health import ArmHealth, RecentHealth, find_hard_failure
from cumulant.release.evidence.look import Look, Requests, ScorePairs
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_evaluation import block_seconds, fewest_pairs
from cumulant.release.paired.paired_records import PairedEvaluation
from cumulant.release.paired.paired_rows import PairedRows, paired_evaluation
from cumulant.release.spec import ReleaseSpec
from cumulant.release.state import Release

KINDS = (
    "sound",
    "random",
    "inverted",
    "constant",
    "shuffled_label",
    "stale_feature",
    "segment_inverted",
    "segment_noise",
    "leaking",
    "nan_for_new",
)
#: requests a second, share of failed ones, seconds of a look
RATE, ERRORS, LOOK = 50, 0.001, 60
_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
_DAYS, _GAP = 21, 10


@dataclass(frozen=True)
class Rows:
    """Positions of rows: trained on by the champion and by the candidate, labelled past, and of the release."""

    champion: np.ndarray
    candidate: np.ndarray
    past: np.ndarray
    release: np.ndarray


@dataclass(frozen=True)
class Scored:
    """Both models' answers to the labelled rows of the past, and to the rows of the release."""

    past: tuple[np.ndarray, np.ndarray]
    release: tuple[np.ndarray, np.ndarray]


def split(task: Task, rng: np.random.Generator) -> Rows:
    """Rows of one run: by a moment of its own, or at random where rows have no time."""
    if task.at is None:
        order = rng.permutation(len(task.label))
        first, last = round(task.train * 0.75), task.train
        ends = (last, last + task.past)
        return Rows(order[:first], order[:last], order[ends[0] : ends[1]], order[ends[1] :])
    days = (task.at - task.at[0]) / DAY
    cut = rng.uniform(*((180, 290) if days[-1] > 200 else (20, 30)))
    until = np.searchsorted(days, cut)
    before = np.arange(until)
    champion = before[days[:until] < cut - (_GAP if cut > 100 else 4)]
    chosen = [
        np.sort(rng.choice(one[-6 * task.train :], min(task.train, len(one)), replace=False))
        for one in (champion, before)
    ]
    past = np.arange(until, np.searchsorted(days, cut + _DAYS + (24 if cut > 100 else 0)))[-task.past :]
    return Rows(chosen[0], chosen[1], past, np.arange(past[-1] + 1, min(len(days), past[-1] + 20_001)))


def scored(task: Task, rows: Rows, kind: str, rng: np.random.Generator) -> Scored:
    """The champion's and the broken candidate's answers."""
    seed = int(rng.integers(2**31))
    champion = fitted(task.features[rows.champion], task.label[rows.champion], seed)
    truth = [champion.predict(task.features[index]) for index in (rows.past, rows.release)]
    answers = _BREAK[kind](task, rows, rng)
    return Scored((truth[0], answers[0]), (truth[1], answers[1]))


Pair = tuple[np.ndarray, np.ndarray]


def _sound(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    model = fitted(task.features[rows.candidate], task.label[rows.candidate], int(rng.integers(2**31)))
    return model.predict(task.features[rows.past]), model.predict(task.features[rows.release])


def _random(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    first, second = _sound(task, rows, rng)
    return rng.permutation(first), rng.permutation(second)


def _inverted(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    first, second = _sound(task, rows, rng)
    return 1 - first, 1 - second


def _constant(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    del rng
    mean = task.label[rows.candidate].mean()
    return np.full(len(rows.past), mean), np.full(len(rows.release), mean)


def _shuffled(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    label = rng.permutation(task.label[rows.candidate])
    model = fitted(task.features[rows.candidate], label, int(rng.integers(2**31)))
    return model.predict(task.features[rows.past]), model.predict(task.features[rows.release])


def _stale(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    """Sound offline; online the stored features are those of other rows, as a store that no longer moves on gives."""
    model = fitted(task.features[rows.candidate], task.label[rows.candidate], int(rng.integers(2**31)))
    late = task.features[rows.release].copy()
    late[:, task.stale] = task.features[
        rng.permutation(rows.past)[: len(late)] if len(rows.past) >= len(late) else rng.choice(rows.past, len(late))
    ][:, task.stale]
    return model.predict(task.features[rows.past]), model.predict(late)


def _segment(
    task: Task, index: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """About a twentieth of the rows: one value of a text, else a range of the first number."""
    del rng
    best = (1.0, "", "")
    for name, values in task.texts.items():
        names, counts = np.unique(values[index], return_counts=True)
        shares = counts / len(index)
        place = int(np.abs(shares - 0.05).argmin())
        best = min(best, (abs(float(shares[place]) - 0.05), name, str(names[place])))
    if best[1]:
        return task.texts[best[1]][index] == best[2], lambda other: task.texts[best[1]][other] == best[2]
    low, high = np.quantile(task.features[index, 0], [0.60, 0.65])
    inside = lambda other: (task.features[other, 0] > low) & (task.features[other, 0] <= high)  # noqa: E731
    return inside(index), inside


def _segment_inverted(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    first, second = _sound(task, rows, rng)
    past, of = _segment(task, rows.past, rng)
    return np.where(past, 1 - first, first), np.where(of(rows.release), 1 - second, second)


def _segment_noise(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    """In the segment each row gets the answer of another row of it."""
    first, second = _sound(task, rows, rng)
    past, of = _segment(task, rows.past, rng)
    found = []
    for answers, chosen in ((first, past), (second, of(rows.release))):
        mixed = answers.copy()
        mixed[chosen] = rng.permutation(answers[chosen])
        found.append(mixed)
    return found[0], found[1]


def _leaking(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    """A column that holds the label in 98 of 100 labelled rows, and nothing yet when a request comes."""
    leak = np.abs(task.label - (rng.random(len(task.label)) < 0.02))
    wide = np.column_stack([task.features, leak])
    model = fitted(wide[rows.candidate], task.label[rows.candidate], int(rng.integers(2**31)))
    online = wide[rows.release].copy()
    online[:, -1] = np.nan
    return model.predict(wide[rows.past]), model.predict(online)


def _nan(task: Task, rows: Rows, rng: np.random.Generator) -> Pair:
    """No number for values that came up after the training: one row in a thousand of the release alone."""
    first, second = _sound(task, rows, rng)
    return first, np.where(rng.random(len(second)) < 0.001, np.nan, second)


_BREAK: dict[str, Callable[[Task, Rows, np.random.Generator], Pair]] = {
    "sound": _sound,
    "random": _random,
    "inverted": _inverted,
    "constant": _constant,
    "shuffled_label": _shuffled,
    "stale_feature": _stale,
    "segment_inverted": _segment_inverted,
    "segment_noise": _segment_noise,
    "leaking": _leaking,
    "nan_for_new": _nan,
}


def decision_at(task: Task, answers: Scored, rows: Rows) -> tuple[float, float]:
    """Each model's threshold: the declared one, or what gives so many alerts on the past."""
    del rows
    if task.alerts is None:
        return task.threshold, task.threshold
    cuts = [float(np.quantile(one[np.isfinite(one)], 1 - task.alerts)) for one in answers.past]
    return cuts[0], cuts[1]


def evaluated(task: Task, answers: Scored, rows: Rows) -> PairedEvaluation | None:
    """Both models on the labelled rows of the past."""
    label, (one, other), cuts = task.label[rows.past], answers.past, decision_at(task, answers, rows)
    segments = {
        name: value_texts(
            pl.Series(name, task.texts[name][rows.past] if name in task.texts else task.features[rows.past, place])
        )
        for place, name in enumerate(task.columns)
    }
    return paired_evaluation(
        PairedRows(
            champion=one,
            candidate=other,
            champion_loss=(one - label) ** 2,
            candidate_loss=(other - label) ** 2,
            baseline_loss=float(label.var()),
            loss="brier",
            differs=(one >= cuts[0]) != (other >= cuts[1]),
            at=None if task.at is None else task.at[rows.past],
            segments=segments,
        )
    )


def released(
    task: Task, answers: Scored, rows: Rows, evaluation: PairedEvaluation, rng: np.random.Generator
) -> Release:
    """The release from its first look to its end."""
    policy = with_margins(release_policy(ReleaseSpec(look=f"{LOOK}s", block=f"{LOOK}s")), evaluation)
    margin = metrics(policy)["quality"].margin
    seconds = None if margin is None else block_seconds(evaluation, margin=margin)
    looks = {"quality": max(1, round((seconds or LOOK) / LOOK))}
    count = RATE * LOOK
    history = rng.poisson(count, 1440).astype(float)
    bad = np.stack([rng.binomial(history.astype(int), share) for share in (ERRORS, 0.0, 0.05)], axis=1).astype(float)
    slow = float(np.exp(np.log(20_000) + 0.5 * stats.norm.ppf(0.95)))
    release = Release(
        id="bench",
        model=task.name,
        champion=Arm(name="champion", version="1", endpoints=("http://a",)),
        candidate=Arm(name="candidate", version="2", endpoints=("http://b",)),
        policy=policy,
        looks_by_metric=looks,
        fewest_by_metric={"quality": fewest_pairs(evaluation)},
        evaluation=evaluation,
        begun=_BEGUN,
    )
    release = start(with_history(release, ChampionHistory(requests=history, bad=bad, slow_us=slow)))
    cuts, place, clock = decision_at(task, answers, rows), 0, 0
    while not release.over and clock < 3 * 86_400:
        clock += LOOK
        at = _BEGUN + timedelta(seconds=clock)
        one = _requests(count, release.step.weight / 100, rng)
        mirrored = rng.binomial(int((~one.candidate).sum()), release.step.mirror / 100)
        index = (place + np.arange(mirrored)) % len(rows.release)
        place += mirrored
        champion, candidate = answers.release[0][index], answers.release[1][index]
        whole = np.isfinite(candidate)
        health = RecentHealth(candidate=ArmHealth(misshapen=int((~whole).sum())))
        failure = find_hard_failure(health, release.policy.ceilings, build_failure_reference(release))
        release = act_on_failure(release, failure, at=at)
        pairs = ScorePairs(
            champion=champion[whole],
            candidate=candidate[whole],
            differs=((champion >= cuts[0]) != (candidate >= cuts[1]))[whole],
        )
        release, skewed = count_look(release, Look(seconds=LOOK, requests=one, pairs=pairs))
        release = decide(release, skewed=skewed, at=at)
    return release


def _requests(count: int, weight: float, rng: np.random.Generator) -> Requests:
    size = rng.poisson(count)
    candidate = rng.random(size) < weight
    return Requests(
        candidate=candidate,
        failed=rng.random(size) < ERRORS,
        timed_out=np.zeros(size, dtype=bool),
        micros=np.exp(np.log(20_000) + 0.5 * rng.normal(size=size)),
        key=np.zeros(size, dtype=np.uint64),
    )


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How one candidate ended: `refused` before the release began, or as the release did."""

    end: str
    reason: str
    seconds: float = 0.0


def run(task: Task, kind: str, seed: int) -> Run:
    """One candidate from its training to its end."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    rows = split(task, np.random.default_rng(seed))
    answers = scored(task, rows, kind, rng)
    evaluation = evaluated(task, answers, rows)
    if evaluation is None:
        return Run(end="refused", reason="no answers")
    why = refusal(release_policy(ReleaseSpec()), evaluation)
    if why is not None:
        return Run(end="refused", reason=why.metric + ": " + why.text)
    release = released(task, answers, rows, evaluation, rng)
    seconds = sum(one.seconds for one in release.passed)
    return Run(end=release.status if release.over else "cut off", reason=release.reason, seconds=seconds)


def told(task: str, kind: str, runs: list[Run]) -> dict[str, object]:
    """One line: shares with exact intervals, and what most ended for."""
    promoted = sum(one.end == "promoted" for one in runs)
    low, high = stats.binomtest(promoted, len(runs)).proportion_ci(0.95, "exact")
    times = sorted(one.seconds for one in runs if one.end == "promoted")
    return {
        "task": task,
        "kind": kind,
        "runs": len(runs),
        "promoted": promoted,
        "share": round(promoted / len(runs), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "ends": dict(Counter(one.end for one in runs)),
        "minutes": round(times[len(times) // 2] / 60) if times else None,
        "by_180_minutes": sum(one <= 180 * 60 for one in times),
        "reasons": Counter(one.reason[:60] for one in runs).most_common(3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--tasks", default="flights,payments,incomes")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--cache", type=Path, default=Path("broken-models"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    begun, found = time.monotonic(), defaultdict(list)
    every = list(tasks(options.data, options.cache, tuple(options.tasks.split(","))))
    for seed in range(options.first, options.first + options.runs):
        if time.monotonic() - begun > options.seconds:
            break
        for task in every:
            for kind in options.kinds.split(","):
                found[task.name, kind].append(run(task, kind, seed))
    lines = [told(task, kind, runs) for (task, kind), runs in found.items()]
    for line in lines:
        print(json.dumps(line))
    if options.json is not None:
        options.json.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
