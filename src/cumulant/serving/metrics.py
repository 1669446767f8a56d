"""Counts of what was answered, as Prometheus reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

#: upper bounds in seconds
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Labels = tuple[str, ...]


class Metrics:
    """Requests by model, endpoint and status; their duration; rows answered. One process, one event loop."""

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

    def text(self) -> str:
        """The exposition format 0.0.4."""
        lines = ["# HELP cumulant_requests_total Requests answered.", "# TYPE cumulant_requests_total counter"]
        names = ("model", "version", "endpoint", "status")
        lines += [f"cumulant_requests_total{_labels(names, key)} {count}" for key, count in self._requests.items()]
        lines += ["# HELP cumulant_rows_total Rows answered.", "# TYPE cumulant_rows_total counter"]
        lines += [f"cumulant_rows_total{_labels(names[:2], key)} {count}" for key, count in self._rows.items()]
        lines += [
            "# HELP cumulant_request_seconds Time from the request's head to its answer.",
            "# TYPE cumulant_request_seconds histogram",
        ]
        for key, counts in self._buckets.items():
            lines += self._histogram(key, counts, names[:3])
        return "\n".join(lines) + "\n"

    def _histogram(self, key: Labels, counts: list[int], names: Labels) -> list[str]:
        total, lines = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            total += count
            lines.append(f"cumulant_request_seconds_bucket{_labels((*names, 'le'), (*key, bound))} {total}")
        labels = _labels(names, key)
        lines.append(f"cumulant_request_seconds_sum{labels} {self._seconds[key]:.9g}")
        lines.append(f"cumulant_request_seconds_count{labels} {total}")
        return lines


def _labels(names: Labels, values: Labels) -> str:
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
