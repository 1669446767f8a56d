"""The identity of a training: everything that decides its result, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.expr import Node
from cumulant.core.ids import digest
from cumulant.core.plan import FeaturePlan, PredictAt
from cumulant.core.refs import TableRef
from cumulant.flows.features.task import Task
from cumulant.project.training_section import evaluation_policy, training_policy
from cumulant.training.spec import EvaluationSpec, Threshold, TrainingSpec

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.project.project import Project
    from cumulant.training.policy import EvaluationPolicy, TrainingPolicy

#: which rows a capacity or a rate counts, and which judge a fold
_COUNTED = {"counted": "all rows", "judged": "own labels"}
#: keys that the section did not have at first
_ADDED = ("rows", "half_life", "leak_auc", "blend", "final_fit")
_DEFAULT = TrainingSpec(target="")
#: built-in trainers take no code of the user
_OWN_CODE = ":"


@dataclass(frozen=True, kw_only=True)
class TrainingWork:
    """What is trained: rows (snapshot, feature table, moment), settings, and a share of the rows for a quick look."""

    task: Task
    snapshot: Snapshot
    table: TableRef
    #: the sections as they were written, which the record of a version and the identity hold
    training_spec: TrainingSpec
    evaluation_spec: EvaluationSpec
    as_of: datetime | None = None
    sample: float = 1.0
    #: labels of the review queue, as they were when this work began
    reviewed: TableRef | None = None
    trainers: Mapping[str, str | None]
    #: whether rows without times are split by their hash; those of older versions were drawn at random
    by_hash: bool = True
    #: since when the rows are of another kind than the champion learned, where a training answers a change
    change: datetime | None = None
    #: of every source, for the champion's own features; no part of the identity
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)

    @cached_property
    def training(self) -> TrainingPolicy:
        return training_policy(self.training_spec)

    @cached_property
    def evaluation(self) -> EvaluationPolicy:
        return evaluation_policy(self.evaluation_spec)

    @property
    def inputs(self) -> dict[str, Any]:
        """As JSON: the inputs of the steps that train and judge."""
        judged = {"gate", "slices", "reuse"}
        plain = _plain(self.training_spec)
        evaluation = {
            key: value for key, value in msgspec.to_builtins(self.evaluation_spec).items() if key not in judged
        }
        return {
            "table": self.table.key,
            "snapshot": self.snapshot.id,
            "as_of": self.as_of and self.as_of.isoformat(),
            "training": plain,
            "evaluation": evaluation,
            "sample": self.sample,
            "trainers": dict(self.trainers),
            **({} if self.change is None else {"change": self.change.isoformat()}),
            **({"split": "hash"} if self.by_hash and self.task.predict_at is None else {}),
            # A project without answers keeps the identity that it had.
            **({} if self.reviewed is None else {"reviewed": self.reviewed.key}),
            # So does one whose threshold does not depend on which rows are counted.
            **({} if self.reviewed is None and not isinstance(self.training_spec.threshold, Threshold) else _COUNTED),
        }

    @property
    def identity(self) -> str:
        return digest(self.inputs)

    def to_json(self) -> dict[str, Any]:
        """For `work_from_json`: snapshots by their ids."""
        reference = _WorkReference(
            entity=self.task.entity,
            target=self.task.target,
            predict_at=self.task.predict_at,
            plan=self.task.plan,
            snapshot=self.snapshot.id,
            table=self.table,
            training=self.training_spec,
            evaluation=self.evaluation_spec,
            as_of=self.as_of,
            sample=self.sample,
            reviewed=self.reviewed,
            trainers=dict(self.trainers),
            by_hash=self.by_hash,
            change=self.change,
            snapshots={name: snapshot.id for name, snapshot in self.snapshots.items()},
        )
        return msgspec.to_builtins(reference)  # type: ignore[no-any-return]

    @property
    def settings(self) -> str:
        """The digest of the sections that decide the model."""
        return digest([self.inputs["training"], self.inputs["evaluation"]])


class _WorkReference(msgspec.Struct, frozen=True, kw_only=True):
    """A training's work as JSON."""

    entity: str
    target: Node
    predict_at: PredictAt | None
    plan: FeaturePlan
    snapshot: str
    table: TableRef
    training: TrainingSpec
    evaluation: EvaluationSpec
    as_of: datetime | None
    sample: float
    reviewed: TableRef | None
    trainers: dict[str, str | None]
    by_hash: bool
    change: datetime | None
    snapshots: dict[str, str]


def work_from_json(project: Project, value: object) -> TrainingWork:
    """The work that `TrainingWork.to_json` describes, in another process of the project.

    Raises:
        NotFoundError: a snapshot is not in the journal.
    """
    from cumulant.flows.data.validate import load_snapshot

    reference = msgspec.convert(value, _WorkReference)
    snapshots = {name: load_snapshot(project, identity) for name, identity in reference.snapshots.items()}
    of_entity = snapshots.get(reference.entity)
    same = of_entity is not None and of_entity.id == reference.snapshot
    return TrainingWork(
        task=Task(
            entity=reference.entity, target=reference.target, predict_at=reference.predict_at, plan=reference.plan
        ),
        snapshot=of_entity if of_entity is not None and same else load_snapshot(project, reference.snapshot),
        table=reference.table,
        training_spec=reference.training,
        evaluation_spec=reference.evaluation,
        as_of=reference.as_of,
        sample=reference.sample,
        reviewed=reference.reviewed,
        trainers=reference.trainers,
        by_hash=reference.by_hash,
        change=reference.change,
        snapshots=snapshots,
    )


def _plain(spec: TrainingSpec) -> dict[str, Any]:
    """The settings without what was added later and is left out: such a project keeps the identity that it had."""
    settings = {
        key: value
        for key, value in msgspec.to_builtins(spec).items()
        if key not in _ADDED or value != getattr(_DEFAULT, key)
    }
    if isinstance(spec.threshold, Threshold) and spec.threshold.source_share is None:
        del settings["threshold"]["source_share"]
    return settings


def trainer_code(project: Project, trainers: Sequence[str]) -> dict[str, str | None]:
    """Trainer of the user to the digest of its code, where it is a file of the project."""
    from cumulant.data.code_hash import prepare_digest

    own = [name for name in trainers if name.rpartition(_OWN_CODE)[0].endswith(".py")]
    return {name: prepare_digest(name, project.root, role="trainer") for name in own}
