"""`project.monitoring` and `project.reviews`: evaluations of the served model, retraining, alerts, cases to review."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cumulant.api.errors import short_methods
from cumulant.api.group import MethodGroup
from cumulant.core.clock import FixedClock
from cumulant.flows.ledger.actions import check

if TYPE_CHECKING:
    from cumulant.flows.alerting.views import AlertView
    from cumulant.flows.monitoring.run import MonitorRun
    from cumulant.flows.monitoring.state import RetrainRequest
    from cumulant.flows.review.views import CaseView


@short_methods
class ProjectMonitoring(MethodGroup):
    """Monitoring of what a project serves."""

    def run(self, *, at: datetime | None = None) -> MonitorRun:
        """Evaluate once, as `cumulant monitor watch --once`; with `at`, from what was known at that moment.

        A training that the policy wants is recorded, not begun: see `retrain`.

        Raises:
            UsageError: nothing was served yet, or `at` is to come.
            DataError: no prediction is before `at`.
            LeaseHeldError: another process evaluates at the same time.
        """
        from cumulant.flows.monitoring.run import run_monitoring

        with self._follow("monitor") as progress:
            return run_monitoring(self._loaded, principal=self._principal, at=at, progress=progress)

    def retrain(self, *, as_of: datetime | None = None) -> RetrainRequest | None:
        """Train and release as far as the recorded request of retraining requires; None without a request.

        Raises:
            LeaseHeldError: another process retrains at the same time.
        """
        from cumulant.flows.monitoring.retraining import continue_retraining

        with self._follow("retrain") as progress:
            return continue_retraining(self._loaded, principal=self._principal, as_of=as_of, progress=progress)

    def alerts(self, *, ended: bool = False) -> Sequence[AlertView]:
        """Alerts that fire or are pending, the most urgent first; with `ended` then those that are over."""
        from cumulant.flows.alerting.views import overview

        return overview(self._loaded, principal=self._principal, ended=ended).alerts


@short_methods
class ProjectReviews(MethodGroup):
    """The review queue of a project."""

    def fill(self, *, since: datetime | None = None, whole_budget: bool = False) -> int:
        """Queue cases from the predictions since the last draw (the first: since `since`); returns their number.

        With `whole_budget` all that is left of the period's budget, else what falls to the time since the last draw.

        Raises:
            UsageError: the project declares no queue.
            LeaseHeldError: another process fills it at the same time.
        """
        from cumulant.flows.review.fill_queue import fill

        with self._follow("review") as progress:
            filled = fill(self._loaded, principal=self._principal, since=since, at_once=whole_budget, progress=progress)
        return filled.added

    def answer(self, label: Callable[[CaseView], object], *, limit: int, at: datetime | None = None) -> int:
        """Decide up to `limit` open cases as `label` returns, which gets what a reviewer sees; returns their number.

        A case for which it returns None stays open. `at`: when the answers became known; default: now.

        Raises:
            UsageError: a label is not one of the model's.
        """
        from cumulant.flows.review.scripted import answer_open

        clock = None if at is None else FixedClock(at)
        return answer_open(self._loaded, label, most=limit, principal=self._principal, clock=clock)

    def used_for_training(self) -> int:
        """How many answers the newest training learned from."""
        from cumulant.flows.review.service import used_for_training

        check(self._loaded, self._principal, "review.show")
        return used_for_training(self._loaded)
