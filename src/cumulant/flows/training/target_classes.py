"""The classes of a target: their rows, rare ones, and those that the champion or the source's rule does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError, IntegrityError, NotFoundError
from cumulant.core.expr import Column
from cumulant.core.servable import Task as Kind
from cumulant.flows.registry.models import CANDIDATE, CHAMPION
from cumulant.flows.registry.version_servable import describe_row_servable

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.features.task import Task
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.policy import TrainingPolicy

_SHOWN = 5


class KnownClasses(msgspec.Struct, frozen=True, kw_only=True):
    """What the champion, or without one the candidate, answers."""

    uri: str
    task: Kind
    classes: tuple[str, ...]


def class_counts(*parts: TrainingSet) -> dict[str, int]:
    """Class to its labelled rows, in the order of the classes; nothing for a regression."""
    return {
        text: sum(int((rows.target == number).sum()) for rows in parts) for number, text in enumerate(parts[0].classes)
    }


def known_classes(project: Project) -> KnownClasses | None:
    """Those of the version that the next one takes the place of; None where none answers the same question."""
    version = _version(project)
    return None if version is None else _classes_of(project, version, project.training())


def class_warnings(
    project: Project,
    task: Task,
    snapshot: Snapshot,
    *,
    known: KnownClasses | None,
    kind: Kind,
    counts: Mapping[str, int],
) -> tuple[str, ...]:
    """What of the classes may not be as meant, and what the version before does not know of them (`known_classes`).

    Raises:
        DataError: other values have made the target another task than that version's, and no declaration says that it
            is meant.
    """
    from cumulant.training.class_names import rare_classes

    spec = project.training()
    meant = spec.task != "auto" or _declared(project, task, kind, counts)
    if known is not None and known.task != kind and not meant:
        raise _another_task(spec.target, kind, counts, known)
    warnings = refused_classes(project, task, snapshot)
    rare = rare_classes(spec.target, counts)
    if known is None or not counts:
        return (*warnings, *rare)
    new = {text: count for text, count in counts.items() if text not in known.classes}
    gone = [text for text in known.classes if text not in counts]
    if new:
        warnings += (f"the target {spec.target} has classes that {known.uri} does not know: {_named(new)}",)
    if gone:
        warnings += (f"the target {spec.target} has no row of classes that {known.uri} knows: {', '.join(gone)}",)
    return (*warnings, *rare)


def _members(project: Project, task: Task) -> set[str] | None:
    """The classes that the source's rule `in` names; None where there is none."""
    from cumulant.training.class_names import label

    rules = project.file.source(task.entity).rules
    rule = rules.get(task.target.name) if isinstance(task.target, Column) else None
    return None if rule is None or rule.in_ is None else {label(member) for member in rule.in_}


def _declared(project: Project, task: Task, kind: Kind, counts: Mapping[str, int]) -> bool:
    """Whether the rule `in` names these classes and no others: then its author has declared the change."""
    return kind != "regression" and _members(project, task) == set(counts)


def _version(project: Project) -> ModelVersion | None:
    """The champion, else the candidate, else the newest version; None where there is none."""
    for uri in (f"{project.name}@{CHAMPION}", f"{project.name}@{CANDIDATE}", project.name):
        try:
            return project.registry().resolve(uri)
        except NotFoundError:
            continue
    return None


def refused_classes(project: Project, task: Task, snapshot: Snapshot) -> tuple[str, ...]:
    """A warning of the values of the target that its rule `in`, or its type, has put into quarantine."""
    members = _members(project, task)
    if members is None or not isinstance(task.target, Column):
        return ()
    column = task.target.name
    rules = [f"{column}:in", f"{column}:type"]
    if not any(check.rule in rules and check.failed for check in snapshot.checks):
        return ()
    from cumulant.data.views import read_quarantine

    rows = read_quarantine(snapshot, project.tables(), project.salt())
    refused = rows.filter(rows["__rule"].is_in(rules))
    from cumulant.training.class_names import label

    counts = Counter(label(value) for value in refused[column]) if column in rows.columns else {}
    text = (
        f"rows whose {column} is not among `rules: {{{column}: {{in: ...}}}}` are in quarantine and not learned from: "
        f"{_named(counts)}; where one is a class, add it to `in`"
    )
    return (text,)


def _classes_of(project: Project, version: ModelVersion, spec: TrainingPolicy) -> KnownClasses | None:
    """The task and classes of a version that answers the same question, and whose files are there."""
    if version.tags.get("target", spec.target) != spec.target:
        return None
    try:
        servable = describe_row_servable(project, version, verify=False)
    except (DataError, IntegrityError, NotFoundError):
        return None
    return KnownClasses(uri=version.uri, task=servable.task, classes=servable.classes)


def _another_task(target: str, kind: Kind, counts: Mapping[str, int], known: KnownClasses) -> DataError:
    classes = known.classes
    new = {text: count for text, count in counts.items() if text not in classes}
    gone = [text for text in classes if text not in counts]
    if new:
        why = f": it has the new values {_named(new)}"
    else:
        why = f": no row has {', '.join(gone)} any more" if counts and gone else ": it has other values"
    meant = f"if it is meant, training: {{task: {kind}}}"
    allowed = f"{{{target}: {{in: [{', '.join(classes)}]}}}}"
    quarantine = f"put such rows into quarantine by rules: {allowed} of the source; or, {meant}"
    return DataError(
        f"the target {target} was {known.task} in {known.uri} and is {kind} now{why}",
        subject=target,
        hint=quarantine if classes and (new or not counts) else f"look at the rows; {meant}",
    )


def _named(counts: Mapping[str, int]) -> str:
    most = sorted(counts.items(), key=lambda pair: -pair[1])
    more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    return ", ".join(f'"{text}" ({count:,} {"row" if count == 1 else "rows"})' for text, count in most[:_SHOWN]) + more
