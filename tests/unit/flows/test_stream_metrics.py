"""Ingestion as metrics: how far it is behind, what was refused, who reads; and the alerts of Prometheus on them."""

from __future__ import annotations

import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from cumulant.core.errors import EngineUnavailableError, NotFoundError
from cumulant.core.events import Actor
from cumulant.core.progress import silent
from cumulant.flows.data import stream_lag, stream_reader
from cumulant.flows.data.stream_lag import LagReporter, source_reports
from cumulant.flows.data.stream_reader import IngestLimits, StreamReader
from cumulant.flows.observe.ingest_rules import BEHIND_SECONDS, SILENT_SECONDS, ingest_rules_text
from cumulant.flows.observe.project_metrics import project_exposition
from cumulant.ports.streams import Bounds
from cumulant.project.file.loading import load
from cumulant.testing.clock import ManualClock

PROJECT = """
version: 1
model: {name: shop}
data: {payments: {stream: pay, key: id}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    with load(tmp_path) as project:
        yield project


def samples(project, **later):
    """Those of ingestion, by name and the labels that follow the project's, as they are in so many minutes."""
    clock = ManualClock(datetime.now(UTC) + timedelta(**later))
    families = text_string_to_metric_families(project_exposition([project], clock=clock))
    return {
        (sample.name.removeprefix("cumulant_ingest_"), *list(sample.labels.values())[2:]): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("cumulant_ingest_")
    }


def test_what_was_committed_and_what_waits(project, monkeypatch):
    monkeypatch.setattr(stream_reader, "_LOOK", 0.0)
    monkeypatch.setattr(stream_reader, "_REFRESH", 0.0)
    streams = project.streams()
    streams.produce("pay", [b'{"id": 1}', b"poison", b'{"id": 2}'], partition=0)
    streams.produce("pay", [b'{"id": 3}'], partition=1)
    assert samples(project) == {}
    limits = IngestLimits(seconds=3600)
    reader = StreamReader(project, "payments", "pay", Actor("ada"), limits, silent, once=False)
    for _ in range(3):
        reader.step(0.0, threading.Event())
    reader.commit()
    streams.produce("pay", [b'{"id": 4}', b'{"id": 5}'], partition=1)
    reader.step(0.0, threading.Event())
    shown = samples(project, minutes=20)
    expected = {
        ("messages_total", "payments"): 4,
        ("rows_total", "payments"): 3,
        ("refused_total", "payments", "row:json"): 1,
        ("batches_total", "payments"): 1,
        ("rebalances_total", "payments"): 1,
        ("consumers", "payments"): 1,
        ("lag_messages", "payments"): 2,
    }
    assert {name: shown[name] for name in expected} == expected
    assert 20 * 60 <= shown["lag_seconds", "payments"] < 30 * 60
    reader.commit()
    reader.step(0.0, threading.Event())
    assert samples(project, minutes=20)["lag_seconds", "payments"] == 0
    # a partition that cannot be counted is read all the same, and one that is listed no more was read to its end
    streams.produce("pay", [b'{"id": 6}'], partition=1)
    bounds, refused = streams.bounds("pay"), EngineUnavailableError("slower", subject="pay")
    kind = type(streams)

    def throttled(*_):
        raise refused

    monkeypatch.setattr(kind, "bounds", lambda *_: {1: bounds[1]})
    monkeypatch.setattr(kind, "lag", throttled)
    reader.step(0.0, threading.Event())
    assert samples(project)["lag_messages", "payments"] == 1
    reader.commit()
    reader.start_again(refused)
    for _ in range(2):
        reader.step(0.0, threading.Event())
    shown = samples(project)
    assert (shown["messages_total", "payments"], shown["lag_messages", "payments"]) == (7, 0)
    reader.close()
    assert ("consumers", "payments") not in samples(project), "who ended by itself is no alert"
    # one that is gone before it was ever read is an error of its source
    answers = iter([bounds | {2: Bounds(0, 1)}, bounds])
    monkeypatch.setattr(kind, "bounds", lambda *_: next(answers))
    reader = StreamReader(project, "payments", "pay", Actor("ada"), limits, silent, once=False)
    with pytest.raises(NotFoundError, match="no partition 2"):
        reader.step(0.0, threading.Event())
    reader.close()


def test_the_oldest_message_came_after_the_last_end_that_is_committed(project, monkeypatch):
    reporter, seen = LagReporter(project.journal(), "payments"), []

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            seen.append(datetime(2026, 12, 1, tzinfo=UTC) + timedelta(seconds=10 * len(seen)))
            return seen[-1]

    monkeypatch.setattr(stream_lag, "datetime", Clock)
    monkeypatch.setattr(stream_lag, "_MOST", 4)

    def report(end, committed):
        reporter.report("m", {0: Bounds(0, end)}, {0: committed}, {0: end - committed})
        (latest,) = source_reports(project.journal())["payments"]
        return latest.partitions["0"]

    assert report(50, 0).waiting == 50
    assert report(50, 0).since == seen[0]
    before = len(seen)
    assert report(80, 50).since == seen[before - 1]  # all that was there then is committed
    assert report(100, 60).since == seen[before - 1]
    assert report(100, 80).since == seen[before]
    assert report(100, 100).since is None
    assert report(101, 100).since == seen[-2]
    for end in range(102, 102 + 2 * stream_lag._MOST):
        report(end, 100)
    assert len(reporter._ends[0]) <= stream_lag._MOST + 1
    with monkeypatch.context() as patch:  # an answer is lost: what is reported later is not
        kind = type(project.journal())
        write = kind.report

        def lose(*args, **options):
            write(*args, **options)
            raise EngineUnavailableError("lost", subject="journal")

        patch.setattr(kind, "report", lose)
        report(300, 100)
    assert report(400, 100).waiting == 300
    reporter.remove()
    assert source_reports(project.journal()) == {}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_evaluates_the_alerts(tmp_path):
    (tmp_path / "rules.yaml").write_text(ingest_rules_text())
    labels = 'project="p", environment="local", source="payments"'

    def case(lag, reported, minutes, *alerts):
        texts = {"lag_seconds": lag, "reported_timestamp_seconds": reported}
        series = [{"series": f"cumulant_ingest_{name}{{{labels}}}", "values": values} for name, values in texts.items()]
        own = {"project": "p", "environment": "local", "source": "payments"}
        names = {"CumulantIngestionBehind": "warning", "CumulantIngestionStopped": "critical"}
        tests = [
            {
                "eval_time": f"{minutes}m",
                "alertname": name,
                "exp_alerts": [{"exp_labels": own | {"severity": level}}] if name in alerts else [],
            }
            for name, level in names.items()
        ]
        for test in tests:  # their texts have the value
            for alert in test["exp_alerts"]:
                alert["exp_annotations"] = annotations(test["alertname"])
        return {"interval": "1m", "input_series": series, "alert_rule_test": tests}

    def annotations(name):
        rules = YAML(typ="safe").load(ingest_rules_text())["groups"][0]["rules"]
        (texts,) = (rule["annotations"] for rule in rules if rule["alert"] == name)
        value = {"CumulantIngestionBehind": "11m 40s", "CumulantIngestionStopped": "5m 0s"}[name]
        shown = {key: text.replace("{{ $labels.source }}", "payments") for key, text in texts.items()}
        return {key: text.replace("{{ $value | humanizeDuration }}", value) for key, text in shown.items()}

    behind, silent_since = BEHIND_SECONDS + 100, 300
    assert silent_since > SILENT_SECONDS
    tests = [
        case("0+0x20", "0+60x20", 20),
        case(f"{behind}+0x20", "0+60x20", 20, "CumulantIngestionBehind"),
        case(f"{behind}+0x3 0+0x17", "0+60x20", 4),
        case("0+0x20", "0+60x15 900+0x5", 20, "CumulantIngestionStopped"),
    ]
    with (tmp_path / "tests.yaml").open("w") as file:
        YAML().dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}, file)
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        tested = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr
