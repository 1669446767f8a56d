"""Model versions: list, show, compare, lineage, report, aliases, tags."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from cumulant.core.structs import struct_from
from cumulant.flows.registry.lineage import Lineage, lineage
from cumulant.flows.registry.models import (
    LearnedRows,
    MeasuredRows,
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
from cumulant.ports.registry import ModelVersion
from cumulant.server.model_uri import join_uri
from cumulant.server.operation import ApiCall, ListPage, PageQuery, delete, get, post
from cumulant.server.pages import paginate


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
    """A version with its figures. `servable`: its manifest; `measured`: the test rows, where versions are compared;
    `learned`: of what it was fitted; `url`: of the server that requests go to.
    """

    version: ModelVersion
    metrics: dict[str, float]
    measured: MeasuredRows | None
    learned: LearnedRows | None
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
    return _view(show_model(call.project, join_uri(model, version), principal=call.principal))


class AliasBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str | None = None


@post("/models/{model}/{version}/aliases/{alias}", action="model.alias")
def alias(call: ApiCall, model: str, version: str, alias: str, body: AliasBody) -> ModelVersion:
    """Point an alias at a version."""
    return set_alias(call.project, join_uri(model, version), alias, principal=call.principal, reason=body.reason)


class RemoveAliasQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason`: why, for the events."""

    reason: str = ""


@delete("/models/{model}/aliases/{alias}", action="model.alias")
def remove_alias_(call: ApiCall, model: str, alias: str, query: RemoveAliasQuery) -> None:
    """Remove an alias."""
    remove_alias(call.project, model, alias, principal=call.principal, reason=query.reason or None)


class TagBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tags`: values by name; null removes a tag."""

    tags: dict[str, str | None]


@post("/models/{model}/{version}/tags", action="model.tag")
def tag(call: ApiCall, model: str, version: str, body: TagBody) -> ModelVersion:
    """Set and remove tags of a version."""
    return tag_model(call.project, join_uri(model, version), body.tags, principal=call.principal)


def _view(detail: ModelDetail) -> VersionView:
    return struct_from(VersionView, detail, servable=msgspec.to_builtins(detail.servable))


@get("/models/{model}/{version}/lineage", action="lineage.show")
def lineage_(call: ApiCall, model: str, version: str) -> Lineage:
    """Show where a version comes from: snapshots, files, features, code and settings."""
    return lineage(call.project, join_uri(model, version), principal=call.principal)


@get("/models/{model}/{version}/report", action="project.report")
def report(call: ApiCall, model: str, version: str) -> ReportData:
    """Show the content of a version's report."""
    return content(call.project, join_uri(model, version), principal=call.principal)


OPERATIONS = (list_, compare, show, lineage_, report, alias, remove_alias_, tag)
