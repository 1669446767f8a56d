"""Random series of any length: factors of bursts, levels of latency, effects of days."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal

Floats = npt.NDArray[np.float64]
_CHUNK = 1024


class Factors:
    """Gamma factors with mean 1, one an interval of `seconds`; 1 everywhere without variation.

    Time 0 is the begin of the release; `before` seconds lie before it. Where an interval begins is random.
    """

    def __init__(self, rng: np.random.Generator, *, cv: float, seconds: float, before: float) -> None:
        self._rng, self._cv, self._seconds = rng, cv, seconds
        self._offset = before + float(rng.uniform(0, seconds))
        self._values = np.zeros(0)

    def at(self, times: Floats) -> Floats:
        if not self._cv:
            return np.ones(len(times))
        place = ((times + self._offset) // self._seconds).astype(np.int64)
        return self._upto(int(place.max(initial=-1)) + 1)[place]

    def means(self, edges: Floats) -> Floats:
        if not self._cv:
            return np.ones(len(edges) - 1)
        last = math.ceil((edges[-1] + self._offset) / self._seconds)
        whole = np.concatenate([[0.0], np.cumsum(self._upto(last)[:last])]) * self._seconds
        upto = np.interp(edges + self._offset, np.arange(last + 1) * self._seconds, whole)
        return np.asarray(np.diff(upto) / np.diff(edges))

    def _upto(self, count: int) -> Floats:
        while len(self._values) < count:
            more = self._rng.gamma(self._cv**-2, self._cv**2, _CHUNK)
            self._values = np.concatenate([self._values, more])
        return self._values


class Levels:
    """A stationary AR(1) series with the given standard deviation, one value a look; 0 without autocorrelation."""

    def __init__(self, rng: np.random.Generator, *, keep: float, deviation: float) -> None:
        self._rng, self._keep = rng, keep
        self._deviation = deviation if keep else 0.0
        self._last = float(rng.normal())

    @property
    def deviation(self) -> float:
        return self._deviation

    def next(self, count: int) -> Floats:
        if not self._keep:
            return np.zeros(count)
        noise = math.sqrt(1 - self._keep**2) * self._rng.normal(size=count)
        filtered: Any = signal.lfilter([1.0], [1.0, -self._keep], noise, zi=[self._keep * self._last])
        values = np.asarray(filtered[0], dtype=np.float64)
        self._last = float(values[-1]) if count else self._last
        return values * self._deviation


class Days:
    def __init__(self, rng: np.random.Generator, *, deviation: float) -> None:
        self._rng, self._deviation = rng, deviation
        self._effects: dict[int, float] = {}

    def effect(self, day: int) -> float:
        if day not in self._effects:
            self._effects[day] = float(self._rng.normal()) * self._deviation
        return self._effects[day]
