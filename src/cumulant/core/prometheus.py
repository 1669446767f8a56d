"""Metrics in the text formats of Prometheus: 0.0.4, and OpenMetrics 1.0 with exemplars."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

Labels = tuple[str, ...]
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Family(msgspec.Struct, frozen=True):
    """One metric: its type, help text and label names."""

    kind: str
    help: str
    labels: Labels
    bounds: Sequence[float] = ()
    #: equal in every process, and not added up
    once: bool = False


class Exemplar(msgspec.Struct, array_like=True, frozen=True):
    """An observation of a bucket with the trace that it belongs to. `time`: seconds since 1970."""

    trace_id: str
    value: float
    time: float


class Series(msgspec.Struct, array_like=True):
    """One series; a histogram has the counts of its buckets and the sum of its observations.

    `exemplars`: of a histogram with any, the newest of each bucket.
    """

    family: str
    labels: Labels
    value: float = 0.0
    counts: list[int] = []
    exemplars: list[Exemplar | None] = []


def accepts_open_metrics(accept: str) -> bool:
    """Whether a scraper prefers OpenMetrics, by its header `Accept`."""
    return "application/openmetrics-text" in accept


def exposition(families: Mapping[str, Family], series: Iterable[Series], *, open_metrics: bool = False) -> str:
    """The families that have series, in their order."""
    by_family: defaultdict[str, list[Series]] = defaultdict(list)
    for item in series:
        by_family[item.family].append(item)
    lines: list[str] = []
    for name, family in families.items():
        if name in by_family:
            stem = name.removesuffix("_total") if open_metrics and family.kind == "counter" else name
            lines += [f"# HELP {stem} {_escape_help(family.help)}", f"# TYPE {stem} {family.kind}"]
            for item in by_family[name]:
                lines += _lines(name, family, item, open_metrics=open_metrics)
    if open_metrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _lines(name: str, family: Family, series: Series, *, open_metrics: bool) -> list[str]:
    if family.kind != "histogram":
        return [f"{name}{_labels(family.labels, series.labels)} {series.value:.15g}"]
    total, lines = 0, []
    bounds = (*(_bound(bound, open_metrics=open_metrics) for bound in family.bounds), "+Inf")
    exemplars = series.exemplars if open_metrics and series.exemplars else [None] * len(bounds)
    for bound, count, exemplar in zip(bounds, series.counts, exemplars, strict=True):
        total += count
        labels = _labels((*family.labels, "le"), (*series.labels, bound))
        lines.append(f"{name}_bucket{labels} {total}{'' if exemplar is None else _exemplar(exemplar)}")
    labels = _labels(family.labels, series.labels)
    return [*lines, f"{name}_sum{labels} {series.value:.15g}", f"{name}_count{labels} {total}"]


def _bound(bound: float, *, open_metrics: bool) -> str:
    """As each format writes it: OpenMetrics wants `1.0`."""
    return repr(bound) if open_metrics else f"{bound:g}"


def _exemplar(exemplar: Exemplar) -> str:
    return f' # {{trace_id="{exemplar.trace_id}"}} {exemplar.value:.6g} {exemplar.time:.3f}'


def _labels(names: Labels, values: Labels) -> str:
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}" if names else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
