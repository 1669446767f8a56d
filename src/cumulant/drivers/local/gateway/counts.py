"""What the gateway counts, as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cumulant.core.traffic import Exchange

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


class Counts:
    """Of all requests since the gateway began."""

    def __init__(self) -> None:
        self._requests: Counter[Labels] = Counter()
        self._buckets: dict[Labels, list[int]] = {}
        self._seconds: Counter[Labels] = Counter()
        self._others: dict[str, Counter[Labels]] = {}

    def told(self, exchange: Exchange) -> None:
        """A request was answered."""
        arm = (("model", exchange.model), ("arm", exchange.assigned))
        more = (("served", exchange.served), ("status", str(exchange.status)), ("fault", exchange.fault))
        self._requests[(*arm, *more)] += 1
        seconds = exchange.duration_us / 1e6
        buckets = self._buckets.setdefault(arm, [0] * (len(_BOUNDS) + 1))
        buckets[next((at for at, bound in enumerate(_BOUNDS) if seconds <= bound), len(_BOUNDS))] += 1
        self._seconds[arm] += seconds  # type: ignore[assignment]  # a Counter adds any numbers

    def add(self, name: str, model: str) -> None:
        """One more of `name`, a counter of `cumulant_gateway_<name>_total`."""
        self._others.setdefault(name, Counter())[(("model", model),)] += 1

    def text(self, gauges: Iterable[tuple[str, Sequence[Sample]]]) -> str:
        """All of it, with `gauges` of the present."""
        lines = _family("requests_total", "counter", list(self._requests.items()))
        for name, found in sorted(self._others.items()):
            lines += _family(f"{name}_total", "counter", list(found.items()))
        for name, samples in gauges:
            lines += _family(name, "gauge", samples)
        return "\n".join((*lines, *self._durations(), ""))

    def _durations(self) -> Iterable[str]:
        name = "cumulant_gateway_request_duration_seconds"
        yield f"# TYPE {name} histogram"
        for labels, buckets in self._buckets.items():
            total = 0
            for bound, count in zip((*_BOUNDS, "+Inf"), buckets, strict=True):
                total += count
                yield f"{name}_bucket{_labels((*labels, ('le', str(bound))))} {total}"
            yield f"{name}_sum{_labels(labels)} {self._seconds[labels]:.6f}"
            yield f"{name}_count{_labels(labels)} {total}"


def _family(name: str, kind: str, samples: Sequence[Sample]) -> list[str]:
    full = f"cumulant_gateway_{name}"
    return [f"# TYPE {full} {kind}", *(f"{full}{_labels(labels)} {value:g}" for labels, value in samples)]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    told = (value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for _, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for (name, _), value in zip(labels, told, strict=True)) + "}"
