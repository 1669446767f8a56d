"""The sections of a project file as policies, each made once: on first use, since few commands need all of them."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from cumulant.core.units import duration

if TYPE_CHECKING:
    from cumulant.monitoring.policy import MonitoringPolicy
    from cumulant.project.file.spec import ProjectSpec
    from cumulant.release.policy import ReleasePolicy
    from cumulant.training.policy import EvaluationPolicy, TrainingPolicy


class Policies:
    """What flows go by. A file whose values mean nothing is refused when it is loaded, so none of these fails."""

    def __init__(self, spec: ProjectSpec) -> None:
        self._spec = spec

    @cached_property
    def training(self) -> TrainingPolicy | None:
        """What is learned from which rows; None where the file has no such section."""
        from cumulant.project.training_section import training_policy

        return None if self._spec.training is None else training_policy(self._spec.training)

    @cached_property
    def evaluation(self) -> EvaluationPolicy:
        """How a trained model is evaluated."""
        from cumulant.project.training_section import evaluation_policy

        return evaluation_policy(self._spec.evaluation)

    @cached_property
    def release(self) -> ReleasePolicy:
        """How a candidate takes over from the champion."""
        from cumulant.project.release_section import release_policy

        return release_policy(self._spec.release)

    @cached_property
    def monitoring(self) -> MonitoringPolicy:
        """How the served model is watched."""
        from cumulant.project.monitoring_section import monitoring_policy

        return monitoring_policy(self._spec.monitoring)

    @cached_property
    def clock_skew(self) -> timedelta | None:
        """How far rows may be dated after the clock of the server that answers them; None: any time."""
        declared = self._spec.serving.clock_skew
        return None if declared is None else duration(declared)
