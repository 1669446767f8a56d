"""The declared storage classes: contradictions, costs, and rules of a cloud for the keys of this project."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.units import duration, show_duration
from cumulant.data.storage.cloud_rules import SCHEMES, BucketPlaces, Cloud, configurations
from cumulant.data.storage.policy import LifecycleFault, lifecycle_faults
from cumulant.data.storage.prices import package_prices
from cumulant.flows.ledger.actions import verb
from cumulant.flows.storage.cost import class_balances, kind_stores
from cumulant.flows.storage.stored_files import kind_prefixes
from cumulant.project.file.training_rules import refuse
from cumulant.project.residency import declared_region

if TYPE_CHECKING:
    from cumulant.data.storage.cost import ClassBalance
    from cumulant.data.storage.policy import LifecycleKind
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class DeclaredAges(msgspec.Struct, frozen=True, kw_only=True):
    """Days after which files of a kind move, None: never. `expire_days`: by which settings they are deleted."""

    kind: LifecycleKind
    store: str
    prefixes: tuple[str, ...]
    cool_days: float | None
    archive_days: float | None
    expire_days: dict[str, float]


class LifecycleView(msgspec.Struct, frozen=True, kw_only=True):
    """The declared lifecycle in this environment. `rules`: of `--render`, as the cloud's tools take them."""

    environment: str
    kinds: tuple[DeclaredAges, ...]
    classes: tuple[ClassBalance, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    rules: dict[str, Any] = {}


@verb("data.cost")
def show_lifecycle(project: Project, *, principal: Principal, render: Cloud | None = None) -> LifecycleView:
    """The ages of each kind with their effect on costs; with `render` the rules of that cloud.

    Raises:
        ProjectFileError: ages that contradict each other, or that the store refuses.
        UsageError: no store of this environment is in that cloud.
    """
    del principal
    check_lifecycle(project)
    classes = class_balances(project, package_prices(), region=declared_region(project.file.environment))
    return LifecycleView(
        environment=project.environment,
        kinds=tuple(_kinds(project)),
        classes=tuple(classes),
        notes=tuple(lifecycle_notes(project)),
        warnings=tuple(lifecycle_warnings(project)),
        rules={} if render is None else render_rules(project, render),
    )


def check_lifecycle(project: Project) -> None:
    """Raises ProjectFileError: ages that contradict each other, that the store refuses, or logs deleted too early."""
    policies = project.policies
    faults = [fault for fault, declared in _log_faults(project) if declared]
    if any(each.moves for each in policies.lifecycle.values()):
        faults += lifecycle_faults(
            policies.lifecycle,
            keep={name: source.keep for name, source in policies.sources.items()},
            log_keep=policies.log_keep,
            stores=kind_stores(project),
        )
    refuse(project, faults)


def _log_faults(project: Project) -> Iterator[tuple[LifecycleFault, bool]]:
    """Predictions that are deleted before what is learned and monitored from them; whether both ages were written.

    Where one of them is a default, nobody contradicted himself, and the project works apart from what is deleted.
    """
    monitoring, keep, path = project.spec.monitoring, project.policies.log_keep, ("serving", "log", "keep")
    written, delay = _is_written(project, *path), monitoring.performance.label_delay
    if delay is not None and keep <= duration(delay):
        text = f"monitoring.performance.label_delay ({delay}) is not shorter: labels come when their predictions are"
        fault = LifecycleFault(path, f"serving.log.keep {show_duration(keep)}: {text} deleted, so none could be joined")
        yield fault, written
    longest = max(monitoring.drift.spans) * duration(monitoring.drift.window)
    if keep < longest:
        text = f"monitoring.drift compares windows of {show_duration(longest)}, which would be deleted before"
        drift = any(_is_written(project, "monitoring", "drift", key) for key in ("window", "spans"))
        yield LifecycleFault(path, f"serving.log.keep {show_duration(keep)}: {text}"), written and drift


def _is_written(project: Project, *path: str) -> bool:
    """Whether a file, the environment or the command line sets the value under `path`."""
    entry = project.file.layers.project.at(path)
    return entry is not None and entry.value is not None


def lifecycle_notes(project: Project) -> list[str]:
    """Declared classes that do nothing where this environment stores."""
    stores = kind_stores(project)
    idle = [kind for kind, ages in project.policies.lifecycle.items() if ages.moves and stores[kind] == "file"]
    if not idle:
        return []
    names = ", ".join(f"lifecycle.{kind}" for kind in idle)
    return [f"{names}: the store is a folder, which has no storage classes; only `keep` has an effect there"]


def lifecycle_warnings(project: Project) -> list[str]:
    """Logs deleted too early by a default, and declared classes that cost more than they save by the package's list."""
    early = [fault.text for fault, declared in _log_faults(project) if not declared]
    if not any(ages.moves for ages in project.policies.lifecycle.values()):
        return early
    region = declared_region(project.file.environment)
    balances = class_balances(project, package_prices(), region=region)
    return [*early, *(item.warning for item in balances if item.warning)]


def render_rules(project: Project, cloud: Cloud) -> dict[str, Any]:
    """The rules of each bucket of this environment in a cloud, by its name, of Azure the one policy of the account.

    Raises:
        UsageError: no store of this environment is in that cloud.
    """
    scheme = SCHEMES[cloud]
    places: dict[str, BucketPlaces] = {}
    for kind, prefixes in kind_prefixes(project).items():
        for place, prefix in prefixes:
            if place.scheme == scheme:
                bucket = places.setdefault(place.bucket, BucketPlaces(place.bucket, defaultdict(list), []))
                bucket.kinds[kind].append(prefix)
                if place.key_prefix not in bucket.roots:
                    bucket.roots.append(place.key_prefix)
    if not places:
        raise UsageError(
            f"no store of environment {project.environment} is in {scheme}://, so there are no keys to write rules for",
            subject=cloud,
            hint="name the environment whose store or log is there: --env NAME",
        )
    name = f"cumulant-{project.scope.tenant}-{project.name}-{project.environment}"
    return configurations(cloud, places.values(), project.policies.lifecycle, package_prices(), name=name)


def _kinds(project: Project) -> list[DeclaredAges]:
    policies, days = project.policies, 86_400.0
    limits: dict[str, dict[str, timedelta | None]] = {
        "data": {f"data.{name}.keep": source.keep for name, source in policies.sources.items()},
        "logs": {"serving.log.keep": policies.log_keep},
    }
    prefixes = kind_prefixes(project)
    return [
        DeclaredAges(
            kind=kind,
            store=prefixes[kind][0][0].scheme,
            prefixes=tuple(prefix if place.folder is None else str(place.folder) for place, prefix in prefixes[kind]),
            cool_days=None if ages.cool is None else ages.cool.total_seconds() / days,
            archive_days=None if ages.archive is None else ages.archive.total_seconds() / days,
            expire_days={
                name: limit.total_seconds() / days for name, limit in limits.get(kind, {}).items() if limit is not None
            },
        )
        for kind, ages in policies.lifecycle.items()
    ]
