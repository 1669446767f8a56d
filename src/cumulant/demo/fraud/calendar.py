"""The days of the story, and how fast they pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from cumulant.demo.fraud.generator import Scenario

#: Black Friday, and the first day of live traffic, a week before it
SPIKE = datetime(2025, 11, 28, tzinfo=UTC)
FIRST = SPIKE - timedelta(days=7)
AFTER, LAST = SPIKE + timedelta(days=1), SPIKE + timedelta(days=3)
#: the delivery with the outcomes of Black Friday; the week after it compares both models
RETRAINING = SPIKE + timedelta(days=14)
#: a day before the delivery: what is paid from then on waits until a full disk has room again
WAITING = RETRAINING - timedelta(days=1)
#: the part of a day after the faults that is served as the live days were
CHECKED = RETRAINING + timedelta(hours=12)
END = RETRAINING + timedelta(days=7)
#: the last evening, whose payments are served after the topic is gone
TOPIC_GONE = END - timedelta(hours=6)
SPIKE_FACTOR = 5.0


class StorySize(msgspec.Struct, frozen=True, kw_only=True):
    """How much is invented, and how many seconds a day of live traffic takes."""

    customers: int = 300
    terminals: int = 450
    history_days: int = 126
    day_seconds: float = 12.0
    seed: int = 7

    @property
    def speed(self) -> float:
        """How many times faster than the clock the days pass."""
        return 86_400 / self.day_seconds

    @property
    def scenario(self) -> Scenario:
        begin = FIRST - timedelta(days=self.history_days)
        spike = (SPIKE - begin).days
        return Scenario(
            begin=begin,
            days=(END - begin).days,
            customers=self.customers,
            terminals=self.terminals,
            spikes={spike: SPIKE_FACTOR},
            small_thefts_from=spike,
            seed=self.seed,
        )
