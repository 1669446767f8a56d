"""Objectives as rules of Prometheus: burn rates, budget, alerts, under the names that Sloth's dashboards read.

Of each objective three groups: the share of bad requests in each window; what is derived from it; the alerts. Rates are
sums over all gateways, and a restart of one, which sets its counters back, counts nothing twice.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Literal

import msgspec
from ruamel.yaml import YAML

from cumulant.core.units import show_duration
from cumulant.monitoring.objectives import BURN_RATES, BurnRate, Objective

Source = Literal["gateway", "servers"]
SOURCES: tuple[Source, ...] = ("gateway", "servers")
_VERSION = "v1"


class Sli(msgspec.Struct, frozen=True):
    """The counters of bad and of all requests."""

    bad: str
    total: str

    def rate(self, window: str) -> tuple[str, str]:
        """Requests a second of both. There is no series of bad requests before the first one."""
        return f"(sum(rate({self.bad}[{window}])) or vector(0))", f"sum(rate({self.total}[{window}]))"


class LatencySli(msgspec.Struct, frozen=True):
    """A histogram, whose observations above a bound are bad."""

    fast: str
    total: str

    def rate(self, window: str) -> tuple[str, str]:
        total = f"sum(rate({self.total}[{window}]))"
        return f"({total} - sum(rate({self.fast}[{window}])))", total


def rules_text(
    service: str, model: str, objectives: Sequence[Objective], *, source: Source = "gateway", selector: str = ""
) -> str:
    """A rule file. `selector` narrows the series, such as `environment="prod"`."""
    groups = [group for objective in objectives for group in _groups(service, model, objective, source, selector)]
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = False, 1_000_000
    yaml.dump({"groups": groups}, text)
    return text.getvalue()


def service_name(project: str, environment: str) -> str:
    """The name of a project's service in rules and on dashboards."""
    return project if environment == "local" else f"{project}-{environment}"


def sli_of(objective: Objective, model: str, source: Source, selector: str) -> Sli | LatencySli:
    """What is counted: by the gateway what callers see, by servers what reaches them."""
    within = objective.within or timedelta()
    if source == "gateway":
        labels = ",".join(filter(None, (f'envoy_virtual_cluster="{model}"', selector)))
        counter = "envoy_vhost_vcluster_upstream_rq"
        if objective.sli == "latency":
            bound = f"{within / timedelta(milliseconds=1):g}"
            bucket = f'{counter}_time_bucket{{{labels},le="{bound}"}}'
            return LatencySli(fast=bucket, total=f"{counter}_time_count{{{labels}}}")
        errors = f'{counter}_xx{{{labels},envoy_response_code_class="5"}}'
        return Sli(bad=errors, total=f"{counter}_completed{{{labels}}}")
    labels = ",".join(filter(None, (f'model="{model}"', 'arm!="shadow"', selector)))
    if objective.sli == "latency":
        # Prometheus reads both `1` and `1.0` as the text of a label, by the format that it was scraped in.
        bound = f"{within.total_seconds():g}"
        matcher = f'le="{bound}"' if "." in bound else f'le=~"{bound}([.]0)?"'
        bucket = f"cumulant_request_seconds_bucket{{{labels},{matcher}}}"
        return LatencySli(fast=bucket, total=f"cumulant_request_seconds_count{{{labels}}}")
    errors = f'cumulant_requests_total{{{labels},status=~"5.."}}'
    return Sli(bad=errors, total=f"cumulant_requests_total{{{labels}}}")


def _groups(
    service: str, model: str, objective: Objective, source: Source, selector: str
) -> Iterator[dict[str, object]]:
    identity = {
        "sloth_id": f"{service}-{objective.sli}",
        "sloth_service": service,
        "sloth_slo": objective.sli,
    }
    sli, name = sli_of(objective, model, source, selector), identity["sloth_id"]
    yield {"name": f"sloth-slo-sli-recordings-{name}", "rules": list(_sli_rules(objective, sli, identity))}
    yield {"name": f"sloth-slo-meta-recordings-{name}", "rules": list(_meta_rules(objective, identity))}
    yield {"name": f"sloth-slo-alerts-{name}", "rules": list(_alert_rules(model, objective, identity))}


def _windows() -> list[timedelta]:
    return sorted({window for rate in BURN_RATES for window in (rate.short, rate.long)})


def _record(name: str, expression: str, labels: Mapping[str, str]) -> dict[str, object]:
    return {"record": name, "expr": expression, "labels": dict(labels)}


def _sli_rules(objective: Objective, sli: Sli | LatencySli, identity: Mapping[str, str]) -> Iterator[dict[str, object]]:
    for window in map(show_duration, _windows()):
        bad, total = sli.rate(window)
        yield _record(
            f"slo:sli_error:ratio_rate{window}", f"{bad} / ({total} > 0)", {**identity, "sloth_window": window}
        )
    bad, total = sli.rate("5m")
    yield _record("slo:sli_errors:rate5m", bad, identity)
    yield _record("slo:sli_total:rate5m", total, identity)
    for window in (show_duration(rate.long) for rate in BURN_RATES):
        _, total = sli.rate(window)
        seconds = f"{_seconds(window):g}"
        yield _record(f"slo:sli_total:count{window}", f"{total} * {seconds}", {**identity, "sloth_window": window})
    # Weighed by requests, unlike a mean of ratios: an hour at night counts for what it has.
    period, match = show_duration(objective.window), _selector(identity)
    bad, total = (f"sum_over_time(slo:{name}:rate5m{match}[{period}])" for name in ("sli_errors", "sli_total"))
    ratio = f"{bad} / ({total} > 0)"
    yield _record(f"slo:sli_error:ratio_rate{period}", ratio, {**identity, "sloth_window": period})


def _seconds(window: str) -> float:
    return next(span.total_seconds() for span in _windows() if show_duration(span) == window)


def _meta_rules(objective: Objective, identity: Mapping[str, str]) -> Iterator[dict[str, object]]:
    match, period = _selector(identity), show_duration(objective.window)
    budget = f"{objective.budget:.10g}"
    info = {
        **identity,
        "sloth_mode": "cumulant",
        "sloth_objective": f"{objective.target * 100:.10g}",
        "sloth_spec": "prometheus/v1",
        "sloth_version": _VERSION,
    }
    on = "on(sloth_id, sloth_slo, sloth_service) group_left"
    yield _record("slo:objective:ratio", f"vector({objective.target:.10g})", identity)
    yield _record("slo:error_budget:ratio", f"vector({budget})", identity)
    yield _record("slo:time_period:days", f"vector({objective.window / timedelta(days=1):g})", identity)
    for name, window in (("current", "5m"), ("period", period)):
        burn = f"slo:sli_error:ratio_rate{window}{match} / {on} slo:error_budget:ratio{match}"
        yield _record(f"slo:{name}_burn_rate:ratio", burn, identity)
    yield _record("slo:period_error_budget_remaining:ratio", f"1 - slo:period_burn_rate:ratio{match}", identity)
    yield _record("sloth_slo_info", "vector(1)", info)


def _alert_rules(model: str, objective: Objective, identity: Mapping[str, str]) -> Iterator[dict[str, object]]:
    for severity, level in (("page", "critical"), ("ticket", "warning")):
        rates = [rate for rate in BURN_RATES if rate.severity == severity]
        yield {
            "alert": f"Cumulant{objective.sli.capitalize()}Burn",
            "expr": " or ".join(_burning(objective, rate, identity) for rate in rates),
            "labels": {**identity, "sloth_severity": severity, "severity": level, "model": model},
            "annotations": {
                "summary": f"{model}: the error budget of {objective.sli} burns too fast",
                "description": (
                    f"{model} misses its objective ({objective.target * 100:.10g}% in "
                    f"{show_duration(objective.window)}): see `cumulant slo show`."
                ),
            },
        }


def _burning(objective: Objective, rate: BurnRate, identity: Mapping[str, str]) -> str:
    match, limit = _selector(identity), f"{rate.factor(objective.window) * objective.budget:.10g}"
    long, short = show_duration(rate.long), show_duration(rate.short)
    parts = (
        f"slo:sli_error:ratio_rate{short}{match} > {limit}",
        f"slo:sli_error:ratio_rate{long}{match} > {limit}",
        f"slo:sli_total:count{long}{match} >= {objective.fewest}",
    )
    return "(" + " and ".join(f"max({part}) without (sloth_window)" for part in parts) + ")"


def _selector(identity: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in identity.items()) + "}"
