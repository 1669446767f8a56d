"""How much time is left, and for what."""

from __future__ import annotations

import statistics as averages
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from cumulant.core import units
from cumulant.training.records import TrialRecord

#: the share kept for what cannot be foreseen
_REST = 0.03

#: of the whole time, for the final fit until its time is known, and for more than one booster
_FINAL_SHARE = 0.4
#: of the whole time, for trainers that are fitted once a fold
_BASELINE_SHARE = 0.25

#: whole trials of a trainer, below which nothing was searched
_FEWEST_TRIALS = 3
#: what is advised where the time was too short: this many times as long, and no less than the least
_LONGER, _LEAST_ADVISED = 3, timedelta(minutes=2)
#: a trial that takes this many times as long as usual is cut when time is short
_PATIENCE = 2.5
#: seconds from which a time is written in minutes
_MINUTES = 120


class SearchBudget:
    """Seconds for search and final fit, from now on."""

    def __init__(self, total: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total * (1 - _REST)
        self._clock = clock
        self._start = clock()
        self.stopped = False
        #: when the present search began, and how many others get as much as it afterwards
        self._turn, self._others = self._start, 0
        self.reserved = _FINAL_SHARE * self._total if self.limited else 0.0

    @classmethod
    def of(cls, limit: timedelta | None) -> Self:
        """None is without end."""
        return cls(float("inf") if limit is None else limit.total_seconds())

    def add_spent(self, seconds: float) -> None:
        """Count what an earlier, killed process already used."""
        self._start -= seconds

    @property
    def limited(self) -> bool:
        return self._total != float("inf")

    @contextmanager
    def ends_with(self) -> Iterator[None]:
        """An exception in the block (an interrupt too) is the end of the time: fits in other threads stop soon."""
        try:
            yield
        except BaseException:
            self.stopped = True
            raise

    def forever(self) -> float:
        """A clock without end, until the search is stopped."""
        return 0.0 if self.stopped else float("inf")

    def reserve(self, least: float, *, at_most: float) -> None:
        """Set time aside for the final fit: `at_most`, but of the whole no more than two fifths, or what is needed."""
        self.reserved = max(least, min(at_most, _FINAL_SHARE * self._total)) if self.limited else 0.0

    def left(self) -> float:
        """Seconds left in all; none once the search was stopped."""
        return 0.0 if self.stopped else self._total - (self._clock() - self._start)

    def left_for_search(self) -> float:
        """Seconds left when what is reserved for the final fit is set aside, and equal parts for other searches."""
        remaining = self.left() - self.reserved
        if not self.limited or not self._others:
            return remaining
        # by what is reserved now: what turns out not to be needed for the final fit is shared too
        shared = remaining + self._clock() - self._turn
        return remaining - max(0.0, shared) * self._others / (self._others + 1)

    def clock_of_trial(self, usual: Sequence[float], remaining: int) -> Callable[[], float]:
        """A clock for one trial: some times the `usual` seconds, or more while there is plenty for the `remaining`."""
        if not usual or not self.limited:
            return self.left_for_search
        allowed = max(_PATIENCE * averages.median(usual), 2 * self.left_for_search() / max(remaining, 1))
        others = self.left_for_search() - allowed
        return lambda: self.left_for_search() - max(others, 0.0)

    def share_with(self, others: int) -> None:
        """From now on a search gets an equal part of the time with `others` that follow."""
        self._turn, self._others = self._clock(), others

    def left_for_baselines(self) -> float:
        """Seconds left of the part that trainers without a search may take."""
        return self.left() - (1 - _BASELINE_SHARE) * self._total if self.limited else float("inf")

    def spent(self) -> float:
        """Seconds since the start, those of earlier processes included."""
        return self._clock() - self._start


def longest(seconds: Mapping[str, float], blended: Collection[str]) -> float:
    """The most that one model may take of `seconds` by trainer: of all `blended` together, or of any alone."""
    return max([sum(seconds[name] for name in blended), *seconds.values()])


def clock_notes(
    time: timedelta | None, records: Sequence[TrialRecord], *, searched: Collection[str], trials: int
) -> tuple[str, ...]:
    """What to say where `time` decided how far a search came, and not the number of `trials` of each `searched`
    trainer: another run or machine may find another model.
    """
    wanted = trials * len(searched)
    done = sum(record.trainer in searched and record.state != "cut" for record in records)
    ended = any(record.state == "cut" or record.shortened for record in records)
    if time is None or (done >= wanted and not ended):
        return ()
    text = (
        f"the time of {_text_of(time)} ended this search after {done} of {wanted} trials: another run, or another "
        "machine, may come further and find another model"
    )
    each = done // max(len(searched), 1)
    if each >= _FEWEST_TRIALS:
        text += f". A budget of trials alone does not depend on the clock: `train --trials {each}`"
    return (text,)


def clock_warnings(
    time: timedelta | None, records: Sequence[TrialRecord], *, searched: Collection[str], trials: int
) -> tuple[str, ...]:
    """That `time` left a trainer unfitted, or one of `searched` fewer whole trials than a search needs."""
    if time is None:
        return ()
    states = {name: [record for record in records if record.trainer == name] for name in dict.fromkeys(searched)}
    short = [text for name, own in states.items() if (text := _too_few(name, own, trials))]
    unfitted = [record.trainer for record in records if record.trainer not in searched and record.state == "cut"]
    if not short and not unfitted:
        return ()
    reasons = "; ".join([*short, *(f"{name} was not fitted" for name in unfitted)])
    longer = units.show_duration(max(_LEAST_ADVISED, _LONGER * time))
    fewer = " or fewer trainers (`training.trainers`)" if len(searched) + len(unfitted) > 1 else ""
    return (f"the time of {_text_of(time)} was too short: {reasons}. Give more time (`train --time {longer}`){fewer}",)


def _text_of(time: timedelta) -> str:
    """In seconds below two minutes: `60s`, `90s`, `10m`."""
    seconds = time.total_seconds()
    return f"{seconds:g}s" if 1 <= seconds < _MINUTES else units.show_duration(time)


def _too_few(name: str, records: Sequence[TrialRecord], trials: int) -> str:
    """What a trainer finished, where that is fewer than it takes to choose between parameters; else empty."""
    done = [record for record in records if record.state != "cut"]
    shortened = sum(record.shortened for record in done)
    if len(done) - shortened >= min(_FEWEST_TRIALS, trials):
        return ""
    hurried = f", {shortened} of them cut short" if shortened else ""
    return f"{name} finished {len(done)} of {trials} trials{hurried}"
