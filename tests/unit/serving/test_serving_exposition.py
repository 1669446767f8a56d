"""`/metrics`, read by Prometheus' own parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families
from serving_graphs import scale
from serving_models import call
from test_serving_fleet import BODY, serving

from cumulant.core.prometheus import Series, exposition
from cumulant.core.version import __version__
from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.telemetry.metrics import FAMILIES, Metrics, process_series, sum_series

#: units and words that a name may end in
_ENDS = ("_total", "_seconds", "_bytes", "_rows", "_info", "_workers", "_connections", "_fds", "_requests")


def parsed(text):
    """Samples by name and labels, and the families; a sample that stands twice is a fault."""
    families = list(text_string_to_metric_families(text))
    samples = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples, families


def test_names_follow_the_conventions():
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"(cumulant|process)_[a-z_]+", name)
        assert name.endswith(_ENDS), name
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert family.help.endswith("."), name
        assert all(re.fullmatch("[a-z_]+", label) for label in family.labels)


@pytest.mark.parametrize(
    "name", ['a"b', "back\\slash", "line\nbreak", 'all\\n"\n\\', "ünïcode ✓", "x{y=1} 5", "\u2028\r"]
)
def test_hostile_names_of_models_come_back_as_they_are(tmp_path, name):
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "one", name=name))]))
    assert call(app, "POST", "/invocations", {"inputs": [[1, 2, 3]]}).status_code == 200
    samples, _ = parsed(call(app, "GET", "/metrics").content.decode())
    labels = (("arm", ""), ("endpoint", "invocations"), ("model", name), ("status", "200"), ("version", "1"))
    assert samples["cumulant_requests_total", labels] == 1


def test_what_every_family_looks_like():
    series = [
        Series(name, ("x",) * len(family.labels), 1.5, [1] * (len(family.bounds) + 1) if family.bounds else [])
        for name, family in FAMILIES.items()
    ]
    text = exposition(FAMILIES, series)
    _, families = parsed(text)
    if (promtool := shutil.which("promtool")) is not None:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    kinds = {family.name: family.type for family in families}
    assert {kinds[name.removesuffix("_total")] for name in FAMILIES} == {"counter", "gauge", "histogram"}
    assert all(family.documentation for family in families)
    for family in families:
        if family.type == "histogram":
            buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
            values = [sample.value for sample in buckets]
            assert values == sorted(values)
            assert buckets[-1].labels["le"] == "+Inf"
            (count,) = [sample.value for sample in family.samples if sample.name.endswith("_count")]
            assert count == values[-1]


def test_counters_only_grow_and_workers_stand_apart(tmp_path):
    scale(tmp_path / "models" / "graph")
    with serving(tmp_path / "models", "--workers", 2) as (_, ready):
        before, families = parsed(httpx.get(f"{ready['url']}/metrics").text)
        for number in range(30):
            body = BODY if number % 3 else {"inputs": []}
            httpx.post(f"{ready['url']}/v2/models/graph/infer", json=body)
        after, _ = parsed(httpx.get(f"{ready['url']}/metrics").text)
    kinds = {family.name: family.type for family in families}
    grown = 0
    for (name, labels), value in before.items():
        stem = re.sub("_(total|bucket|sum|count)$", "", name)
        if kinds[stem] in {"counter", "histogram"}:
            assert after[name, labels] >= value, name
            grown += after[name, labels] > value
    assert grown > 2
    asked = sum(value for (name, _), value in after.items() if name == "cumulant_requests_total")
    assert asked == 30
    memory = {
        dict(labels)["worker"]: value
        for (name, labels), value in after.items()
        if name == "process_resident_memory_bytes"
    }
    assert len(memory) == 2
    assert all(10e6 < value < 2e9 for value in memory.values())
    build = {labels: value for (name, labels), value in after.items() if name == "cumulant_build_info"}
    assert list(build.values()) == [1]
    assert dict(next(iter(build)))["version"] == __version__


def test_what_a_process_takes():
    found = {series.family: series.value for series in process_series()}
    assert abs(found["process_cpu_seconds_total"] - time.process_time()) < 1
    assert 0 < found["process_open_fds"] <= found["process_max_fds"]
    assert time.time() - 3600 * 24 < found["process_start_time_seconds"] < time.time()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(open(os.devnull))
        more = {series.family: series.value for series in process_series()}
    assert more["process_open_fds"] == found["process_open_fds"] + 5


def test_what_is_said_once_is_not_added_up():
    build = Series("cumulant_build_info", ("1", "3.11"), 1)
    workers = Series("cumulant_rows_total", ("m", "1"), 2)
    assert [one.value for one in sum_series([build, workers, build, workers])] == [1, 4]


def test_open_metrics_has_the_newest_trace_of_each_bucket():
    metrics, other = Metrics(), Metrics()
    for trace, seconds in (("a" * 32, 0.02), ("b" * 32, 0.021), ("", 0.022), ("c" * 32, 0.9)):
        metrics.observe("m", "1", "infer", status=200, rows=1, seconds=seconds, arm="champion", trace_id=trace)
    other.observe("m", "1", "infer", status=200, rows=1, seconds=0.95, arm="champion", trace_id="d" * 32)
    series = sum_series([*metrics.series(), *other.series()])
    families = {
        family.name: family
        for family in open_metrics_families(exposition(FAMILIES, [*series, *process_series()], open_metrics=True))
    }
    assert families["cumulant_requests"].type == "counter"
    exemplars = {
        sample.labels["le"]: (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for sample in families["cumulant_request_seconds"].samples
        if sample.exemplar
    }
    assert exemplars == {"0.025": ("b" * 32, 0.021), "1.0": ("d" * 32, 0.95)}
    assert "trace_id" not in exposition(FAMILIES, series)


def test_a_scraper_gets_the_format_that_it_asks_for(tmp_path):
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "one"))]))
    assert call(app, "POST", "/invocations", {"inputs": [[1, 2, 3]]}).status_code == 200
    wanted = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    answer = call(app, "GET", "/metrics", headers=wanted)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "cumulant_requests" in {family.name for family in open_metrics_families(answer.text)}
    assert call(app, "GET", "/metrics").headers["content-type"].startswith("text/plain")


def test_what_waits_is_shown(tmp_path):
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "one"))]))
    runner = app.models.get("graph").runner
    runner.queue.rows, runner.queue.jobs = 5, 2
    samples, _ = parsed(call(app, "GET", "/metrics").text)
    labels = (("model", "graph"), ("version", "1"))
    assert samples["cumulant_queue_requests", labels] == 2
    assert samples["cumulant_queue_rows", labels] == 5
    assert samples["cumulant_queue_limit_seconds", labels] == runner.longest_wait > 0
