"""Model versions: list, show, compare, aliases, tags, lineage; training and evaluation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from cumulant.core.structs import struct_from
from cumulant.flows.registry.lineage import Lineage, lineage
from cumulant.flows.registry.models import (
    ModelDetail,
    compare_models,
    list_models,
    remove_alias,
    set_alias,
    show_model,
    tag_model,
)
from cumulant.flows.reports.content import ReportData
from cumulant.flows.reports.report import content
from cumulant.flows.training.evaluate import evaluate
from cumulant.flows.training.evaluation_record import EvaluateResult
from cumulant.flows.training.train import train
from cumulant.ports.registry import ModelVersion
from cumulant.server.operation import ApiCall, ListPage, PageQuery, delete, get, post
from cumulant.server.pages import paginate
from cumulant.training.records import Verdict


class ModelQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: only versions of that model."""

    name: str = ""


@get("/models", action="model.show")
def list_(call: ApiCall, query: ModelQuery) -> ListPage[ModelVersion]:
    """List model versions, newest first."""
    versions = list_models(call.project, principal=call.principal, name=query.name or None)
    return paginate(
        versions, query, lambda version: (version.created.isoformat(), version.name, version.version), newest=True
    )


class CompareQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`uri`: the versions, such as `flight-late/3` or `flight-late@champion`; given once for each."""

    uri: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A version with its figures. `servable`: its manifest; `url`: of the server that requests go to."""

    version: ModelVersion
    metrics: dict[str, float]
    trainer: str | None
    servable: dict[str, Any]
    url: str


@get("/models/comparison", action="model.show")
def compare(call: ApiCall, query: CompareQuery) -> list[VersionView]:
    """Compare versions on the same rows."""
    return [_view(each) for each in compare_models(call.project, query.uri, principal=call.principal)]


@get("/models/{model}/{version}", action="model.show")
def show(call: ApiCall, model: str, version: str) -> VersionView:
    """Show a version, by its number or an alias such as `@champion`."""
    return _view(show_model(call.project, _uri(model, version), principal=call.principal))


@get("/models/{model}/{version}/lineage", action="lineage.show")
def lineage_(call: ApiCall, model: str, version: str) -> Lineage:
    """Show where a version comes from: snapshots, files, features, code and settings."""
    return lineage(call.project, _uri(model, version), principal=call.principal)


@get("/models/{model}/{version}/report", action="project.report")
def report(call: ApiCall, model: str, version: str) -> ReportData:
    """Show the content of a version's report."""
    return content(call.project, _uri(model, version), principal=call.principal)


class AliasBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str | None = None


@post("/models/{model}/{version}/aliases/{alias}", action="model.alias")
def alias(call: ApiCall, model: str, version: str, alias: str, body: AliasBody) -> ModelVersion:
    """Point an alias at a version."""
    return set_alias(call.project, _uri(model, version), alias, principal=call.principal, reason=body.reason)


@delete("/models/{model}/aliases/{alias}", action="model.alias")
def remove_alias_(call: ApiCall, model: str, alias: str) -> None:
    """Remove an alias."""
    remove_alias(call.project, model, alias, principal=call.principal)


class TagBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tags`: values by name; null removes a tag."""

    tags: dict[str, str | None]


@post("/models/{model}/{version}/tags", action="model.tag")
def tag(call: ApiCall, model: str, version: str, body: TagBody) -> ModelVersion:
    """Set and remove tags of a version."""
    return tag_model(call.project, _uri(model, version), body.tags, principal=call.principal)


class TrainBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the options of `cumulant train`."""

    quick: bool = False
    as_of: datetime | None = None
    trials: int | None = None
    time: str | None = None
    promote: bool = True


class TrainedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version. `verdict`: of the gate; `next`: commands that bring it to callers."""

    run: str
    model: ModelVersion
    verdict: Verdict
    promoted: bool
    notes: tuple[str, ...]
    next: tuple[str, ...]
    seconds: float


@post("/models/train", action="model.train", long=True)
def train_(call: ApiCall, body: TrainBody) -> TrainedVersion:
    """Train, evaluate and register a version."""
    trained = train(
        call.project,
        principal=call.principal,
        quick=body.quick,
        as_of=body.as_of,
        trials=body.trials,
        time=body.time,
        promote=body.promote,
        progress=call.progress,
    )
    return struct_from(TrainedVersion, trained)


class EvaluateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    as_of: datetime | None = None


@post("/models/{model}/{version}/evaluate", action="model.evaluate", long=True)
def evaluate_(call: ApiCall, model: str, version: str, body: EvaluateBody) -> EvaluateResult:
    """Score a version on later rows, and apply the gate."""
    return evaluate(
        call.project, _uri(model, version), principal=call.principal, as_of=body.as_of, progress=call.progress
    )


def _view(detail: ModelDetail) -> VersionView:
    return struct_from(VersionView, detail, servable=msgspec.to_builtins(detail.servable))


def _uri(model: str, version: str) -> str:
    if version == "latest":  # as the registry resolves the name alone
        return model
    return f"{model}{version}" if version.startswith("@") else f"{model}/{version}"


OPERATIONS = (list_, compare, show, lineage_, report, alias, remove_alias_, tag, train_, evaluate_)
