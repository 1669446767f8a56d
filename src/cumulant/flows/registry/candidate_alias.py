"""The candidate model of a training: what its version carries, and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import canonical
from cumulant.flows.ledger.ledger_records import RunVerdict
from cumulant.flows.registry.model_record import LEARNED_TO, MODEL, ModelRecord
from cumulant.flows.registry.registry_metrics import registry_metrics
from cumulant.flows.training.evaluation_record import Judgement
from cumulant.flows.training.fitted import Fitted
from cumulant.ports.registry import ModelVersion
from cumulant.project.identity import python_environment

if TYPE_CHECKING:
    import pandas as pd

    from cumulant.flows.features.feature_table import FeatureSet
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.package_step import PackageResult
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.journal import Transaction


@dataclass(frozen=True, kw_only=True)
class ModelCandidate:
    """A model that was trained, judged and packaged, on its way into the registry."""

    work: TrainingWork
    table: FeatureSet
    fitted: Fitted
    judgement: Judgement
    package: PackageResult
    lineage: dict[str, str]
    #: the champion when this work began, which the gate compared with
    reference: ModelVersion | None = None
    #: it is the reference again, made by other settings or of other rows
    same: bool = False
    #: rows of features as the model takes them, where rows were read to package it
    example: pd.DataFrame | None = None

    @property
    def word(self) -> RunVerdict:
        return self.judgement.word

    def params(self) -> dict[str, object]:
        """What the registry lists as the run's parameters."""
        summary, work = self.fitted.summary, self.work
        return {
            "target": work.training.target,
            "trainer": summary.trainer,
            "as_of": work.as_of.isoformat() if work.as_of else "",
            "rows": self.fitted.rows,
            "features": summary.features,
            "folds": len(summary.folds),
            "trials": summary.trials,
            **{f"best.{name}": value for name, value in summary.params.items()},
        }

    def metrics(self) -> dict[str, float]:
        """Figures on the test rows with the ends of their intervals, the baseline's, and the search's score."""
        return registry_metrics(
            self.judgement.evaluation.metrics,
            naive=self.judgement.naive.values(),
            folds={self.fitted.summary.metric: self.fitted.summary.score},
        )

    def tags(self, context: Context) -> dict[str, str]:
        """Tags of the version: its lineage, with whole digests, and its owners; nothing that is not known."""
        model, summary = context.project.policies.model, self.fitted.summary
        tags = {
            **{f"cumulant.{name}": value for name, value in self.lineage.items()},
            "cumulant.servable": self.package.servable.key,
            "cumulant.work": self.work.identity,
            "cumulant.run": context.run,
            "cumulant.trainer": summary.trainer,
            "cumulant.blend": ", ".join(f"{part.trainer} {part.weight:.2f}" for part in summary.parts),
            "cumulant.parameters": canonical(summary.params_of(summary.heaviest) or {}).decode(),
            "cumulant.parameters_of": summary.heaviest,
            "cumulant.verdict": self.word,
            LEARNED_TO: "" if self.fitted.learned_to is None else self.fitted.learned_to.isoformat(),
            "owner": model.owner,
            "purpose": model.purpose,
            "risk": model.risk,
            "target": self.work.training.target,
        }
        return {name: value for name, value in tags.items() if value}

    def remember(self, context: Context, version: ModelVersion) -> None:
        """Keep what made the version, where its registration was found done and the record was not."""
        with context.transaction() as transaction:
            self.record_in(transaction, context, f"{version.name}/{version.version}")

    def record_in(self, transaction: Transaction, context: Context, key: str) -> None:
        """Keep what made the version `name/version`; one that is known stays as it was first recorded."""
        row = transaction.get(MODEL, key)
        known = None if row is None else msgspec.convert(row.value, ModelRecord)
        # Another servable under the same number: the registry was replaced, and the record with it.
        if known is None or known.servable.key != self.package.servable.key:
            transaction.put(MODEL, key, msgspec.to_builtins(self._record(context)))

    def _record(self, context: Context) -> ModelRecord:
        python, work = python_environment(), self.work
        return ModelRecord(
            run=context.run,
            work=work.identity,
            servable=self.package.servable,
            fitted=self.fitted,
            judgement=self.judgement,
            training=work.training_spec,
            evaluation=work.evaluation_spec,
            snapshots=self.table.sources,
            table=work.table.key,
            as_of=work.as_of,
            sample=work.sample,
            change=work.change,
            reviewed=None if work.reviewed is None else work.reviewed.key,
            trainers=dict(work.trainers),
            lineage=self.lineage,
            packages=python.packages,
            python=python.python,
            created=context.now(),
        )
