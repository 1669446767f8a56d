"""What `release` may not say although every release would ignore it, as far as no data are needed to see it.

A project with such a fault loads, so that what runs of it can be stopped; `plan` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.project.file.gate_rules import Fault
from cumulant.project.file.training_rules import refuse
from cumulant.release.policy import KINDS
from cumulant.release.spec import MetricSpec

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: keys that only a metric of the project's own is read for, and what they are where nothing is declared
_OWN = {"prometheus": None, "call": None, "bounds": None, "better": "lower"}
_ARM = "{arm}"


def check_release(project: Project) -> None:
    """Refuse what a release would not go by.

    Raises:
        ProjectFileError: every fault found, with file and line.
    """
    refuse(project, release_faults(project))


def release_faults(project: Project) -> Iterator[Fault]:
    for name, declared in project.spec.release.metrics.items():
        yield from _metric(name, declared)
    authority = project.spec.release.authority
    if authority is not None and not (Path(project.root) / authority).is_file():
        yield ("release", "authority"), f"release.authority: there is no file {authority} in the project"


def _metric(name: str, declared: MetricSpec) -> Iterator[Fault]:
    path = ("release", "metrics", name)
    if declared.quantile is not None and name != "latency":
        text = f"release.metrics.{name}.quantile: only latency is compared at a quantile"
        yield (
            (*path, "quantile"),
            f"{text}; leave it out, or write release: {{metrics: {{latency: {{quantile: 0.95}}}}}}",
        )
    if name in KINDS:
        for key in (name_of_key for name_of_key, default in _OWN.items() if getattr(declared, name_of_key) != default):
            text = f"release.metrics.{name}.{key}: {name} is measured by the release itself and does not read this"
            yield (*path, key), f"{text}; leave it out, or declare a metric under another name"
    elif declared.prometheus is not None and _ARM not in declared.prometheus:
        text = f"release.metrics.{name}.prometheus: without {_ARM} the query gives both arms the same number"
        yield (*path, "prometheus"), f'{text}; write for example up_errors{{version="{_ARM}"}}'
