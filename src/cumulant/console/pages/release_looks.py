"""The looks of a release on its page: of one metric at a time, over time or samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cumulant.console.look_charts import Axis, look_charts, look_rows
from cumulant.core.errors import not_found
from cumulant.flows.release.release_queries import release_looks

if TYPE_CHECKING:
    from cumulant.console.charts import Cell, Chart
    from cumulant.console.page_request import PageRequest
    from cumulant.release.look_history import LookHistory, MetricHistory
    from cumulant.release.state import Release


class LookSection(NamedTuple):
    """The looks of the chosen metric; links to other metrics and axes, each with its label and whether it is shown."""

    metric: str
    charts: list[Chart]
    metrics: list[tuple[str, str, bool]]
    axes: list[tuple[str, str, bool]]


_AXES: dict[Axis, str] = {"time": "over time", "samples": "over samples"}


def look_section(page: PageRequest, release: Release) -> LookSection | None:
    """The looks of the metric that the URL names, or of the first; None where none was recorded."""
    history = _history(page, release)
    if history is None or not history.metrics:
        return None
    names = [name for name in release.boards if name in history.metrics]
    names += [name for name in history.metrics if name not in names]
    chosen = page.query("metric") or _first(history, names)
    kind: Axis = "samples" if page.query("x") == "samples" else "time"
    metric = _metric(history, chosen)

    def href(name: str, axis: Axis) -> str:
        query = {"metric": name} | ({"x": "samples"} if axis == "samples" else {})
        return f"{page.href('releases', release.id, **query)}#looks"

    return LookSection(
        chosen,
        look_charts(history, metric, kind, page.href("releases", release.id, "looks", f"{chosen}.csv")),
        [(name, href(name, kind), name == chosen) for name in names],
        [(label, href(chosen, axis), axis == kind) for axis, label in _AXES.items()],
    )


def _first(history: LookHistory, names: Sequence[str]) -> str:
    """The metric that a reader wants to see: one that became worse, else a required one."""
    worse = [name for name in names if history.metrics[name].looks[-1].harmful]
    required = [name for name in names if history.metrics[name].required]
    return (*worse, *required, *names)[0]


def look_table(page: PageRequest, release: Release, name: str) -> list[tuple[Cell, ...]]:
    """The looks of a metric as rows of `HEADS`.

    Raises:
        NotFoundError: the metric has none.
    """
    history = _history(page, release)
    if history is None:
        raise not_found("metric with looks", name[:80], ())
    return look_rows(history, _metric(history, name))


def _history(page: PageRequest, release: Release) -> LookHistory | None:
    return release_looks(page.project, release.id, principal=page.principal, model=release.model)


def _metric(history: LookHistory, name: str) -> MetricHistory:
    if name not in history.metrics:
        raise not_found("metric with looks", name[:80], history.metrics)
    return history.metrics[name]
