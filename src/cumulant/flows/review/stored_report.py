"""Cached figures of a report on the review queue, by cases and log days, without importing scipy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cumulant.core.ids import digest
from cumulant.core.version import __version__
from cumulant.flows.monitoring.result_cache import ResultCache, cache_folder
from cumulant.ports.log import current_parts

if TYPE_CHECKING:
    from cumulant.project.project import Project
    from cumulant.review.cases import ReviewCase


def _stored(project: Project, *inputs: object) -> ResultCache:
    return ResultCache(cache_folder(project, "review", "figures"), digest([__version__, *inputs]))


def wrong_of(project: Project, cases: Sequence[ReviewCase], make: Callable[[], dict[str, bool]]) -> dict[str, bool]:
    """What `make` reads in the log of these cases with a label: whether the model was wrong."""
    days = sorted({case.time.date() for case in cases})
    inputs = [[case.id, case.worker, case.sequence, case.row, str(case.time), case.label] for case in cases]
    files = [[part.key, part.stamp] for day in days for part in current_parts(project.log(), day, day)]
    return _stored(project, inputs, files).get("wrong", dict[str, bool], make)


def error_of(project: Project, cases: Sequence[ReviewCase], wrong: Mapping[str, bool]) -> dict[str, Any] | None:
    """As `review.error_figures`."""
    from cumulant.review.report import error_figures, error_inputs

    cache = _stored(project, error_inputs(cases, wrong))
    return cache.get("error", dict[str, Any], lambda: error_figures(cases, wrong) or {}) or None
