"""Counts of what was answered, as Prometheus reads them; those of several workers add up."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from cumulant.serving.scheduling.runner import SIZE_STEPS

#: upper bounds in seconds
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SIZES = tuple(2**step for step in range(SIZE_STEPS))

Labels = tuple[str, ...]


class Family(msgspec.Struct, frozen=True):
    """One metric: its kind, what it says, and the names of its labels."""

    kind: str
    help: str
    labels: Labels
    bounds: Sequence[float] = ()


_MODEL = ("model", "version")
FAMILIES = {
    "cumulant_requests_total": Family("counter", "Requests answered.", (*_MODEL, "endpoint", "status")),
    "cumulant_rows_total": Family("counter", "Rows answered.", _MODEL),
    "cumulant_request_seconds": Family(
        "histogram", "Time from the request's last byte to its answer.", (*_MODEL, "endpoint"), BUCKETS
    ),
    "cumulant_queue_seconds": Family("histogram", "Time that requests waited for their run.", _MODEL, BUCKETS),
    "cumulant_run_rows": Family("histogram", "Rows of the runs that gathered requests.", _MODEL, _SIZES),
    "cumulant_refused_total": Family("counter", "Requests refused since they could not be in time.", _MODEL),
    "cumulant_cache_total": Family("counter", "Looks into the prediction cache.", (*_MODEL, "result")),
    "cumulant_fallback_total": Family("counter", "Requests answered by the fallback.", (*_MODEL, "kind")),
    "cumulant_log_records_total": Family("counter", "Records of the prediction log: written and lost.", ("result",)),
    "cumulant_worker_starts_total": Family("counter", "Worker processes started.", ()),
    "cumulant_workers": Family("gauge", "Worker processes that answer.", ()),
    "cumulant_connections": Family("gauge", "Open HTTP connections.", ()),
}


class Series(msgspec.Struct, array_like=True):
    """One line of numbers; a histogram has the counts of its buckets and the sum of what it saw."""

    family: str
    labels: Labels
    value: float = 0.0
    counts: list[int] = []


class Metrics:
    """The counts of one process; used from its event loop."""

    def __init__(self) -> None:
        self._requests: defaultdict[Labels, int] = defaultdict(int)
        self._rows: defaultdict[Labels, int] = defaultdict(int)
        self._seconds: defaultdict[Labels, float] = defaultdict(float)
        self._buckets: defaultdict[Labels, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))

    def observe(self, model: str, version: str, endpoint: str, *, status: int, rows: int, seconds: float) -> None:
        self._requests[model, version, endpoint, str(status)] += 1
        self._rows[model, version] += rows
        self._seconds[model, version, endpoint] += seconds
        self._buckets[model, version, endpoint][bisect_left(BUCKETS, seconds)] += 1

    def series(self) -> list[Series]:
        """Everything counted so far."""
        found = [Series("cumulant_requests_total", labels, n) for labels, n in self._requests.items()]
        found += [Series("cumulant_rows_total", labels, n) for labels, n in self._rows.items()]
        found += [
            Series("cumulant_request_seconds", labels, self._seconds[labels], list(counts))
            for labels, counts in self._buckets.items()
        ]
        return found


def added(series: Iterable[Series]) -> list[Series]:
    """The series of several processes as those of one."""
    found: dict[tuple[str, Labels], Series] = {}
    for one in series:
        known = found.get((one.family, one.labels))
        if known is None:
            found[one.family, one.labels] = Series(one.family, one.labels, one.value, list(one.counts))
        else:
            known.value += one.value
            known.counts = [a + b for a, b in zip(known.counts, one.counts, strict=True)]
    return list(found.values())


def exposition(series: Iterable[Series]) -> str:
    """The text format 0.0.4 of Prometheus."""
    by_family: defaultdict[str, list[Series]] = defaultdict(list)
    for one in series:
        by_family[one.family].append(one)
    lines: list[str] = []
    for name, family in FAMILIES.items():
        if name in by_family:
            lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
            for one in by_family[name]:
                lines += _lines(name, family, one)
    return "\n".join(lines) + "\n"


def _lines(name: str, family: Family, one: Series) -> list[str]:
    if family.kind != "histogram":
        return [f"{name}{_labels(family.labels, one.labels)} {one.value:.15g}"]
    total, lines = 0, []
    for bound, count in zip((*(f"{bound:g}" for bound in family.bounds), "+Inf"), one.counts, strict=True):
        total += count
        lines.append(f"{name}_bucket{_labels((*family.labels, 'le'), (*one.labels, bound))} {total}")
    labels = _labels(family.labels, one.labels)
    return [*lines, f"{name}_sum{labels} {one.value:.9g}", f"{name}_count{labels} {total}"]


def _labels(names: Labels, values: Labels) -> str:
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}" if names else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
