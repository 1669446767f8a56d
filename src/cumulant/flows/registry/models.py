"""Model versions: list, show, compare, tag, alias."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.core.events import Actor, Fact
from cumulant.core.ids import digest
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.ledger.actions import verb
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.registry_metrics import plain_metrics
from cumulant.flows.registry.version_servable import describe_servable
from cumulant.flows.reports.request_example import LOCAL_URL
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.flows.training.fitted import Fitted
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

CANDIDATE, CHAMPION = "candidate", "champion"


class ModelAliased(Fact, frozen=True, kw_only=True):
    """An alias was moved (or removed: `version` is None) by a person or by the gate."""

    kind: ClassVar[str] = "model.aliased"
    model: str
    alias: str
    version: str | None


class ModelTagged(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "model.tagged"
    model: str
    version: str
    tags: tuple[str, ...]


class MeasuredRows(msgspec.Struct, frozen=True, kw_only=True):
    """The test rows that a version's figures are of; `identity` is equal where the rows are."""

    rows: int
    begin: str | None
    end: str | None
    identity: str


class LearnedRows(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows the served model learned from, and the tested one; `to`: the moment of the served model's last;
    `chosen`: how many rows `training.rows` chose to train and test on, `of` how many; None where these were all.
    """

    rows: int
    tested: int
    to: datetime | None = None
    chosen: int | None = None
    of: int | None = None


class ModelDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A version with its figures and the servable that answers for it."""

    version: ModelVersion
    metrics: dict[str, float]
    servable: Servable | GraphServable
    #: where versions are compared
    measured: MeasuredRows | None = None
    #: None where it was not trained here; `trainer` names the members of a blend with their weights
    learned: LearnedRows | None = None
    trainer: str | None = None
    #: of the server that requests go to: the running gateway of the model, else where `cumulant serve` listens
    url: str = LOCAL_URL


@verb("model.show")
def list_models(project: Project, *, principal: Principal, name: str | None = None) -> list[ModelVersion]:
    """Every version of every model (or of one), newest first."""
    registry = project.registry()
    names = [name] if name else sorted(registry.models())
    return [version for model in names for version in registry.versions(model)]


class ModelNames(msgspec.Struct, frozen=True, kw_only=True):
    """Names of models in their order. `after`: the cursor of the next page; empty on the last one."""

    names: tuple[str, ...]
    after: str
    total: int


@verb("model.show")
def model_names(
    project: Project, *, principal: Principal, text: str = "", after: str = "", limit: int = 50
) -> ModelNames:
    """The names of models that have `text` in them, in any case; `after`: as the page before says."""
    known = sorted(project.registry().models())
    chosen = [name for name in known if text.casefold() in name.casefold()] if text else known
    begin = bisect_right(chosen, after)
    page = chosen[begin : begin + limit + 1]
    return ModelNames(names=tuple(page[:limit]), after=page[limit - 1] if len(page) > limit else "", total=len(chosen))


@verb("model.show", of="model")
def model_versions(
    project: Project, model: str, *, principal: Principal, before: str | None = None, limit: int = 50
) -> Sequence[ModelVersion]:
    """At most `limit` versions of a model, the newest first, older than the version `before`.

    Raises:
        NotFoundError: there is no such model. UsageError: `before` is no version.
    """
    return project.registry().versions(model, before=before, limit=limit)


@verb("model.show", of="uri")
def show_model(project: Project, uri: str, *, principal: Principal) -> ModelDetail:
    """A version with its metrics and its servable. Raises NotFoundError."""
    version = project.registry().resolve(uri)
    metrics = project.registry().metrics(version.run_id) if version.run_id else {}
    record = find_record(project, version)
    return ModelDetail(
        version=version,
        metrics=plain_metrics(metrics),
        servable=describe_servable(project, version),
        learned=None if record is None else learned_rows(record.fitted),
        trainer=None if record is None else record.fitted.summary.made_by,
        url=_served_at(project, version.name) or LOCAL_URL,
    )


def _served_at(project: Project, model: str) -> str | None:
    from cumulant.flows.stack.lock import own_status

    try:
        status = own_status(project.state)
    except IntegrityError:  # `cumulant ps` reports it
        return None
    return status.url if status is not None and status.running and status.model == model else None


@verb("model.show")
def compare_models(project: Project, uris: Sequence[str], *, principal: Principal) -> list[ModelDetail]:
    """Versions with the test rows that their figures are of: figures of other rows prove nothing about each other."""
    details = [show_model(project, uri, principal=principal) for uri in uris]
    return [msgspec.structs.replace(detail, measured=_measured_rows(project, detail.version)) for detail in details]


def learned_rows(fitted: Fitted) -> LearnedRows:
    chosen = fitted.split.chosen
    return LearnedRows(
        rows=fitted.rows,
        tested=fitted.summary.rows,
        to=fitted.learned_to,
        chosen=None if chosen is None else chosen.rows,
        of=None if chosen is None else chosen.of,
    )


def _measured_rows(project: Project, version: ModelVersion) -> MeasuredRows | None:
    record = find_record(project, version)
    if record is None:
        return None
    evaluation, rule = record.judgement.evaluation, record.fitted.split.rule
    place = [evaluation.rows, evaluation.begin, evaluation.end]
    identity = digest([*place, record.snapshots, msgspec.to_builtins(rule)])
    return MeasuredRows(rows=evaluation.rows, begin=evaluation.begin, end=evaluation.end, identity=identity)


@verb("model.alias", of="uri")
def set_alias(
    project: Project, uri: str, alias: str, *, principal: Principal, reason: str | None = None
) -> ModelVersion:
    """Point `alias` at a version, and record it in the events."""
    version = project.registry().resolve(uri)
    project.registry().alias(version.name, alias, version.version)
    _emit(project, principal, ModelAliased(model=version.name, alias=alias, version=version.version), reason)
    return project.registry().resolve(f"{version.name}/{version.version}")


@verb("model.alias", of="name")
def remove_alias(project: Project, name: str, alias: str, *, principal: Principal, reason: str | None = None) -> None:
    project.registry().alias(name, alias, None)
    _emit(project, principal, ModelAliased(model=name, alias=alias, version=None), reason)


@verb("model.tag", of="uri")
def tag_model(project: Project, uri: str, tags: dict[str, str | None], *, principal: Principal) -> ModelVersion:
    version = project.registry().resolve(uri)
    project.registry().tag(version.name, version.version, tags)
    _emit(project, principal, ModelTagged(model=version.name, version=version.version, tags=tuple(sorted(tags))), None)
    return project.registry().resolve(f"{version.name}/{version.version}")


def _emit(project: Project, principal: Principal, fact: Fact, reason: str | None) -> None:
    with project.journal().transaction(actor=Actor(principal.id, reason)) as transaction:
        transaction.emit(fact)
