"""Row counts of consecutive windows: each is forecast from the same weekday's before, and its error tested.

Errors of earlier forecasts give the variation, on the scales of the cube root (Wilson and Hilferty 1931: near normal
for gamma mixtures of Poisson counts) and the logarithm (lognormal); both must show the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cumulant.statistics.rows import Codes, Floats

#: windows of the same weekday that a forecast is made of: at least, and at most
LEAST_SEASONS, _MOST_SEASONS = 2, 4
#: least number of forecast errors
LEAST_ERRORS = 10
#: a forecast is the median of up to four windows, and adds about a quarter of the variance of one of them
_OF_FORECAST = 1.25
#: a peak that occurred this many times recurs, and is compared with
_RECURRING = 2
#: the share of the evaluated windows that must deviate in the same direction for a lasting change
_LASTING = 0.75
#: forecasts of fewer rows are not evaluated
_LEAST_ROWS = 20
#: a greater loss never becomes the usual level
_MOST_LOSS = 0.8


@dataclass(frozen=True)
class Deviation:
    """A window whose rows differ from the `expected` ones by what matters and is not chance."""

    place: int
    expected: float
    rows: int
    p: float

    @property
    def effect(self) -> float:
        """The share of the expected rows that is missing, or of the rows that is beyond the expected ones."""
        return _effect(self.expected, self.rows)


def _effect(expected: float, rows: int) -> float:
    low, high = sorted((expected, float(rows)))
    return 1 - low / high


@dataclass
class WindowCounts:
    """`rows` [n] of consecutive windows; `season`: windows of a week, 1 where they do not make up one.

    partial: places of windows that may be cut off: no base of forecasts, and few rows are no change.
    errors: relative errors of the forecasts so far, by cube root and logarithm, and the rows that were forecast.
    higher: the windows that forecasts were made of, for each time that fewer rows became the usual level.
    peaks: the height over the forecast of each past peak; peak: of the present one.
    """

    rows: Codes
    season: int
    partial: frozenset[int]
    errors: list[tuple[float, float, float]] = field(default_factory=list)
    higher: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    peak: float = 0.0

    def deviations(self, first: int, *, least: float, level: float) -> tuple[list[Deviation], list[int]]:
        """Places from `first` on that deviate by `least` or more at `level` (two-sided), and all evaluated."""
        unexpected, judged, deviating, usable = (
            [],
            list[int](),
            list[Deviation](),
            np.ones(len(self.rows), dtype=np.bool_),
        )
        usable[list(self.partial)] = False
        for place in range(len(self.rows)):
            expected = self._forecast(place, usable)
            if expected is None or max(expected, self.rows[place]) < _LEAST_ROWS:
                continue
            if expected < _LEAST_ROWS:
                judged += [place] if place >= first and len(self.errors) >= LEAST_ERRORS else []
                continue
            expected = self._returned(place, expected, least)
            if place >= first and len(self.errors) >= LEAST_ERRORS:
                judged.append(place)
                deviation = self._deviation(place, expected, least, level)
                self._follow_peak(deviation)
                if deviation is not None:
                    usable[place] = False
                    deviating.append(deviation)
                    if not self._recurs(deviation, least, level):
                        unexpected.append(deviation)
                    self._accept_level(deviating, judged, usable)
                    continue
            if usable[place]:
                self.errors.append(self._error(place, expected))
        return unexpected, judged

    def _returned(self, place: int, expected: float, least: float) -> float:
        """The forecast; where there are more rows, that of a former level which the window is within `least` of."""
        rows = int(self.rows[place])
        if rows <= expected or _effect(expected, rows) < least:
            return expected
        former = [self._forecast(place, windows) for windows in self.higher]
        return next(
            (forecast for forecast in former if forecast is not None and _effect(forecast, rows) < least), expected
        )

    def _deviation(self, place: int, expected: float, least: float, level: float) -> Deviation | None:
        rows = int(self.rows[place])
        deviation = Deviation(place, expected, rows, self._p(self._error(place, expected)))
        whole = rows > expected or place not in self.partial
        return deviation if whole and deviation.p <= level / 2 and deviation.effect >= least else None

    def _recurs(self, deviation: Deviation, least: float, level: float) -> bool:
        """Whether it is no more than the second highest of the peaks that are over."""
        if deviation.rows < deviation.expected or len(self.peaks) < _RECURRING:
            return False
        usual = deviation.expected * sorted(self.peaks)[-_RECURRING]
        beyond = deviation.rows > usual and _effect(usual, deviation.rows) >= least
        return not beyond or self._p(self._error(deviation.place, usual)) > level / 2

    def _follow_peak(self, deviation: Deviation | None) -> None:
        """A peak that is over is one, however many windows it lasted."""
        if deviation is not None and deviation.rows > deviation.expected:
            self.peak = max(self.peak, deviation.rows / deviation.expected)
        elif self.peak:
            self.peaks.append(self.peak)
            self.peak = 0.0

    def _accept_level(
        self, deviating: Sequence[Deviation], judged: Sequence[int], usable: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> None:
        """Accept a change of as many windows as a forecast uses as usual, unless nearly all rows are lost."""
        last, length = deviating[-1], max(_MOST_SEASONS * self.season, LEAST_ERRORS)
        fewer, first = last.rows < last.expected, last.place - length + 1
        alike = [
            deviation
            for deviation in deviating[-length:]
            if deviation.place >= first and deviation.rows and (deviation.rows < deviation.expected) == fewer
        ]
        among = [place for place in judged[-length:] if place >= first]
        mixed = len(judged) - len(deviating) > 1
        if fewer and alike and np.median([deviation.effect for deviation in alike]) > _MOST_LOSS:
            return
        if last.rows and mixed and alike[0].place == first and len(alike) >= _LASTING * len(among):
            if fewer:
                self.higher.append(usable & (np.arange(len(usable)) < first))
            usable[: last.place + 1] = False
            usable[first : last.place + 1] = True
            self.peak = 0.0

    def _forecast(self, place: int, usable: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float | None:
        """The median of the same weekday's newest windows; None where they are too few."""
        earlier = np.arange(place % self.season, place, self.season)
        earlier = earlier[usable[earlier]][-_MOST_SEASONS:]
        return float(np.median(np.cbrt(self.rows[earlier]))) ** 3 if len(earlier) >= LEAST_SEASONS else None

    def _error(self, place: int, expected: float) -> tuple[float, float, float]:
        rows = float(self.rows[place])
        return 3 * (float(np.cbrt(rows / expected)) - 1), float(np.log((rows + 0.5) / (expected + 0.5))), expected

    def _p(self, error: tuple[float, float, float]) -> float:
        """One-sided; 1 where an earlier window erred as far in that direction."""
        earlier = np.array(self.errors)
        sign = np.sign(error[0])
        if sign * error[0] <= (sign * earlier[:, 0]).max():
            return 1.0
        return max(_tail(earlier[:, scale], earlier[:, 2], sign * error[scale], sign, error[2]) for scale in (0, 1))


def _tail(errors: Floats, forecasts: Floats, error: float, sign: float, expected: float) -> float:
    """The chance of an error at least as far from the mean of earlier ones, by Student's t with autocorrelation."""
    from scipy.special import stdtr  # scipy.stats takes a second to import

    centred = sign * (errors - errors.mean())
    square = float((centred**2).sum())
    follows = max(float((centred[1:] * centred[:-1]).sum()) / square, 0.0) if square > 0 else 0.0
    n = max(len(errors) * (1 - follows) / (1 + follows), 2.0)
    common = max(square / (len(errors) - 1) - float((_OF_FORECAST / forecasts).mean()), 0.0)
    spread = np.sqrt((common + _OF_FORECAST / expected) * (1 + 1 / n))
    return float(stdtr(n - 1, -(error - sign * errors.mean()) / spread))
