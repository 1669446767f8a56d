"""Two rates of bad events, compared at every look, with errors that may come in bursts.

**Model.** A look adds to each arm a block of `requests` n and `bad` events k, Poisson around n times the rate times a
gamma burst with mean 1 and shape a (coefficient of variation 1/sqrt(a); infinity: no bursts), or calm but for rare
outages. The kinds of the two arms are unknown and may differ: the state is each arm's likelihood over kind and rate.

**Evidence.** Universal inference (Wasserman, Ramdas, Balakrishnan 2020, doi:10.1073/pnas.1922664117): a prior-weighted
mixture of worse candidates over the largest value that the null reaches; the champion's rate is integrated on a
logarithmic scale in both (the right Haar prior). Exact for ratio nulls without bursts, else checked by computation.

**Blocks.** Bursts of different blocks are independent: merge looks by `LongRunVariance.block`, fixed before the
release. Count a key once a look, weighed by one over the dispersion over keys (`tempered`); a stage with another weight
gets a fresh process (`stages`).

**Grid.** Rates lie on a logarithmic grid `step` apart. With more than about 1 / step^2 bad events of the candidate (400
at 0.05) use a finer step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, check_alpha, check_counts, pack, unpack
from cumulant.statistics.sequential.block_likelihood import kind_likelihood, likelihood

#: below this a product of likelihoods is taken as this: evidence against such a null is understated
_LEAST = 1e-300
#: logarithm of a likelihood, against the greatest, below which a champion's rate is left out: no evidence between
#: -10 and 20 changes by more than 1e-6
_UNLIKELY = -45.0
#: log likelihood of bursts that the champion's past rules out
_RULED_OUT = -8.0
#: spacing of the levels of `known_bursts`, and up to how many times another level the same bursts may have
_LEVEL, _DRIFT = 0.25, 3.0
#: the same of the candidate's
_CANDIDATE_RULED_OUT = -3.0
#: ratios that an interval tries: from a twentieth to twenty times
_TRIED = np.exp(np.linspace(-math.log(20), math.log(20), 121))


@dataclass(frozen=True)
class RateDesign:
    """The settings that are fixed before the first block.

    Args:
        lowest, highest: the bad events a request between which both rates are searched.
        step: spacing of the grid on the natural logarithm of the rate.
        shapes: shapes of bursts that the null may have; the last is infinity, no bursts.
        outage: chance of an outage in a block, in one more kind of null that is calm otherwise; 0 leaves it out.
        independent: prior weight of an alternative without bursts.
        alike: prior weight of alternatives in which both arms have one shape; other pairs of shapes share the rest.
        ratios: how much worse than the boundary the alternatives are, equally likely.
    """

    lowest: float = 1e-6
    highest: float = 0.5
    step: float = 0.05
    shapes: tuple[float, ...] = (0.04, 0.12, 0.35, 1.0, 3.0, 10.0, math.inf)
    outage: float = 0.02
    independent: float = 0.8
    alike: float = 0.15
    ratios: tuple[float, ...] = (
        1.2,
        1.5,
        2.0,
        2.5,
        3.0,
        3.5,
        4.0,
        5.0,
        7.0,
        10.0,
        20.0,
        50.0,
        200.0,
        1000.0,
        10_000.0,
    )

    def __post_init__(self) -> None:
        if not (0 < self.lowest < self.highest <= 1 and 0 < self.step <= 0.5):
            raise ValueError("a design needs 0 < lowest < highest <= 1 and 0 < step <= 0.5")
        if not (self.shapes and self.shapes[-1] == math.inf and min(self.shapes) > 0 and 0 <= self.outage < 1):
            raise ValueError(
                "shapes of bursts are positive and end with infinity (no bursts), and outage is a chance below 1"
            )
        if not (min(self.independent, self.alike) > 0 and self.independent + self.alike < 1 and min(self.ratios) > 1):
            raise ValueError("independent and alike are weights above 0 that leave some, and ratios are above 1")

    @cached_property
    def rates(self) -> Floats:
        """The grid [points] of bad events a request."""
        grid: Floats = np.exp(np.arange(math.log(self.lowest), math.log(self.highest) + self.step, self.step))
        return grid

    @property
    def kinds(self) -> tuple[tuple[float, float], ...]:
        """Shape and chance of an outage of each kind of arm; the last is calm."""
        outages = ((math.inf, self.outage),) if self.outage else ()
        return (*((a, 0.0) for a in self.shapes[:-1]), *outages, (math.inf, 0.0))

    @cached_property
    def prior(self) -> Floats:
        """Logarithm of the weight of each pair of kinds [champion x candidate], flattened."""
        n = len(self.kinds)
        weights = np.full((n, n), (1 - self.independent - self.alike) / max(n * (n - 1), 1))
        np.fill_diagonal(weights, self.alike / max(n - 1, 1))
        weights[-1, -1] = self.independent if n > 1 else 1.0
        logs: Floats = np.log(weights.ravel())
        return logs


@dataclass(frozen=True)
class Rates:
    """The state of a comparison: each arm's log likelihood [..., kinds, points]; leading axes are releases."""

    design: RateDesign
    champion: Floats = field(repr=False)
    candidate: Floats = field(repr=False)
    blocks: int = 0

    @classmethod
    def start(
        cls, design: RateDesign | None = None, *, batch: tuple[int, ...] = (), known: Floats | None = None
    ) -> Rates:
        """No blocks yet, for one release or for a `batch` of them.

        `known` [kinds, levels] is the champion's past evidence on its bursts, from `known_bursts`; by default none.
        """
        design = design or RateDesign()
        shape = (*batch, len(design.kinds), len(design.rates))
        if known is None:
            return cls(design, np.zeros(shape), np.zeros(shape))
        levels = known_levels()
        champion = np.stack([np.interp(np.log(design.rates), np.log(levels), likelihoods) for likelihoods in known])
        alike = np.maximum(known.max(1), _CANDIDATE_RULED_OUT)
        return cls(design, np.zeros(shape) + champion, np.zeros(shape) + alike[:, None])

    def add(
        self,
        *,
        champion_requests: npt.ArrayLike,
        champion_bad: npt.ArrayLike,
        candidate_requests: npt.ArrayLike,
        candidate_bad: npt.ArrayLike,
    ) -> Rates:
        """The state with one more block; counts have the shape of the batch. An arm without requests adds no evidence.

        Raises:
            ValueError: counts are negative or there are more bad events than requests.
        """
        bad, requests = check_counts(champion_bad, champion_requests, "champion")
        worse, trials = check_counts(candidate_bad, candidate_requests, "candidate")
        return replace(
            self,
            champion=self.champion + likelihood(bad, requests, self.design.rates, self.design.kinds),
            candidate=self.candidate + likelihood(worse, trials, self.design.rates, self.design.kinds),
            blocks=self.blocks + 1,
        )

    def tempered(self, champion: npt.ArrayLike, candidate: npt.ArrayLike) -> Rates:
        """The state with each arm's log likelihood multiplied by a number [batch] from 0 to 1.

        One over the design effect makes n dependent events count for as many as n / design effect independent ones
        (quasi-likelihood, Wedderburn 1974, doi:10.1093/biomet/61.3.439). 0 leaves an arm out.
        """
        first, second = (np.asarray(factor, dtype=np.float64)[..., None, None] for factor in (champion, candidate))
        return replace(self, champion=self.champion * first, candidate=self.candidate * second)

    def log_harm(self, *, ratio: float = 1.0, difference: float = 0.0) -> Floats:
        """Log evidence [batch] that the candidate's rate is above `ratio` x champion's + `difference`.

        Rejecting "not above" when this reaches log(1 / alpha), at whatever look, errs with probability at most alpha.

        Raises:
            ValueError: the boundary is not positive.
        """
        edge = self._edge(ratio, difference)
        return self._mixture([edge * r for r in self.design.ratios]) - self._null(edge)

    def log_not_worse(self, *, ratio: float = 1.0, difference: float = 0.0) -> Floats:
        """Log evidence [batch] that the candidate's rate is below `ratio` x champion's + `difference`: non-inferiority.

        Raises:
            ValueError: the boundary is not positive.
        """
        edge = self._edge(ratio, difference)
        better = [edge / r for r in self.design.ratios]
        return self._mixture([self.design.rates, *better]) - self._null(edge, (1.25, 1.7))

    def ratio_interval(self, alpha: float = 0.05) -> tuple[Floats, Floats]:
        """Confidence sequence [batch], [batch] of candidate's rate over champion's; 0 and infinity where unbounded.

        Raises:
            ValueError: alpha is not between 0 and 1.
        """
        not_rejected = self._not_rejected([self.design.rates * r for r in _TRIED], alpha)
        return _ends(not_rejected, _TRIED, (0.0, math.inf))

    def difference_interval(self, alpha: float = 0.05) -> tuple[Floats, Floats]:
        """Confidence sequence [batch], [batch] of candidate's rate minus champion's, in bad events a request.

        Raises:
            ValueError: alpha is not between 0 and 1.
        """
        size = np.exp(np.linspace(math.log(self.design.lowest), math.log(self.design.highest), 60))
        tried = np.concatenate([-size[::-1], [0.0], size])
        edges = [np.maximum(self.design.rates + d, self.design.lowest) for d in tried]
        return _ends(self._not_rejected(edges, alpha), tried, (-1.0, 1.0))

    def to_json(self) -> dict[str, object]:
        """Plain values; `from_json` reads them back. Infinity is written as None, tables as packed 64-bit numbers."""
        design = {setting.name: getattr(self.design, setting.name) for setting in fields(self.design)}
        design["shapes"] = [None if math.isinf(a) else a for a in self.design.shapes]
        tables = {arm: pack(getattr(self, arm)) for arm in ("champion", "candidate")}
        return {"design": design, "blocks": self.blocks, "batch": self.champion.shape[:-2], **tables}

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> Rates:
        """The state that `to_json` wrote.

        Raises:
            ValueError: the tables are not of the design.
        """
        given = dict(cast("Mapping[str, object]", stored["design"]))
        shapes = cast("Sequence[float | None]", given.pop("shapes"))
        ratios = tuple(cast("Sequence[float]", given.pop("ratios")))
        numbers = {name: float(cast("float", value)) for name, value in given.items()}
        design = RateDesign(shapes=tuple(math.inf if a is None else a for a in shapes), ratios=ratios, **numbers)
        shape = (*cast("Sequence[int]", stored["batch"]), len(design.kinds), len(design.rates))
        tables = [unpack(cast("str", stored[arm])) for arm in ("champion", "candidate")]
        if any(table.size != math.prod(shape) for table in tables):
            raise ValueError(f"stored rates have {tables[0].size} values, their design needs another; start afresh")
        champion, candidate = (table.reshape(shape) for table in tables)
        return cls(design, champion, candidate, int(cast("int", stored["blocks"])))

    def _edge(self, ratio: float, difference: float) -> Floats:
        edge = ratio * self.design.rates + difference
        if not (edge > 0).all():
            raise ValueError(f"ratio {ratio} and difference {difference} put the boundary at or below 0 for some rates")
        return edge

    def _null(self, edge: Floats, inside: Sequence[float] = (0.8, 0.6)) -> Floats:
        """[batch]: the null's likelihood, champion's rate integrated; shapes, and parts of the edge, maximised."""
        exactly = self._along(edge).max(-1)
        sums, top = self._near(np.stack([edge * part for part in inside]))
        return cast("Floats", np.maximum(exactly, np.log(np.maximum(sums.max((-2, -1)), _LEAST)) + top))

    def _mixture(self, curves: Sequence[Floats]) -> Floats:
        """[batch]: the alternative's likelihood, mixed over `curves` equally and over shapes by the prior."""
        sums, top = self._near(np.stack(curves))
        weighed = np.maximum(sums, _LEAST).sum(-1) @ np.exp(self.design.prior)
        return cast("Floats", top + np.log(weighed / len(curves)))

    def _along(self, curve: Floats) -> Floats:
        """[batch, pairs of shapes]: log of the likelihood summed over the champion's rate, candidate's on `curve`."""
        steepness = np.maximum(1.0, np.gradient(np.log(curve), self.design.step))[self._likely]
        theirs = _moved(self.candidate, curve[self._likely], self.design) + np.log(steepness)
        top = theirs.max((-2, -1), keepdims=True)
        sums = np.matmul(self._champion, np.swapaxes(np.exp(theirs - top), -1, -2))
        logs = np.log(np.maximum(sums, _LEAST)) + top
        return cast("Floats", logs.reshape((*sums.shape[:-2], -1)))

    def _near(self, curves: Floats) -> tuple[Floats, Floats]:
        """The sums of `_along` for `curves` [curves, points] rounded to the grid, and the log of their factor."""
        likelihood, top = self._candidate
        places = np.rint(_places(curves[:, self._likely], self.design)).astype(np.int64)
        theirs = np.take(likelihood, places, axis=-1)  # in the order of its axes, so that nothing is copied below
        *batch, kinds, count, points = theirs.shape
        sums = np.matmul(self._champion, np.swapaxes(theirs.reshape((*batch, kinds * count, points)), -1, -2))
        return sums.reshape((*batch, kinds**2, count)), top[..., 0, 0]

    @cached_property
    def _likely(self) -> npt.NDArray[np.int64]:
        """The points of the grid at which the champion's rate may be: elsewhere sums would gain nothing."""
        below = self.champion - self.champion.max((-2, -1), keepdims=True)
        highest = below.max(tuple(range(below.ndim - 1)))
        return np.flatnonzero(highest > _UNLIKELY)

    @cached_property
    def _champion(self) -> Floats:
        theirs = np.take(self.champion, self._likely, axis=-1)
        return cast("Floats", np.exp(theirs - theirs.max((-2, -1), keepdims=True)))

    @cached_property
    def _candidate(self) -> tuple[Floats, Floats]:
        top = self.candidate.max((-2, -1), keepdims=True)
        return np.exp(self.candidate - top), top

    def _not_rejected(self, curves: Sequence[Floats], alpha: float) -> npt.NDArray[np.bool_]:
        """[curves, batch]: which are not rejected at `alpha`, against alternatives on both sides.

        Where all are, since the rates lie between two of them, it is the one with the least evidence against it.
        """
        sides = [self.design.rates * s for r in self.design.ratios for s in (r, 1 / r)]
        against = self._mixture([self.design.rates, *sides])
        bound = math.log(1 / check_alpha(alpha))
        evidence = np.stack([against - self._along(curve).max(-1) for curve in curves])
        not_rejected: npt.NDArray[np.bool_] = (evidence < bound) | (evidence == evidence.min(0))
        return not_rejected


def known_levels() -> Floats:
    """The rates [levels] of which `known_bursts` speaks."""
    return cast("Floats", np.exp(np.arange(math.log(1e-6), math.log(0.5) + _LEVEL, _LEVEL)))


def known_bursts(requests: npt.ArrayLike, bad: npt.ArrayLike) -> Floats:
    """The evidence of the champion's past blocks on its bursts: log likelihood [kinds, levels], at most 0.

    Args:
        requests: [blocks] of the champion, each block as long as one of the release.
        bad: [blocks] bad events among them.

    Raises:
        ValueError: counts are negative or there are more bad events than requests.
    """
    kinds = RateDesign().kinds
    k, n = check_counts(bad, requests, "champion")
    levels = known_levels()
    if not len(k):
        return np.zeros((len(kinds), len(levels)))
    events = k[:, None] * np.log(levels)
    expected = n[:, None] * levels
    likelihoods = np.stack([(events + kind_likelihood(k[:, None], expected, *kind)).sum(0) for kind in kinds])
    reach = round(math.log(_DRIFT) / _LEVEL)
    padded = np.pad(likelihoods, ((0, 0), (reach, reach)), mode="edge")
    near = np.max([padded[:, place : place + len(levels)] for place in range(2 * reach + 1)], axis=0)
    known = np.maximum(near - near.max(), _RULED_OUT)
    known[-1] = 0.0 if not k.any() else np.maximum(likelihoods[-1].max() - likelihoods.max(), _RULED_OUT)
    return cast("Floats", known)


def _places(curve: Floats, design: RateDesign) -> Floats:
    """Where on the grid each rate of `curve` lies; at its edge beyond it."""
    places: Floats = np.clip(np.log(curve / design.rates[0]) / design.step, 0, len(design.rates) - 1)
    return places


def _moved(table: Floats, curve: Floats, design: RateDesign) -> Floats:
    """`table` read at the rates of `curve` [points], quadratic between grid points."""
    at = _places(curve, design)
    middle = np.clip(np.rint(at).astype(np.int64), 1, len(design.rates) - 2)
    x = at - middle
    below, here, above = (np.take(table, middle + step, axis=-1) for step in (-1, 0, 1))
    moved: Floats = below * (x * (x - 1) / 2) + here * (1 - x * x) + above * (x * (x + 1) / 2)
    return moved


def _ends(not_rejected: npt.NDArray[np.bool_], tried: Floats, open_ends: tuple[float, float]) -> tuple[Floats, Floats]:
    """The outermost of `tried` next to those not rejected [tried, batch]: never narrower than the grid can say."""
    padded = np.concatenate([[open_ends[0]], tried, [open_ends[1]]])
    first = not_rejected.argmax(0)
    last = len(tried) - 1 - not_rejected[::-1].argmax(0)
    return padded[first], padded[last + 2]
