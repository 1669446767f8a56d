"""The export as OCSF in CloudEvents has what the published schema (1.4.0) and CloudEvents (1.0.2) require."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime

import pytest
from chains import add_events

from cumulant.core.errors import RefusedError
from cumulant.core.events import Actor
from cumulant.flows.governance.ocsf import encode
from cumulant.flows.governance.row_changes import events_with_changes
from cumulant.flows.ledger.actions import check, verb
from cumulant.flows.registry.models import ModelAliased
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

ADA = Principal("user:ada", via="http", source="192.0.2.7", trace="4bf92f35")
CI = Principal("service:ci", via="http", source="runner-3")
#: attributes that the schema requires: of every class, and of the classes that are used
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {0: BASE, 6003: BASE | {"actor", "api", "src_endpoint"}, 3004: BASE | {"entity"}}
NAMES = {0: "base_event", 6003: "api_activity", 3004: "entity_management"}
KNOWN = {
    0: BASE | {"actor"},
    6003: REQUIRED[6003] | {"resources", "count", "status_detail"},
    3004: REQUIRED[3004] | {"actor", "entity_result", "comment"},
}
COMMON = {"message", "status_id", "unmapped"}
METADATA = {
    "correlation_uid", "event_code", "log_name", "product", "sequence", "tenant_uid", "uid", "version",
}  # fmt: skip


@verb("model.alias", of="uri")
def point(project, uri, *, principal):
    with project.journal().transaction(actor=Actor(principal.id, "it is better")) as transaction:
        transaction.put("alias", "champion", {"version": uri})
        transaction.emit(ModelAliased(model="late", alias="champion", version=3))


@verb("subjects.erase", personal=True)
def erase(project, *, principal):
    pass


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as loaded:
        granted = {(ADA.id, name) for name in ("model.alias", "subjects.erase", "labels.show")}
        monkeypatch.setattr(loaded, "access", lambda: GrantedAccess(granted))
        yield loaded


def exported(project, **selected):
    journal = project.journal()
    return [json.loads(line) for line in encode(events_with_changes(journal, journal.events(**selected)))]


def records(project, class_):
    return [line["data"] for line in exported(project) if line["data"]["class_uid"] == class_]


def fill(project):
    add_events(project, 3)
    point(project, "late/3", principal=ADA)
    point(project, "late/4", principal=ADA)
    erase(project, principal=ADA)
    check(project, ADA, "labels.show", personal=True)
    with pytest.raises(RefusedError):
        point(project, "late/4", principal=CI)


def test_every_record_has_what_is_required_and_nothing_unknown(project):
    fill(project)
    lines = exported(project)
    assert {line["data"]["class_uid"] for line in lines} == set(REQUIRED)
    for line in lines:
        data = line["data"]
        class_ = data["class_uid"]
        assert REQUIRED[class_] <= data.keys() <= KNOWN[class_] | COMMON
        assert data["type_uid"] == class_ * 100 + data["activity_id"]
        assert data["category_uid"] == class_ // 1000
        assert data["metadata"].keys() <= METADATA
        assert data["metadata"]["version"] == "1.4.0"
        assert data["metadata"]["product"]["name"] == "Cumulant"
        assert isinstance(data["time"], int)


def test_no_transaction_is_held_while_the_export_is_read(project):
    """Else a slow reader keeps the journal's log growing; what happens meanwhile is no part of the export."""
    fill(project)
    journal, head = project.journal(), project.journal().head().seq
    lines = encode(events_with_changes(journal, journal.events()))
    first = next(lines)
    point(project, "late/5", principal=ADA)
    (database,) = project.state.rglob("journal.db")
    with closing(sqlite3.connect(database)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy
    rest = [json.loads(line) for line in (first, *lines)]
    assert max(line["data"]["metadata"]["sequence"] for line in rest) == head


def test_every_envelope_is_a_cloud_event(project):
    fill(project)
    lines = exported(project)
    assert len({(line["source"], line["id"]) for line in lines}) == len(lines)
    for line in lines:
        assert {"specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "data"} <= line.keys()
        assert (line["specversion"], line["source"]) == ("1.0", "/cumulant/default/late/local")
        assert line["dataschema"].endswith(f"/1.4.0/classes/{NAMES[line['data']['class_uid']]}")
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["type"].startswith("cumulant.")
        assert line.get("subject") != ""


def test_a_decision_says_who_what_and_why(project):
    fill(project)
    allowed, _, erased, read, refused = records(project, 6003)
    assert allowed["actor"] == {
        "user": {"uid": "user:ada", "name": "ada", "type_id": 1},
        "authorizations": [{"decision": "Allowed", "policy": {"uid": "grants"}}],
    }
    assert (allowed["api"]["operation"], allowed["resources"]) == (
        "model.alias",
        [{"name": "late", "namespace": "late"}],
    )
    assert (allowed["src_endpoint"], allowed["metadata"]["correlation_uid"]) == ({"ip": "192.0.2.7"}, "4bf92f35")
    assert (allowed["status_id"], refused["status_id"]) == (1, 2)
    assert refused["src_endpoint"] == {"name": "runner-3"}
    assert refused["actor"]["user"]["type_id"] == 3
    assert refused["actor"]["authorizations"][0]["decision"] == "Denied"
    assert [record["activity_id"] for record in (allowed, erased, read, refused)] == [3, 4, 2, 3]


def test_a_change_has_the_hashes_of_the_row_before_and_after(project):
    fill(project)
    first, second = [record for record in records(project, 3004) if record["entity_result"]["uid"] == "alias/champion"]
    assert "data" not in first["entity"]
    assert second["entity"]["data"] == first["entity_result"]["data"]
    assert second["entity_result"]["data"] != first["entity_result"]["data"]
    assert (first["activity_id"], second["activity_id"], second["comment"]) == (1, 3, "it is better")
    cause = second["unmapped"]["cause"]
    (decision,) = [record for record in records(project, 6003) if record["metadata"]["uid"] == cause]
    assert decision["api"]["operation"] == "model.alias"


def test_a_selection_of_events_has_the_same_records(project):
    fill(project)
    whole = exported(project)
    some = exported(project, kinds=["model.aliased"])
    assert len(some) == 4
    assert some == [line for line in whole if line["type"] == "cumulant.model.aliased"]
    assert exported(project, after=5) == whole[-len(exported(project, after=5)) :]


def test_the_command_writes_both_formats(project, tmp_path, capsys):
    from cumulant.cli.app import run

    add_events(project, 2)
    for format_, count in (("json", 2), ("ocsf", 4)):
        out = tmp_path / format_
        line = ["events", "export", str(out), "--format", format_, "--project", str(tmp_path)]
        assert run(line) == 0, capsys.readouterr().err
        assert len(out.read_text().splitlines()) == count
