"""A model version for a page: its report, the champion on the same rows, thresholds, and what made it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.flows.ledger.actions import verb
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.reports.content import Interval, ReportData
from cumulant.flows.reports.model_content import interval
from cumulant.flows.reports.report import of_model
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.flows.registry.model_record import ModelRecord
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class VersionLineage(msgspec.Struct, frozen=True, kw_only=True):
    """What made a version, in order: snapshots by source, the table of features, the run."""

    snapshots: dict[str, str]
    table: str
    features: int
    run: str
    code: str
    as_of: datetime | None


class VersionContent(msgspec.Struct, frozen=True, kw_only=True):
    """A version with its report. Of one that was not trained here, `lineage` is None and the report has no figures.

    `champion`: the figures of `champion_uri` on the same test rows, where it had not learned from them. `thresholds`,
    `reliability` and `scores`: columns of these curves, empty where the evaluation has none. `tested`: names the test
    rows; figures of other rows prove nothing about each other.
    """

    version: ModelVersion
    report: ReportData
    champion_uri: str | None
    champion: dict[str, Interval]
    thresholds: dict[str, list[float]]
    reliability: dict[str, list[float]]
    scores: dict[str, list[float]]
    tested: str | None
    lineage: VersionLineage | None


@verb("model.show", of="uri")
def version_content(project: Project, uri: str, *, principal: Principal) -> VersionContent:
    """A version of a model that reads rows.

    Raises:
        NotFoundError: there is no such version.
        IntegrityError: it reads tensors, or its files are not what they were.
    """
    version = project.registry().resolve(uri)
    record = find_record(project, version)
    report = of_model(project, version, run=None if record is None else record.run)
    if record is None:
        return VersionContent(
            version=version,
            report=report,
            champion_uri=None,
            champion={},
            thresholds={},
            reliability={},
            scores={},
            tested=None,
            lineage=None,
        )
    judgement = record.judgement
    known = {} if judgement.champion is None else judgement.champion.metrics
    curves = {name: curve.columns for name, curve in judgement.evaluation.curves.items()}
    return VersionContent(
        version=version,
        report=report,
        champion_uri=judgement.champion_uri,
        champion={name: shown for name, estimate in known.items() if (shown := interval(estimate)) is not None},
        thresholds=curves.get("threshold", {}),
        reliability=curves.get("reliability", {}),
        scores=curves.get("scores", {}),
        tested=_tested(record),
        lineage=VersionLineage(
            snapshots=record.snapshots,
            table=record.table,
            features=len(report.features),
            run=record.run,
            code=record.lineage.get("code", ""),
            as_of=record.as_of,
        ),
    )


def _tested(record: ModelRecord) -> str:
    """Equal where the test rows are."""
    evaluation = record.judgement.evaluation
    rule = msgspec.to_builtins(record.fitted.split.rule)
    return digest([[evaluation.rows, evaluation.begin, evaluation.end], record.snapshots, rule])
