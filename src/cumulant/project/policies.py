"""The sections of a project file as policies, each made once: on first use, since few commands need all of them."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import not_found
from cumulant.core.units import duration, size
from cumulant.ports.compute import Resources

if TYPE_CHECKING:
    from cumulant.data.policy import SourcePolicy
    from cumulant.data.storage.policy import KindLifecycle, LifecycleKind
    from cumulant.monitoring.objectives import Objective
    from cumulant.monitoring.policy import MonitoringPolicy
    from cumulant.ports.access import RoleBinding
    from cumulant.project.file.spec import ModelSpec, ProjectSpec, StepResourcesSpec
    from cumulant.release.policy import ReleasePolicy
    from cumulant.serving.spec import ServingSpec
    from cumulant.training.policy import EvaluationPolicy, TrainingPolicy


class Policies:
    """What flows go by. A file whose values mean nothing is refused when it is loaded, so none of these fails."""

    def __init__(self, spec: ProjectSpec, root: Path) -> None:
        self._spec, self._root = spec, root

    @cached_property
    def sources(self) -> dict[str, SourcePolicy]:
        """How each source is read, checked and kept, as the project file declares it, without contract files."""
        from cumulant.project.data_section import source_policy

        return {name: source_policy(spec) for name, spec in self._spec.data.items()}

    def source(self, name: str) -> SourcePolicy:
        """How a source is read, checked and kept, with the rules of its contract file, read anew.

        Raises:
            DataError: the contract file is missing or is none.
            NotFoundError: there is no such source; the hint is the nearest name.
            UsageError: a limit that cannot be evaluated.
        """
        from cumulant.project.data_section import declared_source

        if name not in self._spec.data:
            raise not_found("source", name, self._spec.data)
        return declared_source(self._spec.data[name], source=name, root=self._root)

    @cached_property
    def personal(self) -> frozenset[str]:
        """Names of the columns with personal data, of all sources."""
        return frozenset(name for spec in self._spec.data.values() for name in spec.personal)

    @cached_property
    def known_delays(self) -> list[dict[str, timedelta | None]]:
        """Of each source, column of a declared known time to its delay; None where another column says the time."""
        from cumulant.project.data_section import known_delays

        return [known_delays(spec) for spec in self._spec.data.values()]

    @property
    def features(self) -> Path:
        """The Python file that defines the features."""
        return self._root / self._spec.features

    @cached_property
    def memory(self) -> int | None:
        """The most bytes of memory that checking data and computing features takes; None: half of the machine's."""
        declared = self._spec.resources.memory
        return None if declared is None else size(declared)

    def step_resources(self, step: str) -> Resources:
        """What a step of that name needs of a worker; of `data NAME` the resources of `data`."""
        key = "data" if step.startswith("data ") else step.replace(" ", "_")
        declared: StepResourcesSpec | None = getattr(self._spec.resources.steps, key, None)
        if declared is None:
            return Resources()
        memory = 0 if declared.memory is None else size(declared.memory)
        return Resources(declared.cpu, memory, declared.gpu, declared.region or "")

    @property
    def model(self) -> ModelSpec:
        """What the model is, for whom, and how much harm it can do."""
        return self._spec.model

    @property
    def serving(self) -> ServingSpec:
        """How the model answers requests."""
        return self._spec.serving

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """How many requests must be answered well; empty where the file declares nothing."""
        from cumulant.project.file.objectives import objectives

        return objectives(self._spec.serving.slo)

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
    def bindings(self) -> tuple[RoleBinding, ...]:
        """Who has which role, for a driver that decides by roles."""
        from cumulant.project.file.access_rules import role_bindings

        return role_bindings(self._spec.access)

    @cached_property
    def lifecycle(self) -> dict[LifecycleKind, KindLifecycle]:
        """Ages of the storage classes of each kind of data, with the age at which the first of it is deleted."""
        from cumulant.data.storage.policy import lifecycle_of

        keep = {name: source.keep for name, source in self.sources.items()}
        return lifecycle_of(self._spec.lifecycle, keep=keep, log_keep=self.log_keep)

    @cached_property
    def log_keep(self) -> timedelta:
        """How long predictions are kept."""
        return duration(self._spec.serving.log.keep)

    @cached_property
    def clock_skew(self) -> timedelta | None:
        """How far rows may be dated after the clock of the server that answers them; None: any time."""
        declared = self._spec.serving.clock_skew
        return None if declared is None else duration(declared)
