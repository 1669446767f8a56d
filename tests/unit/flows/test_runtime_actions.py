"""Every flow asks for a declared action before it does anything; refusals and reads of personal data are events."""

import ast
import contextlib
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import cumulant
import cumulant.flows
from cumulant.core.errors import RefusedError, StorageError, TerminalError
from cumulant.core.events import Actor
from cumulant.drivers.local.sqlite import Database
from cumulant.flows.ledger.actions import ACTIONS, FlowAction, check, find_action, verb
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

ADA = Principal("user:ada")
ROOT = Path(cumulant.__file__).parent
FLOWS = ROOT / "flows"

#: public functions that take a project and a principal and are no verbs: parts of flows that have checked
PARTS = {
    "deployment.host_lifecycle.prepare_host": "a part of up",
    "deployment.versions.renew_everywhere": "a part of start_release and up",
    "features.freshness.evaluate_freshness": "a job of the tick and of the controller; its verb is alerts.observe",
    "features.jobs.supervise_job.supervise_job": "a job of the tick and of the controller; its verbs are alerts.observe and features.run_job",
    "ledger.actions.check": "the check itself",
    "ledger.actions.permits": "the check itself, for what a page offers",
    "ledger.actions.decide": "the check without a record",
    "features.online_read.read_at_once": "asks for the action of read_features, which it leaves the refusal to",
    "features.stream_features.apply_in_background": "calls apply_ingested on a thread",
    "identities.tokens.may_manage": "a part of verbs that list and end tokens and sessions",
    "identities.tokens.permitted_token": "a part of create_token and of confirming a requested token",
    "ledger.decisions.record_allowed": "a part of the check",
    "ledger.decisions.record_refused": "a part of the check",
    "ledger.run_context.open_run": "only verbs open runs, see below",
    "observe.objective_alerts.evaluate_objectives": "a job of the tick and of the controller; its verb is alerts.observe",
    "outcomes.labels.emit_facts": "a part of flows that ingest labels",
    "outcomes.labels.join_intake": "the end of ingest_labels and join_labels",
    "release.start.candidate.admit_candidate": "a part of start_release",
    "release.start.new_release.begin_release": "a part of start_release",
    "review.service.ingest_decisions": "labels of decisions that were allowed; the reviewer may not ingest others",
    "review.service.ingest_unless_locked": "as ingest_decisions",
    "stack.restart.renew_servers": "a part of restart and up",
    "deployment.versions.adopt": "a part of up and of the supervisor",
    "stack.served_versions.with_newest_features": "a part of up and of the supervisor",
    "deployment.versions.reads_older_data": "a part of up and of the supervisor",
    "deployment.versions.first_champion": "a part of up and of the supervisor",
}
#: functions that take a project alone and that an edge calls after its own check (`Invocation.project`, `check`)
READS = {
    "alerting.views.count_matches",
    "data.memory_budget.scratch_folder",
    "data.stream_records.only_streamed_source",
    "data.validate.newest_snapshot",
    "data.validate.refused_snapshot",
    "data.validate.required_snapshot",
    "deployment.deployment.deployment_of",
    "deployment.deployment.is_shared",
    "deployment.deployment.with_servers",
    "deployment.host_lifecycle.check_salt",
    "features.feature_table.keyed_features",
    "features.stream_query.stream_query",
    "identities.api_address.console_url",
    "identities.api_address.note_address",
    "identities.api_address.remove_address",
    "identities.api_address.running_url",
    "ledger.decisions.record_refused_request",
    "ledger.refusals.ingest_if_possible",
    "ledger.refusals.record_refusals",
    "monitoring.project_drift.declared_targets",
    "observe.project_metrics.project_series",
    "overview.project_overview.read_overview",
    "overview.project_overview.unavailable_overview",
    "project.driver_needs.driver_needs",
    "release.controller.rollback_outbox.list_rollbacks",
    "release.release_queries.waiting_candidate",
    "review.service.session_reader",
    "review.service.used_for_training",
    "stack.lifecycle.traffic_shares",
    "stack.stack_processes.check_gateway",
    "traffic.clients.gateway_url",
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: flight-late}\n")
    with load(tmp_path) as loaded:
        yield loaded


@pytest.fixture
def grant(project, monkeypatch):
    """Allows ADA the named actions alone; the requests that the driver got."""

    def allow(*actions):
        access = GrantedAccess({(ADA.id, action) for action in actions})
        monkeypatch.setattr(project, "access", lambda: access)
        return access.requests

    return allow


def events(project):
    return [(event.kind, event.actor, event.data) for event in project.journal().events()]


def decision(action):
    data = {"action": action, "resource": "flight-late", "policies": ["grants"]}
    return data | {"via": "service", "token": "", "source": "", "trace": ""}


def test_a_check_that_allows_leaves_no_event(project, grant):
    requests = grant("model.train")
    check(project, ADA, "model.train")
    assert requests == [("user:ada", "model.train", "flight-late")]
    assert events(project) == []


def test_a_refusal_is_an_event(project, grant):
    grant()
    with pytest.raises(RefusedError, match=r"user:ada may not do model\.alias to flight-late$") as caught:
        check(project, ADA, "model.alias", model="flight-late/3")
    assert caught.value.hint == "grant model.alias"
    data = decision("model.alias")
    rest = {"reason": "policy", "server": "", "count": 1, "first": None, "last": None}
    assert events(project) == [("access.refused", "user:ada", data | rest)]


def test_a_read_of_personal_data_is_an_event(project, grant):
    grant("labels.show")
    check(project, ADA, "labels.show", personal=True)
    assert events(project) == [("access.personal_data_read", "user:ada", decision("labels.show"))]


@pytest.mark.parametrize("allowed", [True, False])
def test_what_cannot_be_recorded_does_not_hide_that_nothing_can_be_written(project, grant, monkeypatch, allowed):
    with project.journal().transaction(actor=Actor(ADA.id)) as tx:
        tx.put("step", "a", {})
    project.journal().close()
    monkeypatch.setattr(Database, "frozen", property(lambda _: True))  # root may write everywhere
    grant(*(["labels.show"] if allowed else []))
    with contextlib.nullcontext() if allowed else pytest.raises(RefusedError):
        check(project, ADA, "labels.show", personal=True)
    with pytest.raises(StorageError, match="can be read but not written"):
        project.journal().advance("reader", 1)
    assert project.journal().head().seq == 0


def test_an_action_that_is_not_declared(project, grant):
    requests = grant("model.trian")
    with pytest.raises(TerminalError, match="not declared") as caught:
        check(project, ADA, "model.trian")
    assert caught.value.hint == 'did you mean "model.train"?'
    assert requests == []
    with pytest.raises(TerminalError):
        verb("model.trian")


def test_a_verb_asks_before_it_runs(project, grant):
    calls = []

    @verb("model.alias", of="uri")
    def point(project, uri, alias="champion", *, principal):
        calls.append((uri, alias, principal.id))
        return alias

    assert point.action == find_action("model.alias")  # type: ignore[attr-defined]
    requests = grant("model.alias")
    assert point(project, "late/1", principal=ADA) == "champion"
    assert point(project, uri="late/2", alias="old", principal=ADA) == "old"
    assert requests == [("user:ada", "model.alias", "late")] * 2
    grant()
    with pytest.raises(RefusedError):
        point(project, "late/3", principal=ADA)
    assert calls == [("late/1", "champion", "user:ada"), ("late/2", "old", "user:ada")]


def test_actions_are_named_by_subject_and_verb():
    for name, action in ACTIONS.items():
        assert name == action.name
        assert len(name.split(".")) == 2
        assert action.text


def module_name(path):
    return ".".join(path.relative_to(FLOWS).with_suffix("").parts)


def functions():
    """Every function of the flows at the top of a module, with its qualified name."""
    for path in sorted(FLOWS.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                yield f"{module_name(path)}.{node.name}", node


def is_verb(function):
    return any(ast.unparse(decorator).startswith("verb(") for decorator in function.decorator_list)


def parameter_types(function):
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return {ast.unparse(argument.annotation) for argument in arguments if argument.annotation is not None}


def test_every_public_flow_is_a_verb():
    public = {name: function for name, function in functions() if not function.name.startswith("_")}
    acting = {name for name, function in public.items() if {"Project", "Principal"} <= parameter_types(function)}
    assert {name for name in acting if not is_verb(public[name])} == set(PARTS)


def test_only_verbs_open_runs():
    for name, function in functions():
        opens = [
            call for call in ast.walk(function) if isinstance(call, ast.Call) and ast.unparse(call.func) == "open_run"
        ]
        assert not opens or is_verb(function), name


def imported_by_edges():
    """Qualified names of what the edges import from the flows, or use of a module that they import."""
    for edge in ("cli", "api", "server", "console", "demo"):
        for path in (ROOT / edge).rglob("*.py"):
            tree, modules = ast.parse(path.read_text(encoding="utf-8")), {}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cumulant.flows."):
                    for alias in node.names:
                        name = f"{node.module}.{alias.name}".removeprefix("cumulant.flows.")
                        modules[alias.asname or alias.name] = name
                        yield name
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                    yield f"{modules[node.value.id]}.{node.attr}"


def test_what_edges_call_with_a_project_is_checked():
    known = dict(functions())
    called = {name for name in imported_by_edges() if name in known and "Project" in parameter_types(known[name])}
    assert {name for name in called if not is_verb(known[name])} - set(PARTS) == READS


def verbs():
    for module in pkgutil.walk_packages(cumulant.flows.__path__, "cumulant.flows."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(getattr(value, "action", None), FlowAction) and value.__module__ == module.name:
                    yield pytest.param(value, id=f"{module.name.removeprefix('cumulant.flows.')}.{name}")


@pytest.mark.parametrize("flow", list(verbs()))
def test_a_refused_verb_does_nothing_else(project, grant, flow):
    requests = grant()
    given = {name: "x" for name in inspect.signature(flow).parameters if name not in ("project", "principal")}
    with pytest.raises(RefusedError):
        flow(project, principal=ADA, **given)
    assert [action for _, action, _ in requests] == [flow.action.name]
    assert [event.kind for event in project.journal().events()] == ["access.refused"]
