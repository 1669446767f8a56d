"""How often release rules roll back a candidate that is no worse, and how soon they find one that is.

    python bench/release/simulate.py [--releases 2000] [--processes 2] [--json FILE] [--promotion]
        [--parts FOLDER [--seconds 240]]

180 requests/s to the champion, 20 to the candidate, errors 0.5%, a look every 10 s for 30 minutes. Peers' practices are
stylised: their rule, at a common setting, on the same simulated counts. Latencies are lognormal (sigma 0.5).
`--promotion` asks the other question: how many candidates at the margin (1% of errors, 0.5 points above the champion)
are shown to be within it, and how soon a candidate that is as good as the champion is.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import special, stats

from cumulant.statistics.sequential import RateDesign, Rates, merge_factor, merged

LOOKS, SECONDS = 180, 10
CHAMPION, CANDIDATE = 1800, 200
RATE, ALPHA = 0.005, 0.05
SIGMA, SLOW = 0.5, 0.05  # of log latency; share of champion's requests above the threshold
CHUNK = 125
BLOCK = 250  # releases that share one seed, and one history of the champion


@dataclass(frozen=True)
class Data:
    """Counts [releases, looks]; `first` are the same with a key counted once; `history` [looks] the champion's before."""

    na: np.ndarray
    ka: np.ndarray
    nb: np.ndarray
    kb: np.ndarray
    first: tuple[np.ndarray, np.ndarray] | None = None
    history: np.ndarray | None = None


def arrivals(rng, releases):
    return rng.poisson(CHAMPION, (releases, LOOKS)), rng.poisson(CANDIDATE, (releases, LOOKS))


def counts(rng, releases, pa, pb, history=None):
    na, nb = arrivals(rng, releases)
    return Data(na, rng.binomial(na, np.clip(pa, 0, 1)), nb, rng.binomial(nb, np.clip(pb, 0, 1)), history=history)


def plain(ratio=1.0, rate=RATE):
    return lambda rng, releases: counts(rng, releases, rate, rate * ratio)


def bursts(shared, cv=1.0, ratio=1.0, candidate_only=False):
    def make(rng, releases):
        a = np.ones((releases, LOOKS)) if candidate_only else rng.gamma(cv**-2, cv**2, (releases, LOOKS))
        b = a if shared else rng.gamma(cv**-2, cv**2, (releases, LOOKS))
        return counts(rng, releases, RATE * a, RATE * ratio * b)

    return make


def lognormal_bursts(rng, releases, sigma=1.5):
    a, b = (np.exp(sigma * rng.normal(size=(releases, LOOKS)) - sigma**2 / 2) for _ in range(2))
    return counts(rng, releases, RATE * a, RATE * b)


def outages(rng, releases, chance=0.02):
    """Calm at 0.2%, but in one look of fifty, on one arm, 15%."""
    a, b = (np.where(rng.random((releases, LOOKS)) < chance, 0.15, 0.002) for _ in range(2))
    return counts(rng, releases, a, b)


def slow_bursts(ratio=1.0, keep=0.7):
    """Own bursts with autocorrelation: gamma bursts made from normal numbers that follow each other."""

    def level(rng, shape):
        return stats.gamma.ppf(stats.norm.cdf(chain(rng, shape, keep)), 1.0)

    def make(rng, releases):
        before = rng.binomial(rng.poisson(CHAMPION, 4 * LOOKS), np.clip(RATE * level(rng, (1, 4 * LOOKS))[0], 0, 1))
        shape = (releases, LOOKS)
        return counts(rng, releases, RATE * level(rng, shape), RATE * ratio * level(rng, shape), before / CHAMPION)

    return make


def chain(rng, shape, keep):
    z = rng.normal(size=shape)
    for i in range(1, shape[1]):
        z[:, i] = keep * z[:, i - 1] + math.sqrt(1 - keep**2) * z[:, i]
    return z


def degrade(rng, releases):
    p = np.where(np.arange(LOOKS) < LOOKS // 2, RATE, 0.02)
    return counts(rng, releases, p, p)


def keys(ratio=1.0, number=20_000):
    """Sticky keys with Pareto(1.2) activity and gamma failure rates (shape 1/4): a heavy key fails again and again."""

    def make(rng, releases):
        parts = [one_release(np.random.default_rng(s), ratio, number) for s in rng.integers(0, 2**62, releases)]
        ka, kb, fa, fb = (np.stack(x) for x in zip(*parts, strict=True))
        na, nb = arrivals(rng, releases)
        return Data(np.maximum(na, ka), ka, np.maximum(nb, kb), kb, first=(fa, fb))

    return make


def one_release(rng, ratio, number):
    activity = np.minimum(rng.pareto(1.2, number) + 1, 2000)
    activity *= (CHAMPION + CANDIDATE) / activity.sum()
    arm = rng.random(number) < CANDIDATE / (CHAMPION + CANDIDATE)
    fails = RATE * rng.gamma(0.25, 4, number) * np.where(arm, ratio, 1) * activity
    total = rng.poisson(fails * LOOKS)  # failures of a key over the release fall anywhere
    who = np.repeat(np.arange(number), total)
    when = rng.integers(0, LOOKS, len(who))
    order = np.argsort(when, kind="stable")
    new = np.zeros(len(who), bool)
    new[order[np.unique(who[order], return_index=True)[1]]] = True
    out = []
    for chosen in (np.ones(len(who), bool), new):
        out += [np.bincount(when[chosen & (arm[who] == side)], minlength=LOOKS) for side in (False, True)]
    return out


def latency(slower=1.0, keep=0.7, wander=0.1):
    """Slow requests: above the champion's 95th percentile. The log latency of each arm wanders with autocorrelation."""

    def share(z, factor):
        spread = math.sqrt(SIGMA**2 + wander**2)
        return stats.norm.sf((stats.norm.isf(SLOW) * spread - math.log(factor) - wander * z) / SIGMA)

    def make(rng, releases):
        before = rng.binomial(CHAMPION, share(chain(rng, (1, 4 * LOOKS), keep), 1)[0]) / CHAMPION
        za, zb = (chain(rng, (releases, LOOKS), keep) for _ in range(2))
        return counts(rng, releases, share(za, 1), share(zb, slower), before)

    return make


# -- rules: first look (from 0) with a rollback, -1 for none


def first(hit):
    return np.where(hit.any(1), hit.argmax(1), -1)


def window(x, k=6):
    c = np.cumsum(np.pad(x, ((0, 0), (k, 0))), 1)
    return c[:, k:] - c[:, :-k]


def success_rate(d, limit=0, most=0.01):
    bad = window(d.kb) > most * window(d.nb)
    due = np.arange(LOOKS) % 6 == 5
    return first(np.cumsum(bad & due, 1) > limit)


def mann_whitney(d):
    k = LOOKS // 6
    a, b = ((x.reshape(-1, k, 6).sum(2) / n.reshape(-1, k, 6).sum(2)) for x, n in ((d.ka, d.na), (d.kb, d.nb)))
    p = stats.mannwhitneyu(b, a, axis=1, alternative="two-sided").pvalue
    return np.where((p < 0.02) & (b.mean(1) > a.mean(1)), LOOKS - 1, -1)


def peeked_z(d):
    na, ka, nb, kb = (np.cumsum(x, 1) for x in (d.na, d.ka, d.nb, d.kb))
    p = (ka + kb) / (na + nb)
    z = (kb / nb - ka / na) / np.sqrt(np.maximum(p * (1 - p) * (1 / na + 1 / nb), 1e-12))
    return first((z > stats.norm.ppf(1 - ALPHA)) & (kb >= 5))


def plain_mixture(d):
    grid = np.exp(np.linspace(np.log(1.2), np.log(10), 25))
    q0 = d.nb / (d.nb + d.na)
    logs = []
    for g in grid:
        q = g * d.nb / (g * d.nb + d.na)
        logs.append(np.cumsum(d.kb * np.log(q / q0) + d.ka * np.log((1 - q) / (1 - q0)), 1))
    return first(special.logsumexp(logs, axis=0) - np.log(len(grid)) >= np.log(1 / ALPHA))


def ours(d):
    """Blocks by the rule from the champion's history, and first events where keys are known."""
    factor = 1 if d.history is None else merge_factor(d.history)
    ka, kb = (d.ka, d.kb) if d.first is None else d.first
    na, ka, nb, kb = (merged(x, factor) for x in (d.na, ka, d.nb, kb))
    rate = (ka.sum() + kb.sum()) / (na.sum() + nb.sum())
    design = RateDesign(lowest=rate / 16, highest=min(rate * 32, 0.9), step=0.1)
    found = [
        watched(design, na[i : i + CHUNK], ka[i : i + CHUNK], nb[i : i + CHUNK], kb[i : i + CHUNK])
        for i in range(0, len(na), CHUNK)
    ]
    look = np.concatenate(found)
    return np.where(look >= 0, (look + 1) * factor - 1, -1)


def watched(design, na, ka, nb, kb, test=Rates.log_harm):
    look, alive = np.full(len(na), -1), np.arange(len(na))
    state = Rates.start(design, batch=(len(na),))
    for i in range(na.shape[1]):
        state = state.add(
            champion_requests=na[alive, i],
            champion_bad=ka[alive, i],
            candidate_requests=nb[alive, i],
            candidate_bad=kb[alive, i],
        )
        hit = test(state) >= math.log(1 / ALPHA)
        if hit.any():
            look[alive[hit]] = i
            alive = alive[~hit]
            state = Rates(design, state.champion[~hit], state.candidate[~hit], state.blocks)
        if not len(alive):
            break
    return look


def within_margin(d):
    design = RateDesign(lowest=RATE / 16, highest=RATE * 32, step=0.1)
    parts = [tuple(x[i : i + CHUNK] for x in (d.na, d.ka, d.nb, d.kb)) for i in range(0, len(d.na), CHUNK)]
    return np.concatenate([watched(design, *part, test=lambda s: s.log_not_worse(difference=RATE)) for part in parts])


PROMOTIONS = {
    "at the margin, independent": plain(2),
    "at the margin, own bursts": bursts(shared=False, ratio=2),
    "at the margin, shared bursts": bursts(shared=True, ratio=2),
    "equal, independent": plain(),
    "equal, own bursts": bursts(shared=False),
    "half the errors, independent": plain(0.5),
}


def promotion(name, seed):
    began = time.perf_counter()
    look = within_margin(PROMOTIONS[name](np.random.default_rng(seed), BLOCK))
    return name, {"promoted": (look, time.perf_counter() - began)}


RULES: dict[str, Callable] = {
    "success rate >= 99% a minute": success_rate,
    "five failed checks in all": partial(success_rate, limit=4),
    "one-look Mann-Whitney (30 min)": mann_whitney,
    "z test, peeked": peeked_z,
    "plain mixture e-process": plain_mixture,
    "ours": ours,
}
NULLS = {
    "independent": plain(),
    "both at 2%": plain(rate=0.02),
    "both degrade to 2%": degrade,
    "shared bursts": bursts(shared=True),
    "own bursts": bursts(shared=False),
    "candidate's bursts": bursts(shared=False, candidate_only=True),
    "own bursts, gamma CV 3": bursts(shared=False, cv=3.0),
    "own bursts, lognormal CV 2.9": lognormal_bursts,
    "rare outages of one arm": outages,
    "slow own bursts": slow_bursts(),
    "clustered keys": keys(),
    "latency, autocorrelated": latency(),
}
HARMS = {
    "errors x1.5": plain(1.5),
    "errors x2": plain(2),
    "errors x3": plain(3),
    "errors x10": plain(10),
    "x3, own bursts": bursts(shared=False, ratio=3),
    "x3, shared bursts": bursts(shared=True, ratio=3),
    "x3, clustered keys": keys(3),
    "latency +20%": latency(1.2),
    "latency +50%": latency(1.5),
    "latency +100%": latency(2),
}


def scenario(name, seed):
    """The looks of rollback in BLOCK releases by each rule, and how long each took."""
    made = {**NULLS, **HARMS}[name](np.random.default_rng(seed), BLOCK)
    told = {}
    for rule, judge in RULES.items():
        if name.startswith("latency") and rule in {"success rate >= 99% a minute", "five failed checks in all"}:
            judge = partial(judge, most=0.1)  # noqa: PLW2901  a limit on slow requests: twice the usual share
        began = time.perf_counter()
        told[rule] = (judge(made), time.perf_counter() - began)
    return name, told


def summary(look, seconds):
    hit = look >= 0
    when = np.sort(np.where(hit, look + 1, np.inf))
    median = when[(len(when) - 1) // 2]
    lower = stats.beta.ppf(0.001, max(hit.sum(), 1e-9), len(hit) - hit.sum() + 1)
    some = np.isfinite(median)
    return {
        "releases": len(look),
        "rolled_back": float(hit.mean()),
        "lower_99_9": round(float(lower), 6),
        "median_s": float(median * SECONDS) if some else None,
        "median_requests": float(median * CANDIDATE) if some else None,
        "ms_a_release": round(1000 * seconds / len(look), 6),
    }


def table(told):
    lines = ["| | " + " | ".join(RULES) + " |", "|---" * (len(RULES) + 1) + "|"]
    for name in NULLS:
        cells = [f"{told[name][rule]['rolled_back']:.1%}" for rule in RULES]
        lines.append(f"| false: {name} | " + " | ".join(cells) + " |")
    lines += [f"| found: {name} | " + " | ".join(found(told[name][rule]) for rule in RULES) + " |" for name in HARMS]
    return "\n".join(lines)


def found(one):
    when = f", {one['median_s']:.0f} s, {one['median_requests']:.0f}" if one["median_s"] else ""
    return f"{one['rolled_back']:.1%}{when}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--releases", type=int, default=2000, help=f"in steps of {BLOCK}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", help="rewritten whenever a scenario has more releases")
    parser.add_argument("--promotion", action="store_true")
    parser.add_argument("--parts", type=Path, help="a folder that keeps each block of releases: a later run goes on")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no block after so long; exit code 3")
    given = parser.parse_args()
    if given.releases < BLOCK:
        parser.error(f"--releases is {BLOCK} or more")
    names = [*PROMOTIONS] if given.promotion else [*HARMS, *NULLS]
    looks = {name: {rule: [] for rule in (["promoted"] if given.promotion else RULES)} for name in names}
    tasks = [(name, 1 + i + 100 * block) for block in range(given.releases // BLOCK) for i, name in enumerate(names)]
    work = partial(kept, given.parts, time.time() + given.seconds, promotion if given.promotion else scenario)
    left = 0
    with ProcessPoolExecutor(given.processes) as pool:
        for name, told in pool.map(work, *zip(*tasks, strict=True)):
            left += told is None
            for rule, one in (told or {}).items():
                looks[name][rule].append(one)
            if given.json and told:
                store(given.json, looks)
    if left:
        print(f"{left} of {len(tasks)} blocks are left")
        raise SystemExit(3)
    print("Share of releases, median time over all of them, candidate's requests by then.\n")
    if given.promotion:
        print("\n".join(f"| {name} | {found(one['promoted'])} |" for name, one in summaries(looks).items()))
    else:
        print(table(summaries(looks)))


def kept(parts, until, simulate, name, seed):
    """What `simulate` finds, from the folder `parts` where an earlier run kept it; None: there is no time left."""
    if parts is None:
        return simulate(name, seed)
    path = parts / f"{simulate.__name__}-{seed}.json"
    if not path.exists():
        if time.time() > until:
            return name, None
        told = simulate(name, seed)[1]
        parts.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps({rule: (look.tolist(), s) for rule, (look, s) in told.items()}))
        path.with_suffix(".new").rename(path)
    return name, {rule: (np.array(look), s) for rule, (look, s) in json.loads(path.read_text()).items()}


def summaries(looks):
    return {
        name: {
            rule: summary(np.concatenate([x for x, _ in parts]), sum(s for _, s in parts))
            for rule, parts in rules.items()
        }
        for name, rules in looks.items()
        if all(rules.values())
    }


def store(path, looks):
    with open(path, "w") as file:
        json.dump(summaries(looks), file, indent=1)


if __name__ == "__main__":
    main()
