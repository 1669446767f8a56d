"""The dashboards for Grafana 11 in one description, which `tools/generate_docs.py` writes to `deploy/grafana`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 24
#: of the series of one project
_P = 'project=~"$project",environment=~"$environment"'
_M = f'{_P},model=~"$model"'
_CALLS = f'{{{_M},arm!="shadow"}}'
_GATEWAY = f'{{{_P},envoy_virtual_cluster=~"$model"'
_RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """An expression; `legend` names its series by their labels."""

    expr: str
    legend: str = "__auto"
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    #: from where the colour is that of a warning, and of an error; falling ones where the first is greater
    limits: tuple[float, float] | None = None
    about: str = ""


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]]


def panel(title: str, expr: str, legend: str = "__auto", *, unit: str = "short", **more: Any) -> Panel:
    return Panel(title, (Query(expr, legend),), unit, **more)


def quantiles(metric: str, labels: str, by: str = "") -> tuple[Query, ...]:
    groups = ", ".join(filter(None, ("le", by)))
    legend = f"{{{{{by}}}}} p" if by else "p"
    return tuple(
        Query(
            f"histogram_quantile({quantile}, sum by ({groups}) (rate({metric}_bucket{labels}{_RATE})))",
            f"{legend}{quantile * 100:g}",
            exemplars=True,
        )
        for quantile in (0.5, 0.99)
    )


SERVING = Dashboard(
    "cumulant-serving",
    "Cumulant: serving",
    {
        "Callers, by the gateway": (
            panel("Requests", f"sum by (envoy_virtual_cluster) (rate(envoy_vhost_vcluster_upstream_rq_completed{_GATEWAY}}}{_RATE}))", "{{envoy_virtual_cluster}}", unit="reqps"),
            panel("Answers by class", f"sum by (envoy_response_code_class) (rate(envoy_vhost_vcluster_upstream_rq_xx{_GATEWAY}}}{_RATE}))", "{{envoy_response_code_class}}xx", unit="reqps"),
            Panel("Duration", tuple(Query(query.expr, query.legend) for query in quantiles("envoy_vhost_vcluster_upstream_rq_time", f"{_GATEWAY}}}")), "ms"),
        ),
        "Objectives": (
            panel("Budget left", 'slo:period_error_budget_remaining:ratio{sloth_service=~"$project.*"}', "{{sloth_slo}}", unit="percentunit", kind="stat", limits=(0.5, 0.1)),
            panel("Burn rate of 5 minutes", 'slo:current_burn_rate:ratio{sloth_service=~"$project.*"}', "{{sloth_slo}}", limits=(1, 14.4)),
            panel("Share of bad requests", 'slo:sli_error:ratio_rate1h{sloth_service=~"$project.*"}', "{{sloth_slo}}", unit="percentunit"),
        ),
        "Servers": (
            panel("Requests by version and arm", f"sum by (model, version, arm) (rate(cumulant_requests_total{{{_M}}}{_RATE}))", "{{model}}/{{version}} {{arm}}", unit="reqps"),
            panel("Requests by status", f"sum by (status) (rate(cumulant_requests_total{_CALLS}{_RATE}))", "{{status}}", unit="reqps"),
            Panel("Duration by version", quantiles("cumulant_request_seconds", _CALLS, "version"), "s"),
            Panel("Wait in the queue", quantiles("cumulant_queue_seconds", f"{{{_M}}}"), "s", about="Empty while every request runs at once."),
            panel("Requests that wait", f"sum by (model, version) (cumulant_queue_requests{{{_M}}})", "{{model}}/{{version}}"),
            panel("Refused for overload", f"sum by (model, version) (rate(cumulant_refused_total{{{_M}}}{_RATE}))", "{{model}}/{{version}}", unit="reqps"),
            panel("Engine in use", f"sum by (model, version) (rate(cumulant_run_seconds_sum{{{_M}}}{_RATE}))", "{{model}}/{{version}}", unit="percentunit"),
            panel("Rows", f"sum by (model, version) (rate(cumulant_rows_total{{{_M}}}{_RATE}))", "{{model}}/{{version}}", unit="rowsps"),
            Panel("Age of stored features", quantiles("cumulant_state_age_seconds", f"{{{_M}}}"), "s"),
        ),
        "Processes": (
            panel("Processor time", f"sum by (process) (rate(process_cpu_seconds_total{{{_P}}}{_RATE}))", "{{process}}", unit="percentunit"),
            panel("Memory", f"sum by (process) (process_resident_memory_bytes{{{_P}}})", "{{process}}", unit="bytes"),
            panel("Connections and workers", f"sum by (process) (cumulant_connections{{{_P}}})", "{{process}}"),
            panel("Ready", f"cumulant_process_ready{{{_P}}}", "{{process}}", kind="stat", limits=(1, 0)),
            panel("Restarts in a minute", f"cumulant_process_restarts{{{_P}}}", "{{process}}"),
            panel("Records of the prediction log", f"sum by (result) (rate(cumulant_log_records_total{{{_P}}}{_RATE}))", "{{result}}", unit="ops"),
        ),
    },
)  # fmt: skip
MODELS = Dashboard(
    "cumulant-models",
    "Cumulant: models",
    {
        "Quality": (
            panel("Loss", f"cumulant_model_loss{{{_M}}}", "{{version}} {{kind}}"),
            panel("Harm shown by labels", f"cumulant_model_harm{{{_M}}}", "{{model}}", kind="stat", limits=(0.5, 1)),
            panel("Share of the due labels that came", f"cumulant_label_maturity_ratio{{{_M}}}", "{{model}}", unit="percentunit"),
        ),
        "Drift": (
            panel("Effect by column", f"topk(20, cumulant_drift_effect{{{_M}}})", "{{feature}}"),
            panel("Alarming columns", f"sum by (model) (cumulant_drift_alarming{{{_M}}})", "{{model}}", kind="stat", limits=(1, 5)),
            panel("Missing values", f"topk(20, cumulant_drift_missing_ratio{{{_M}}})", "{{feature}}", unit="percentunit"),
        ),
        "Release": (
            panel("Share of the candidate", f"cumulant_release_weight_ratio{{{_M}}}", "{{model}}", unit="percentunit"),
            panel("Step", f"cumulant_release_step{{{_M}}}", "{{model}}", kind="stat"),
            panel("Status", f"cumulant_release_status{{{_M}}} == 1", "{{status}}", kind="stat"),
            panel("Verdicts", f"cumulant_release_verdict{{{_M}}} == 1", "{{metric}}: {{verdict}}", kind="stat"),
            panel("Requests that counted", f"cumulant_release_samples{{{_M}}}", "{{arm}}"),
            panel("Held by an objective", f"cumulant_release_slo_held{{{_M}}}", "{{model}}", kind="stat", limits=(0.5, 1)),
            panel("Retraining under way", f"cumulant_retraining_open{{{_M}}}", "{{model}}", kind="stat"),
        ),
    },
)  # fmt: skip
OPERATION = Dashboard(
    "cumulant-operation",
    "Cumulant: data and operation",
    {
        "Alerts": (
            panel("Firing", f"cumulant_alerts_firing{{{_P}}}", "{{level}}", kind="stat", limits=(1, 5)),
            panel("By rule", f"cumulant_alerts_active{{{_M}}}", "{{rule}} {{level}}"),
            panel("Messages that wait", f"cumulant_messages_waiting{{{_P}}}", "{{receiver}}"),
        ),
        "Data": (
            panel("Age of the newest snapshot", f"time() - cumulant_data_accepted_timestamp_seconds{{{_P}}}", "{{source}}", unit="s"),
            panel("Age of the newest row", f"time() - cumulant_data_newest_timestamp_seconds{{{_P}}}", "{{source}}", unit="s"),
            panel("Rows in quarantine", f"cumulant_data_quarantined_ratio{{{_P}}}", "{{source}}", unit="percentunit"),
            panel("Since the online state was filled", f"time() - cumulant_online_state_filled_timestamp_seconds{{{_P}}}", "{{table}}", unit="s"),
            panel("Refused sources", f"cumulant_data_refused{{{_P}}}", "{{source}}", kind="stat", limits=(0.5, 1)),
            panel("Upload of the prediction log", f"cumulant_log_lag_seconds{{{_P}}}", "behind", unit="s"),
        ),
        "Streams": (
            panel("Messages behind", f"cumulant_ingest_lag_messages{{{_P}}}", "{{source}}"),
            panel("Seconds behind", f"cumulant_ingest_lag_seconds{{{_P}}}", "{{source}}", unit="s"),
            panel("Ingested messages", f"rate(cumulant_ingest_messages_total{{{_P}}}{_RATE})", "{{source}}", unit="ops"),
            panel("Refused messages", f"sum by (source, rule) (rate(cumulant_ingest_refused_total{{{_P}}}{_RATE}))", "{{source}} {{rule}}", unit="ops"),
            panel("Processes that ingest", f"cumulant_ingest_consumers{{{_P}}}", "{{source}}", kind="stat"),
            panel("Changes of partitions", f"rate(cumulant_ingest_rebalances_total{{{_P}}}{_RATE})", "{{source}}", unit="ops"),
        ),
        "Work": (
            panel("Cases that wait for reviewers", f"cumulant_review_cases{{{_M}}}", "{{model}}"),
            panel("Age of the oldest case", f"time() - cumulant_review_oldest_timestamp_seconds{{{_M}}}", "{{model}}", unit="s"),
            panel("Steps that wait for workers and run", f"cumulant_steps{{{_P}}}", "{{status}}"),
            panel("Late jobs", f"cumulant_job_late_seconds{{{_P}}}", "{{job}}", unit="s"),
            panel("Events", f"cumulant_events_total{{{_P}}}", "{{project}}"),
        ),
    },
)  # fmt: skip
DASHBOARDS = (SERVING, MODELS, OPERATION)


def document(dashboard: Dashboard) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in dashboard.rows.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}, "panels": []})  # fmt: skip
        y += 1
        for place, each in enumerate(row):
            x = place * _WIDTH % _COLUMNS
            panels.append(panel_document(each, len(panels) + 1, x, y + place * _WIDTH // _COLUMNS * _HEIGHT))
        y += -(-len(row) * _WIDTH // _COLUMNS) * _HEIGHT
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["cumulant"],
        "schemaVersion": 41,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables()},
        "links": [{"type": "dashboards", "tags": ["cumulant"], "title": "Cumulant", "asDropdown": True}],
        "panels": panels,
    }


def panel_document(each: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": each.unit, "min": 0}
    if each.limits is not None:
        first, second = each.limits
        colours = ("green", "yellow", "red") if first < second else ("red", "yellow", "green")
        low, high = min(each.limits), max(each.limits)
        steps = [
            {"color": colours[0], "value": None},
            {"color": colours[1], "value": low},
            {"color": colours[2], "value": high},
        ]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if "left" in each.title:
        del defaults["min"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number,
        "type": each.kind,
        "title": each.title,
        "description": each.about,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(65 + place),
                "datasource": source,
                "expr": query.expr,
                "legendFormat": query.legend,
                "exemplar": query.exemplars,
            }
            for place, query in enumerate(each.queries)
        ],
    }


def variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"}
    queries = {
        "project": "label_values(cumulant_events_total, project)",
        "environment": 'label_values(cumulant_events_total{project=~"$project"}, environment)',
        "model": 'label_values(cumulant_requests_total{project=~"$project",environment=~"$environment"}, model)',
    }
    return [source, *(variable(name, query) for name, query in queries.items())]


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


PATHS = {FOLDER / f"{each.uid.removeprefix('cumulant-')}.json": each for each in DASHBOARDS}


def text_of(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    return json.dumps(document(PATHS[path]), indent=1) + "\n"
