"""Reads of releases over the API, and the verdict that automation polls."""

import msgspec
import pytest
from api_server import serving
from releases import MOMENT, release

import cumulant
from cumulant.core.events import Actor
from cumulant.flows.release import store
from cumulant.release.decide import end_release, start
from cumulant.release.state import Board
from cumulant.testing.access import GrantedAccess


def put(project, now, before=None):
    current = store.read(project.journal(), now.model)
    with project.journal().transaction(actor=Actor("service:controller")) as transaction:
        store.write(transaction, before, now, expect=current[1] if current else 0)
    return now


def test_the_verdict_is_promoted_once_the_release_is(project, api):
    assert api.get("/releases/latest/verdict").status_code == 404
    begun = put(project, start(release(model="churn")))
    verdict = api.get("/releases/r1/verdict")
    assert verdict.status_code == 200
    found = verdict.json()
    assert (found["status"], found["value"], found["over"]) == ("running", 0, False)
    unchanged = api.get("/releases/r1/verdict", headers={"if-none-match": verdict.headers["etag"]})
    assert unchanged.status_code == 304
    put(project, end_release(begun, "promoted", "fine", at=MOMENT), begun)
    found = api.get("/releases/latest/verdict").json()
    assert (found["release"], found["status"], found["value"], found["over"]) == ("r1", "promoted", 1, True)
    assert [each["id"] for each in api.get("/releases").json()["items"]] == ["r1"]
    assert api.get("/releases/r1").json()["status"] == "promoted"


def test_the_looks_of_a_release_are_those_that_were_recorded(project, api):
    now = put(project, start(release(model="churn")))
    assert api.get("/releases/r1/looks").json()["metrics"] == {}
    board = Board(metric="errors", unit="%", margin=0.005, harm_bar=4.0, fine_bar=3.0, samples={"candidate": 9})
    counted = msgspec.structs.replace(now, boards={"errors": board})
    with project.journal().transaction(actor=Actor("service:controller")) as transaction:
        store.write_look(transaction, counted, at=MOMENT)
    errors = api.get("/releases/latest/looks").json()["metrics"]["errors"]
    assert (errors["margin"], errors["looks"][0]["candidate_samples"]) == (0.005, 9)
    assert api.get("/releases/r9/looks").status_code == 404


def test_the_objectives_that_hold_a_release_are_overridden_with_a_reason(project, api):
    put(project, start(release(model="churn", slo_hold="the error budget of availability is spent")))
    release_ = api.get("/releases/latest").json()
    assert (release_["slo_hold"], release_["slo_override"]) == ("the error budget of availability is spent", "")
    assert release_["lacks"][0] == release_["slo_hold"]
    assert api.post("/releases/current/override-slo", json={"reason": " "}).status_code == 400
    answer = api.post("/releases/current/override-slo", json={"reason": "it is the fix"})
    assert (answer.status_code, answer.json()["lacks"][0] == release_["slo_hold"]) == (200, False)
    assert answer.json()["slo_override"].endswith(": it is the fix")
    assert api.post("/releases/current/override-slo", json={"reason": "again"}).status_code == 400


def test_releases_of_external_servers_are_read_by_their_model(project, api):
    put(project, start(release(model="fraud", id="r7")))
    assert api.get("/releases").json()["items"] == []
    assert api.get("/releases/latest/verdict").status_code == 404
    fraud = {"model": "fraud"}
    assert [each["id"] for each in api.get("/releases", params=fraud).json()["items"]] == ["r7"]
    assert api.get("/releases/r7", params=fraud).json()["model"] == "fraud"
    assert api.get("/releases/latest/verdict", params=fraud).json()["release"] == "r7"


@pytest.mark.parametrize(
    "path", ["/releases/r9", "/releases/r9/verdict", "/releases/r1/other", "/releases/r1/verdict/x"]
)
def test_another_path_is_not_found(project, api, path):
    put(project, start(release(model="churn")))
    response = api.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("name", ["a\x00b", "a/b", "a" * 201])
def test_another_text_is_no_name_of_a_model(api, name):
    for path in ("/releases", "/releases/latest", "/releases/latest/verdict"):
        assert api.get(path, params={"model": name}).status_code == 400


def test_access_is_decided_for_the_model_that_is_asked_for(project, api, monkeypatch):
    put(project, start(release(model="fraud")))
    access = GrantedAccess({("user:ada", "release.show")})
    monkeypatch.setattr(type(project), "access", lambda self: access)
    assert api.get("/releases/latest", params={"model": "fraud"}).status_code == 200
    assert {resource for _, _, resource in access.requests} == {"fraud"}
    assert api.get("/releases/latest", headers={"x-user": "eve"}).status_code == 404


def test_the_client_reads_them_with_their_types(project):
    put(project, start(release(model="churn")))
    with serving({project.name: project}) as url, cumulant.connect(url) as remote:
        assert remote.releases.current().id == "r1"
        assert remote.http.call("releases.verdict", release="r1").value == 0
