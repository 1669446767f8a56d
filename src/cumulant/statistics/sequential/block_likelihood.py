"""The log likelihood of blocks of requests over the kinds and rates of arms, without terms common to all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats

Places = npt.NDArray[np.int64]
#: of each kind of arm the shape of its bursts and the chance of an outage
Kinds = Sequence[tuple[float, float]]
#: an outage multiplies a block's rate by a gamma burst with this mean and shape: from a few times to a hundred
_WILD, _WILD_SHAPE = 30.0, 0.5


def likelihood(bad: Floats, requests: Floats, rates: Floats, kinds: Kinds) -> Floats:
    """[batch, kinds, points]: log likelihood of one block, without the terms that no parameter changes."""
    expected = requests[..., None] * rates
    events = bad[..., None] * np.log(rates)
    k = bad[..., None]
    return np.stack([events + kind_likelihood(k, expected, *kind) for kind in kinds], axis=-2)


def kind_likelihood(bad: Floats, expected: Floats, shape: float, outage: float) -> Floats:
    """The same of one kind, beside `bad` x log rate; `expected` are requests x rates."""
    calm = _bursts(bad, expected, shape)
    if not outage:
        return calm
    wild = bad * math.log(_WILD) + _bursts(bad, _WILD * expected, _WILD_SHAPE)
    return np.logaddexp(calm + math.log1p(-outage), wild + math.log(outage))


def _bursts(bad: Floats, expected: Floats, shape: float) -> Floats:
    """What remains of the negative binomial beside `bad` x log rate, and terms that neither shape nor rate changes."""
    if math.isinf(shape):
        return -expected
    return _rate_free_terms(bad, shape) - (bad + shape) * np.log1p(expected / shape)


def _rate_free_terms(bad: Floats, shape: float) -> Floats:
    # scipy.special, which has this function of arrays, takes longer to import than numpy.
    gammas = np.reshape([math.lgamma(argument) for argument in (bad + shape).ravel().tolist()], bad.shape)
    ways: Floats = gammas - math.lgamma(shape) - bad * math.log(shape)
    return ways


def distinct_likelihoods(bad: Floats, requests: Floats, rates: Floats, kinds: Kinds) -> tuple[Floats, Places]:
    """The log likelihoods [distinct, kinds, points] of distinct blocks, and which of them each given block has."""
    (k, k_of), (n, n_of) = distinct(bad), distinct(requests)
    pairs, places = distinct(n_of * len(k) + k_of)
    n_of, k_of = pairs // len(k), pairs % len(k)
    expected, events = n[:, None] * rates, k[:, None] * np.log(rates)
    table = np.empty((len(pairs), len(kinds), len(rates)))

    def bursts(factor: float, shape: float) -> Floats:
        logs, ways = np.log1p(factor * expected / shape), _rate_free_terms(k, shape)[:, None]
        grown: Floats = logs[n_of] * -(k + shape)[k_of, None]
        grown += (ways + events)[k_of]
        return grown

    for place, (shape, outage) in enumerate(kinds):
        calm = bursts(1.0, shape) if math.isfinite(shape) else events[k_of] - expected[n_of]
        if outage:
            wild = (k * math.log(_WILD))[k_of, None] + bursts(_WILD, _WILD_SHAPE)
            calm = np.logaddexp(calm + math.log1p(-outage), wild + math.log(outage))
        table[:, place] = calm
    return table, places


def distinct(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Places]:
    """The values without repetition [distinct], sorted, and which of them each is. numpy.unique imports numpy.ma."""
    flat = values.ravel()
    order = flat.argsort()
    new = np.concatenate([[True], np.diff(flat[order]) != 0])
    places = np.empty(len(flat), dtype=np.int64)
    places[order] = new.cumsum() - 1
    return flat[order][new], places.reshape(values.shape)
