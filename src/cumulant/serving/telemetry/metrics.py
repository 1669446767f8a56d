"""Prometheus metrics of the server and of its processes; those of several workers are summed."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cumulant.core.prometheus import Exemplar, Family, Labels, Series
from cumulant.core.version import __version__
from cumulant.serving.histogram import AGES, ROWS, SECONDS, Histogram

if TYPE_CHECKING:
    from cumulant.serving.models.model import Model

_SELF = Path("/proc/self")
#: place of the start, in ticks since the machine started, among what follows the command's name in `stat`
_STARTED = 19


_MODEL = ("model", "version")
FAMILIES = {
    "cumulant_requests_total": Family(
        "counter", "Requests answered; 499: the client left.", (*_MODEL, "arm", "endpoint", "status")
    ),
    "cumulant_rows_total": Family("counter", "Rows answered.", _MODEL),
    "cumulant_request_seconds": Family(
        "histogram", "Time from the request's last byte to its answer.", (*_MODEL, "arm", "endpoint"), SECONDS
    ),
    "cumulant_queue_seconds": Family("histogram", "Time that requests waited for their run.", _MODEL, SECONDS),
    "cumulant_queue_requests": Family("gauge", "Requests that wait for their run.", _MODEL),
    "cumulant_queue_rows": Family("gauge", "Rows of the requests that wait for their run.", _MODEL),
    "cumulant_queue_limit_seconds": Family(
        "gauge", "Expected wait from which on requests are refused.", _MODEL, once=True
    ),
    "cumulant_run_seconds": Family("histogram", "Time of the engine's runs.", _MODEL, SECONDS),
    "cumulant_run_rows": Family("histogram", "Rows of the runs that gathered requests.", _MODEL, ROWS),
    "cumulant_refused_total": Family("counter", "Requests refused since they could not be in time.", _MODEL),
    "cumulant_cache_total": Family(
        "counter", "Lookups in the prediction cache of a process: `hit`, `miss`.", (*_MODEL, "result")
    ),
    "cumulant_shared_cache_total": Family(
        "counter",
        "Lookups in the shared cache: `hit`, `miss`, `late` (beyond the budget), `error`, `foreign` (damaged).",
        (*_MODEL, "result"),
    ),
    "cumulant_shared_cache_writes_total": Family(
        "counter", "Answers for the shared cache: `written`, `failed`, `dropped`.", (*_MODEL, "result")
    ),
    "cumulant_shared_cache_seconds": Family("histogram", "Time of lookups in the shared cache.", (), SECONDS),
    "cumulant_shared_cache_open_workers": Family(
        "gauge", "Workers with an open circuit breaker of the shared cache, by read and write.", ("part",)
    ),
    "cumulant_state_age_seconds": Family(
        "histogram", "Age of the newest stored features that a request used.", _MODEL, AGES
    ),
    "cumulant_incomplete_rows_total": Family(
        "counter", "Rows dated before what is stored of their key begins, so that features may lack events.", _MODEL
    ),
    "cumulant_fallback_total": Family("counter", "Requests answered by the fallback.", (*_MODEL, "kind")),
    "cumulant_invalid_rows_total": Family(
        "counter", "Rows that broke a rule of the data contract, also refused ones.", (*_MODEL, "rule")
    ),
    "cumulant_log_records_total": Family(
        "counter", "Records of the prediction log: `written`, `lost`, `refused` (durable mode).", ("result",)
    ),
    "cumulant_access_refused_total": Family(
        "counter", "Requests that the policy refuses, or without a token or from another origin.", ("action", "reason")
    ),
    "cumulant_gateway_tokens_rejected_total": Family("counter", "Requests with a rejected gateway token.", ()),
    "cumulant_label_posts_total": Family(
        "counter", "Posts of labels: `accepted`, `duplicate`, `refused`.", ("result",)
    ),
    "cumulant_labels_waiting_bytes": Family("gauge", "Posted labels that wait for ingestion.", (), once=True),
    "cumulant_worker_starts_total": Family("counter", "Worker processes started.", ()),
    "cumulant_workers": Family("gauge", "Worker processes that answer.", ()),
    "cumulant_http_refused_total": Family(
        "counter",
        "Requests that their connection refused before they were whole: `malformed`, `host`, `target`, `headers`, "
        "`body` (too long), `crowded` (too many bodies or waiting heads), `slow`, `unread` (the client does not read), "
        "`busy` (overload).",
        ("reason",),
    ),
    "cumulant_connections": Family("gauge", "Open HTTP connections.", ()),
    "cumulant_build_info": Family("gauge", "Versions of the server and of Python.", ("version", "python"), once=True),
    "process_cpu_seconds_total": Family("counter", "Processor time of a worker.", ("worker",)),
    "process_resident_memory_bytes": Family("gauge", "Memory that a worker holds.", ("worker",)),
    "process_open_fds": Family("gauge", "Open file descriptors of a worker.", ("worker",)),
    "process_max_fds": Family("gauge", "The most file descriptors that a worker may open.", ("worker",)),
    "process_start_time_seconds": Family("gauge", "When a worker started, since 1970.", ("worker",)),
}


class Metrics:
    """Request counters of one process; used from its event loop."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[Labels, int], int] = defaultdict(int)
        self._rows: defaultdict[Labels, int] = defaultdict(int)
        self._seconds: defaultdict[Labels, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        #: the newest by bucket
        self._exemplars: defaultdict[Labels, dict[int, Exemplar]] = defaultdict(dict)

    def observe(
        self,
        model: str,
        version: str,
        endpoint: str,
        *,
        status: int,
        rows: int,
        seconds: float,
        arm: str = "",
        trace_id: str = "",
    ) -> None:
        """Count a request. `trace_id`: of its trace, if one is recorded."""
        labels = model, version, arm, endpoint
        self._requests[labels, status] += 1
        self._rows[model, version] += rows
        bucket = self._seconds[labels].observe(seconds)
        if trace_id:
            self._exemplars[labels][bucket] = Exemplar(trace_id, seconds, time.time())

    def series(self) -> list[Series]:
        """Everything counted so far."""
        requests = self._requests.items()
        series = [Series("cumulant_requests_total", (*labels, str(status)), n) for (labels, status), n in requests]
        series += [Series("cumulant_rows_total", labels, n) for labels, n in self._rows.items()]
        series += [self._timed(labels, seen) for labels, seen in self._seconds.items()]
        return series

    def _timed(self, labels: Labels, seen: Histogram) -> Series:
        series = histogram_series("cumulant_request_seconds", labels, seen)
        if exemplars := self._exemplars.get(labels):
            series.exemplars = [exemplars.get(bucket) for bucket in range(len(seen.counts))]
        return series


def counter_series(family: str, labels: Labels, counts: Mapping[Any, int]) -> list[Series]:
    """Series of one family by its last label."""
    return [Series(family, (*labels, name), count) for name, count in counts.items()]


def model_series(model: Model) -> list[Series]:
    """Series of a model's runner, rules and fallback."""
    labels, runner, cache = (model.name, model.version), model.runner, model.runner.cache
    series = [
        histogram_series("cumulant_queue_seconds", labels, runner.waited),
        histogram_series("cumulant_run_seconds", labels, runner.ran),
        histogram_series("cumulant_run_rows", labels, runner.gathered),
        Series("cumulant_refused_total", labels, runner.refused),
        Series("cumulant_queue_requests", labels, runner.queue.jobs),
        Series("cumulant_queue_rows", labels, runner.queue.rows),
        Series("cumulant_queue_limit_seconds", labels, runner.longest_wait),
    ]
    if cache.hits or cache.misses:
        series += counter_series("cumulant_cache_total", labels, {"hit": cache.hits, "miss": cache.misses})
    if runner.shared is not None:
        series += counter_series("cumulant_shared_cache_total", labels, runner.shared.counts.lookups)
        series += counter_series("cumulant_shared_cache_writes_total", labels, runner.shared.counts.writes)
    if model.rules is not None:
        series += counter_series("cumulant_invalid_rows_total", labels, model.rules.counts)
    if model.state_ages is not None:
        series.append(histogram_series("cumulant_state_age_seconds", labels, model.state_ages))
        series.append(Series("cumulant_incomplete_rows_total", labels, model.incomplete_rows))
    if model.fallback is not None:
        series += counter_series("cumulant_fallback_total", labels, model.fallback.counts)
    return series


def histogram_series(family: str, labels: Labels, seen: Histogram) -> Series:
    return Series(family, labels, seen.total, list(seen.counts))


def sum_series(series: Iterable[Series]) -> list[Series]:
    """Sum of the series of several processes."""
    totals: dict[tuple[str, Labels], Series] = {}
    for item in series:
        known = totals.get((item.family, item.labels))
        if known is None:
            totals[item.family, item.labels] = Series(
                item.family, item.labels, item.value, list(item.counts), list(item.exemplars)
            )
        elif not FAMILIES[item.family].once:
            known.value += item.value
            known.counts = [a + b for a, b in zip(known.counts, item.counts, strict=True)]
            known.exemplars = _newest(known.exemplars, item.exemplars)
    return list(totals.values())


def _newest(ours: list[Exemplar | None], theirs: list[Exemplar | None]) -> list[Exemplar | None]:
    """The newer exemplar of each bucket."""
    if not ours or not theirs:
        return ours or theirs
    return [
        max(pair, key=lambda exemplar: 0.0 if exemplar is None else exemplar.time)
        for pair in zip(ours, theirs, strict=True)
    ]


def process_series() -> list[Series]:
    """Processor time everywhere; memory, descriptors and the start where the system has /proc."""
    worker = (str(os.getpid()),)
    series = [
        Series("cumulant_build_info", (__version__, platform.python_version()), 1),
        Series("process_cpu_seconds_total", worker, time.process_time()),
    ]
    if not _SELF.is_dir():
        return series
    values = {
        "process_resident_memory_bytes": _resident(),
        "process_open_fds": sum(1 for _ in (_SELF / "fd").iterdir()),
        "process_max_fds": _most_files(),
        "process_start_time_seconds": _started(),
    }
    return series + [Series(name, worker, value) for name, value in values.items()]


def _resident() -> int:
    pages = int((_SELF / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _most_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _started() -> float:
    fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
