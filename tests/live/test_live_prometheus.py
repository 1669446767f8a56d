"""A stack that a real Prometheus scrapes and whose traces are collected: no panel of a dashboard is empty, and one
trace leads from the gateway to the run of the model.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_shop
from e2e_stack import until
from e2e_support import opened, run

from cumulant.alerting.alert_state import Finding
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_lag import LagReporter
from cumulant.flows.ledger.processes import is_gone
from cumulant.flows.maintenance.schedule import DUE, JobRecord
from cumulant.flows.monitoring.state import COLUMNS, TRAINING, WATCH, MonitoringState, RetrainRequest, WindowRecord
from cumulant.flows.release import store
from cumulant.flows.stack.status import read_status
from cumulant.flows.training.train import train
from cumulant.monitoring.retrain_rule import RetrainState
from cumulant.project.release_section import release_policy
from cumulant.release.spec import ReleaseSpec
from cumulant.release.state import Board, Release
from cumulant.review.queue import OPEN

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]

OTELCOL = shutil.which("otelcol")
needs_collector = pytest.mark.skipif(OTELCOL is None, reason="otelcol is not installed: tools/engines.sh builds it")
GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
SECTIONS = """
serving: {http: '127.0.0.1:0', slo: {latency: {within: 250ms}}}
monitoring: {notify: ['webhook+http://127.0.0.1:9/x']}
"""
PROJECT = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 1\n").replace("  ensemble: 2\n", "") + SECTIONS
PROJECT = PROJECT.replace("features: f", "  clicks: {stream: clicks, key: id}\nfeatures: f")
ROW = {
    "order": 1,
    "ordered": "2024-03-02T10:00:00Z",
    "customer": "c001",
    "kind": "hat",
    "amount": 10.0,
    "express": True,
}
ACTOR = Actor("service:test")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = e2e_shop.make(tmp_path_factory.mktemp("observed") / "shop", rows=1500, project=PROJECT)
    with opened(folder) as project:
        ingest_clicks(project)
        train(project, principal=project.principal())
        remember(project)
    yield folder
    run(folder, "down")


def ingest_clicks(project):
    """Messages of a stream, and the report of a process that ingests it."""
    project.streams().produce("clicks", [b'{"id": 1}', b"poison"], partition=0)
    ingest_streams(project, principal=project.principal(), once=True)
    reader = LagReporter(project.journal(), "clicks")
    reader.report("0", project.streams().bounds("clicks"), {0: 0}, {0: 2})


def remember(project):
    """What weeks of monitoring, a release and reviewers leave in the journal, in the rows that they write."""
    now, name = datetime.now(UTC), project.name
    window = WindowRecord(
        start=now - timedelta(days=2), end=now - timedelta(days=1), rows=100, labelled=80, loss=0.2, estimated=0.3
    )
    state = MonitoringState(version="1", since=now, until=now, retrain=RetrainState(trained=now), windows=(window,))
    request = RetrainRequest(requested=now, champion="1", trigger="schedule", sentence="it is due", stage="refused")
    column = {"feature": "amount", "effect": 0.2, "missing": 0.1, "alarming": True}
    case = {"id": "c1", "model": name, "queued": now, "deadline": now + timedelta(days=1)}
    arms = {arm: Arm(name=arm, version="1", endpoints=("http://127.0.0.1:1",)) for arm in ("champion", "candidate")}
    released = Release(
        id="r1",
        model=name,
        policy=release_policy(ReleaseSpec()),
        status="rolled_back",
        boards={"errors": Board(metric="errors", harm_bar=3.0, fine_bar=3.0)},
        begun=now,
        ended=now,
        settled=frozenset({"desired_state", "notified", "alias", "tags", "drained"}),
        **arms,
    )
    with project.journal().transaction(actor=ACTOR) as transaction:
        for kind, key, value in (
            (COLUMNS, name, {"columns": [column]}),
            (WATCH, name, state),
            (TRAINING, name, request),
            (OPEN, f"{name}/c1", case),
            (DUE, "monitoring", JobRecord(begun=now - timedelta(hours=1), ended=now)),
        ):
            transaction.put(kind, key, msgspec.to_builtins(value))
        store.write(transaction, None, released, expect=0)
    finding = Finding(model=name, rule="covariate", subject="amount", moved="it grew", since=now)
    observe(project, [finding], principal=project.principal())


class Prometheus:
    def __init__(self, url):
        self._url = url

    def get(self, path, **parameters):
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=30)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def up(self):
        return {target["labels"]["job"]: target["health"] for target in self.get("targets")["activeTargets"]}


class Collector:
    """A collector of OpenTelemetry, which writes what it receives over HTTP to a file."""

    def __init__(self, folder):
        self._file, configuration = folder / "spans.jsonl", folder / "otelcol.yaml"
        self.url = f"http://127.0.0.1:{free_port()}"
        receiver = {"protocols": {"http": {"endpoint": self.url.removeprefix("http://")}}}
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        settings = {
            "receivers": {"otlp": receiver},
            "exporters": {"file": {"path": str(self._file), "flush_interval": "100ms"}},
            "service": {"pipelines": {"traces": pipeline}},
        }
        configuration.write_text(json.dumps(settings))
        self.log = folder / "otelcol.log"
        with self.log.open("w") as output:
            command = [OTELCOL, f"--config={configuration}"]
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def answers(self):
        """Whether it takes requests; one without spans is allowed."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.post(f"{self.url}/v1/traces", json={}, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def text(self):
        return self._file.read_text() if self._file.exists() else ""

    def trace(self, trace_id):
        """Its spans, with the name of the service."""
        lines = [json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("\n")]
        return [
            (attributes_of(resource["resource"])["service.name"], span)
            for line in lines
            for resource in line["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
            if span["traceId"] == trace_id
        ]


def attributes_of(resource):
    return {each["key"]: each["value"].get("stringValue") for each in resource["attributes"]}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    """None where it is not installed."""
    if OTELCOL is None:
        yield None
        return
    collector = Collector(tmp_path_factory.mktemp("otelcol"))
    until(collector.answers)
    yield collector
    collector.process.terminate()
    assert collector.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def observed(shop, collector):
    """The stack with its Prometheus, which scrapes each second, and traces that go to the collector."""
    with pytest.MonkeyPatch.context() as patch:
        if collector is not None:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield from observing(shop)


def observing(shop):
    told = run(shop, "up", "--detach", "--observe", "--console", f"127.0.0.1:{free_port()}")
    status = read_status(shop / ".cumulant")
    child = next(one for one in status.children if one.name == "prometheus")
    configuration = shop / ".cumulant" / "observe" / "prometheus.yml"
    configuration.write_text(configuration.read_text().replace("15s", "1s"))
    prometheus = Prometheus(child.url)
    until(lambda: reached(prometheus))
    os.kill(child.pid, signal.SIGHUP)
    yield prometheus, told
    run(shop, "down")
    assert is_gone(child.process)


def reached(prometheus):
    try:
        return prometheus.up()
    except httpx.TransportError:
        return None


def send(url, count):
    with httpx.Client(base_url=url, timeout=30) as client:
        for number in range(count):
            answer = client.post("/v1/models/returns/predict", json={**ROW, "order": number})
            assert answer.status_code == 200, answer.text


def test_up_shows_the_programs_and_every_process_is_scraped(observed, shop):
    prometheus, told = observed
    shown = {one["name"]: one for one in told["processes"]}
    assert shown["prometheus"]["kind"] == "observer"
    assert ("alertmanager" in shown) == bool(shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"))
    wanted = {f"cumulant-{kind}": "up" for kind in ("servers", "gateway", "controller", "api")}
    until(lambda: prometheus.up() == wanted, why=lambda: str(prometheus.get("targets")["activeTargets"]))
    [series] = until(lambda: prometheus.query('cumulant_events_total{job="cumulant-controller"}'))
    assert (series["metric"]["project"], series["metric"]["environment"]) == ("returns", "local")
    until(lambda: prometheus.query('cumulant_api_requests_total{project="",route="/v1/metrics",status="200"}'))
    assert {group["name"] for group in prometheus.get("rules")["groups"]} >= {"sloth-slo-alerts-returns-availability"}
    assert {one["name"] for one in run(shop, "ps")["processes"]} >= {"prometheus", "server-1", "gateway"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("kind", ["servers", "controller", "gateway"])
def test_metrics_of_running_processes_follow_the_rules(observed, shop, kind):
    """Envoy's own names do not: counters without `_total`, and no help texts; promtool reads them, and warns (3)."""
    groups = until(lambda: json.loads((shop / ".cumulant" / "observe" / f"{kind}.json").read_text()))
    text = httpx.get(f"http://{groups[0]['targets'][0]}/metrics", timeout=30).text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    if kind == "gateway":
        assert checked.returncode == 3, checked.stderr
        assert "envoy_vhost_vcluster_upstream_rq_completed" in text
    else:
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
        assert "cumulant_" in text


@needs_collector
def test_one_trace_leads_from_the_gateway_to_the_run_of_the_model(observed, shop, collector):
    url, trace_id = read_status(shop / ".cumulant").url, "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    path = "/v1/models/returns/predict"
    assert httpx.post(f"{url}{path}?secret=hush", json=ROW, headers=headers, timeout=30).status_code == 200
    untraced = {"traceparent": "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}
    assert httpx.post(url + path, json=ROW, headers=untraced, timeout=30).status_code == 200
    until(lambda: len(collector.trace(trace_id)) >= 4, why=lambda: collector.text)
    spans = {span["name"] if service != "gateway" else service: span for service, span in collector.trace(trace_id)}
    gateway, server = spans["gateway"], spans["POST /v1/models/{model}/predict"]
    assert gateway["parentSpanId"] == "00f067aa0ba902b7"
    assert server["parentSpanId"] == gateway["spanId"]
    assert [spans[name]["parentSpanId"] for name in ("read features", "run model")] == [server["spanId"]] * 2
    assert "hush" not in collector.text
    assert collector.trace("5bf92f3577b34da6a3ce929d0e0e4736") == []


@needs_collector
def test_exemplars_of_prometheus_are_traces_of_the_collector(observed, shop, collector):
    prometheus, _ = observed
    send(read_status(shop / ".cumulant").url, 5)

    def exemplars():
        now = time.time()
        return prometheus.get("query_exemplars", query="cumulant_request_seconds_bucket", start=now - 600, end=now + 60)

    trace_id = until(exemplars)[0]["exemplars"][0]["labels"]["trace_id"]
    until(lambda: {service for service, _ in collector.trace(trace_id)} >= {"gateway"}, why=lambda: collector.text)


def queries():
    """Of every panel, as Grafana would send it."""
    for page in sorted(GRAFANA.glob("*.json")):
        for panel in json.loads(page.read_text())["panels"]:
            for target in panel.get("targets", ()):
                text = target["expr"].replace("$__rate_interval", "15s")
                for name in ("project", "environment", "model"):
                    text = text.replace(f"${name}", ".*")
                yield f"{page.stem}: {panel['title']} ({target['refId']})", text


def test_no_panel_is_empty(observed, shop):
    prometheus, _ = observed
    url = read_status(shop / ".cumulant").url
    empty = dict(queries())
    assert len(empty) > 45
    deadline = time.monotonic() + 90
    while empty and time.monotonic() < deadline:
        send(url, 5)
        empty = {name: text for name, text in empty.items() if not prometheus.query(text)}
        time.sleep(0.2)
    assert not empty
