"""Custom metrics: a function of the project, or a Prometheus query. A failure is no data, never success."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cumulant.core.errors import CumulantError
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.release.controller.http_probe import fetch_json
from cumulant.release.policy import MetricPolicy

ARM = "{arm}"
#: what a function of a user is here, in errors
METRIC = "metric of a release"
#: the variable that says where Prometheus is
PROMETHEUS = "PROMETHEUS_URL"
_DEFAULT = "http://127.0.0.1:9090"
_QUERY_SECONDS = 2.0


class CustomMetrics:
    """Measures the metrics that name a function or a query, once a look.

    Args:
        root: the project's folder, where functions are found.
        report: is told, in a sentence, why a metric has no value.
        seconds: that a function may take for one arm. One that takes longer is not called again while it runs.
    """

    def __init__(
        self,
        root: Path,
        report: Callable[[str], None],
        *,
        seconds: float = 5.0,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        self._root, self._report, self._seconds = root, report, seconds
        self._base = variables.get(PROMETHEUS, _DEFAULT).rstrip("/")
        self._late: dict[str, threading.Thread] = {}
        self._functions: dict[str, Callable[..., object]] = {}

    def measure(
        self, metrics: Mapping[str, MetricPolicy], rows: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, Sequence[float]]:
        """By metric, the candidate's value less the champion's, turned so that more is worse; nothing without both."""
        differences: dict[str, Sequence[float]] = {}
        for name, policy in metrics.items():
            if policy.prometheus is None and policy.call is None:
                continue
            values = {arm: self._value(name, policy, arm, rows.get(arm, ())) for arm in (CHAMPION, CANDIDATE)}
            champion, candidate = values[CHAMPION], values[CANDIDATE]
            if champion is not None and candidate is not None:
                differences[name] = [candidate - champion if policy.better == "lower" else champion - candidate]
        return differences

    def _value(self, name: str, policy: MetricPolicy, arm: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
        value = self._query(name, policy.prometheus, arm) if policy.prometheus else self._call(name, policy, rows)
        if value is None or not math.isfinite(value):
            return None
        low, high = policy.bounds or (-math.inf, math.inf)
        if not low <= value <= high:
            self._report(f"{name} of the {arm} is {value:g}, outside its bounds {low:g} to {high:g}: it is not counted")
            return None
        return value

    def _query(self, name: str, query: str, arm: str) -> float | None:
        url = f"{self._base}/api/v1/query?query={quote(query.replace(ARM, arm))}"
        document = fetch_json(url, seconds=_QUERY_SECONDS)
        value = parse_number(document)
        if value is None:
            self._report(f"{name} has no value: Prometheus at {self._base} gave no single number for the {arm}")
        return value

    def _call(self, name: str, policy: MetricPolicy, rows: Sequence[Mapping[str, Any]]) -> float | None:
        if not rows:
            return None
        running = self._late.get(name)
        if running is not None and running.is_alive():
            return None
        from cumulant.training.trainers import user_trainer  # before the clock: its import is not the function's time

        answer: list[object] = []
        thread = threading.Thread(
            target=self._run, args=(name, str(policy.call), rows, user_trainer.load_function, answer), daemon=True
        )
        thread.start()
        thread.join(self._seconds)
        if thread.is_alive():
            self._late[name] = thread
            self._report(f"{name} has no value: {policy.call} took longer than {self._seconds:g} s")
            return None
        value = answer[0] if answer else None
        if answer and (not isinstance(value, int | float) or isinstance(value, bool)):
            self._report(f"{name} has no value: {policy.call} returned {type(value).__name__}, not a number")
            return None
        return float(value) if isinstance(value, int | float) else None

    def _run(
        self, name: str, path: str, rows: Sequence[Mapping[str, Any]], load: Callable[..., Any], answer: list[object]
    ) -> None:
        try:
            if path not in self._functions:
                self._functions[path] = load(path, self._root, METRIC)
            answer.append(self._functions[path](list(rows)))
        except CumulantError as error:
            self._report(f"{name} has no value: {error.message}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge to a user's code, which may raise anything
            self._report(f"{name} has no value: {path} raised {type(error).__name__}: {error}")


def parse_number(document: object) -> float | None:
    """The one number of a Prometheus answer: a scalar, or a vector of one series; else None."""
    if (
        not isinstance(document, dict)
        or document.get("status") != "success"
        or not isinstance(document.get("data"), dict)
    ):
        return None
    kind, result = document["data"].get("resultType"), document["data"].get("result")
    sample = result if kind == "scalar" else _only(result)
    try:
        value = float(sample[1]) if isinstance(sample, list) else math.nan
    except (IndexError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _only(result: object) -> object:
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], dict):
        return None
    return result[0].get("value")
