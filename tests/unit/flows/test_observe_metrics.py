"""The metrics of a project: what each says, in a form that Prometheus reads, and how many series there can be."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.data.validate import validate
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.maintenance.schedule import DUE, JobRecord
from cumulant.flows.monitoring.state import COLUMNS, WATCH, ComparedColumn, MonitoringState, WindowRecord
from cumulant.flows.observe.families import FAMILIES, MOST_FEATURES
from cumulant.flows.observe.model_metrics import verdict_word
from cumulant.flows.observe.project_metrics import CachedExposition, project_exposition
from cumulant.flows.release import store
from cumulant.flows.stack.desired_state import ServedVersion, change_desired_state
from cumulant.flows.stack.identity import Home, home_of
from cumulant.flows.stack.status import ChildStatus, Status, read_status, write_status
from cumulant.monitoring.retrain_rule import RetrainState
from cumulant.ports.compute import StepCall
from cumulant.ports.step_queue import QUEUED_STEP, QueuedStep
from cumulant.project.file.loading import load
from cumulant.project.release_section import release_policy
from cumulant.release.spec import ReleaseSpec
from cumulant.release.state import Board, Release
from cumulant.review.queue import OPEN
from cumulant.testing.clock import ManualClock

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
ACTOR = Actor("service:test")
FILE = """\
version: 1
model: {name: late}
data:
  flights: {path: flights.csv, key: [id], event_time: at}
monitoring:
  notify: ["webhook+http://127.0.0.1:9/x"]
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(FILE)
    rows = "\n".join(f"{number},2026-11-23T{number:02}:00:00Z,{number / 2}" for number in range(24))
    (tmp_path / "flights.csv").write_text(f"id,at,fare\n{rows}\n")
    with load(tmp_path) as found:
        yield found


def put(project, *rows):
    with project.journal().transaction(actor=ACTOR) as transaction:
        for kind, key, value in rows:
            transaction.put(kind, key, msgspec.to_builtins(value))


def columns(*found):
    return {"columns": [ComparedColumn(feature=n, effect=e, missing=m, alarming=a) for n, e, m, a in found]}


def samples(project, **more):
    """Samples by name and the labels that follow those of the project."""
    text = project_exposition([project], clock=ManualClock(NOW), **more)
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("project"), labels.pop("environment")) == ("late", "local")
            key = (sample.name, *labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def released():
    arms = [
        Arm(name=name, version=v, endpoints=(f"http://127.0.0.1:{v}",))
        for name, v in (("champion", "1"), ("candidate", "2"))
    ]
    boards = {
        "errors": Board(metric="errors", harm_bar=3.0, fine_bar=3.0, most_harm=4.0, confirmed=True),
        "latency": Board(metric="latency", harm_bar=3.0, fine_bar=3.0, fine=9.0),
    }
    return Release(
        id="r1",
        model="late",
        champion=arms[0],
        candidate=arms[1],
        policy=release_policy(ReleaseSpec()),
        status="running",
        at=1,
        boards=boards,
        samples={"champion": 70, "candidate": 30},
        slo_hold="the error budget of availability is spent",
        begun=NOW,
    )


STEPS = (
    {"queued": NOW - timedelta(minutes=9), "status": "running"},
    {"queued": NOW - timedelta(minutes=7)},
    {"queued": NOW - timedelta(minutes=8)},
    {"queued": NOW - timedelta(hours=1), "status": "collected"},
)


def queued_step(**more):
    call = StepCall("m:f", {})
    return QueuedStep(call=call, request="r", caller="c", version="1", **more)


def fill(project):
    """Rows as each part of the product stores them."""
    validate(project, principal=project.principal())
    window = {"start": NOW - timedelta(days=2), "end": NOW - timedelta(days=1)}
    windows = (
        WindowRecord(rows=100, labelled=90, loss=0.2, estimated=0.21, **window),
        WindowRecord(rows=300, labelled=150, estimated=0.25, **window),
    )
    state = MonitoringState(version="7", since=NOW, until=NOW, retrain=RetrainState(trained=NOW), windows=windows)
    case = {"id": "c1", "model": "late", "queued": NOW - timedelta(hours=5), "deadline": NOW - timedelta(hours=1)}
    put(
        project,
        (COLUMNS, "late", columns(("fare", 0.3, 0.0, True), ("seat", 0.02, 0.5, False), ("answer", 0.0, None, False))),
        (WATCH, "late", state),
        (WATCH, "late/6", state),
        (OPEN, "late/c1", case),
        (OPEN, "late/c2", case | {"id": "c2", "queued": NOW, "deadline": NOW + timedelta(hours=1)}),
        (DUE, "monitoring", JobRecord(begun=NOW - timedelta(hours=1), ended=NOW)),
        (DUE, "alerts", JobRecord(begun=NOW, ended=NOW)),
        *((QUEUED_STEP, f"s{number}", queued_step(**more)) for number, more in enumerate(STEPS)),
    )
    with project.journal().transaction(actor=ACTOR) as transaction:
        store.write(transaction, None, released(), expect=0)
    child = ChildStatus(
        name="server-1", kind="server", state="not ready", ready=False, restarts=3, not_ready_since=NOW, since=NOW
    )
    status = Status(
        model="late",
        environment="local",
        supervisor=this_process(),
        since=NOW,
        at=NOW,
        url=None,
        children=(child,),
        home=Home(host="h", folder="f", inode=1, device=None),
    )
    (project.state / "stack").mkdir(parents=True, exist_ok=True)
    write_status(project.state, status)


def test_what_the_metrics_say(project):
    fill(project)
    found = samples(project)
    at = NOW.timestamp()
    expected = {
        ("cumulant_drift_effect", "late", "fare"): 0.3,
        ("cumulant_drift_alarming", "late", "fare"): 1,
        ("cumulant_drift_alarming", "late", "seat"): 0,
        ("cumulant_drift_missing_ratio", "late", "seat"): 0.5,
        ("cumulant_drift_features", "late"): 3,
        ("cumulant_label_due_rows", "late"): 400,
        ("cumulant_label_arrived_rows", "late"): 240,
        ("cumulant_label_maturity_ratio", "late"): 0.6,
        ("cumulant_model_loss", "late", "7", "measured"): 0.2,
        ("cumulant_model_loss", "late", "7", "estimated"): 0.25,
        ("cumulant_model_harm", "late"): 0,
        ("cumulant_monitoring_until_timestamp_seconds", "late"): at,
        ("cumulant_data_newest_timestamp_seconds", "flights"): datetime(2026, 11, 23, 23, tzinfo=UTC).timestamp(),
        ("cumulant_data_quarantined_ratio", "flights"): 0,
        ("cumulant_data_refused", "flights"): 0,
        ("cumulant_review_cases", "late"): 2,
        ("cumulant_review_overdue_cases", "late"): 1,
        ("cumulant_review_oldest_timestamp_seconds", "late"): at - 5 * 3600,
        ("cumulant_job_late_seconds", "monitoring"): 50 * 60,
        ("cumulant_job_late_seconds", "alerts"): 0,
        ("cumulant_release_status", "late", "running"): 1,
        ("cumulant_release_status", "late", "promoted"): 0,
        ("cumulant_release_step", "late"): 2,
        ("cumulant_release_samples", "late", "candidate"): 30,
        ("cumulant_release_slo_held", "late"): 1,
        ("cumulant_steps", "queued"): 2,
        ("cumulant_steps", "running"): 1,
        ("cumulant_steps_oldest_timestamp_seconds",): at - 8 * 60,
        ("cumulant_release_verdict", "late", "errors", "harmful"): 1,
        ("cumulant_release_verdict", "late", "latency", "acceptable"): 1,
        ("cumulant_release_verdict", "late", "latency", "undecided"): 0,
        ("cumulant_process_ready", "server-1", "server"): 0,
        ("cumulant_process_restarts", "server-1", "server"): 3,
        ("cumulant_events_total",): project.journal().head().seq,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert ("cumulant_drift_missing_ratio", "late", "answer") not in found
    assert not any("late/6" in key for key in found)
    [receiver] = project.receivers()
    assert found["cumulant_messages_waiting", receiver.name] == 0


def unreachable(project):
    raise EngineUnavailableError("the hosts do not answer", subject=project.name)


def test_servers_that_answer_cost_what_the_environment_says(project, tmp_path, monkeypatch):
    served = [ServedVersion(version=version, command=("x",), port=port) for version, port in (("6", 1), ("7", 2))]
    change_desired_state(
        project.state,
        "late",
        lambda desired: msgspec.structs.replace(desired, versions={each.version: each for each in served}),
    )
    fill(project)
    children = tuple(
        ChildStatus(
            name=f"server-{each.version}",
            kind="server",
            version=each.version,
            state="ready",
            ready=each.version == "7",
            restarts=0,
            not_ready_since=None,
            since=NOW,
            url=each.endpoint,
        )
        for each in served
    )
    status = read_status(project.state)
    write_status(project.state, msgspec.structs.replace(status, children=children, home=home_of(project.state)))
    assert not any(key[0] == "cumulant_serving_cost_per_hour" for key in samples(project))
    (tmp_path / "cumulant.yaml").write_text(
        f"{FILE}environments: {{local: {{price: {{server: 0.34, currency: EUR}}}}}}\n"
    )
    with load(tmp_path) as priced:
        costs = {key: value for key, value in samples(priced).items() if key[0] == "cumulant_serving_cost_per_hour"}
        before = set(samples(priced))
        assert costs == {("cumulant_serving_cost_per_hour", "late", "7", "EUR"): 0.34}
        monkeypatch.setattr("cumulant.flows.observe.process_metrics.deployment_of", unreachable)
        assert set(samples(priced)) == before - set(costs), "nothing else is lost with it"


def test_a_project_without_anything_has_metrics(project):
    found = samples(project)
    assert found["cumulant_events_total",] == 0
    assert found["cumulant_steps", "queued"] == 0
    assert found["cumulant_alerts_firing", "critical"] == 0


def test_the_number_of_series_is_bounded(project):
    many = [(f"column{number:03}", number / 1000, 0.0, number == 5) for number in range(400)]
    put(project, (COLUMNS, "late", columns(*many)))
    found = samples(project)
    features = [key[2] for key in found if key[0] == "cumulant_drift_effect"]
    assert len(features) == MOST_FEATURES
    assert "column005" in features, "an alarming one has its series, however small its effect"
    assert "column399" in features
    assert "column006" not in features
    assert found["cumulant_drift_features", "late"] == 400


def test_a_verdict_is_one_word():
    undecided = Board(metric="m", harm_bar=3.0, fine_bar=3.0)
    assert verdict_word(undecided) == "undecided"
    assert verdict_word(msgspec.structs.replace(undecided, most_harm=5.0)) == "worse"
    assert verdict_word(msgspec.structs.replace(undecided, most_harm=5.0, fine=5.0)) == "acceptable"


def test_names_and_types_follow_the_rules_of_prometheus(project):
    fill(project)
    text = project_exposition([project], clock=ManualClock(NOW))
    for name, family in FAMILIES.items():
        assert family.help.endswith("."), name
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert not name.endswith(("_ms", "_minutes", "_percent")), name
    names = {family.name for family in open_metrics_families(project_exposition([project], open_metrics=True))}
    assert {name.removesuffix("_total") for name in FAMILIES} >= names
    promtool = shutil.which("promtool")
    if promtool is not None:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_scrapes_of_one_moment_read_once(project):
    at = [100.0]
    cached = CachedExposition([project], steady=lambda: at[0])
    first = cached()
    put(project, (COLUMNS, "late", columns(("fare", 0.3, 0.0, True))))
    assert cached() == first
    at[0] += 5
    assert "cumulant_drift_effect{" in cached()
