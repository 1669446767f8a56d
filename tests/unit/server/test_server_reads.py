"""Reads of the API: pages, filters, entity tags, and problems in place of results."""

import itertools
import re
import shutil
import subprocess
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from starlette.routing import Match, Route

from cumulant.core.errors import UsageError
from cumulant.core.events import Actor, Fact
from cumulant.flows.ledger.ledger_records import RUN, RunRecord
from cumulant.flows.ledger.processes import this_process
from cumulant.server.operation import PageQuery
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.pages import decode_cursor, encode_cursor, paginate
from cumulant.server.project_routes import PREFIX, ProjectRoutes
from cumulant.testing.access import GrantedAccess
from cumulant.training.events import TrialFinished


class Noted(Fact, frozen=True, kw_only=True):
    kind = "test.noted"
    number: int


class Counted(Fact, frozen=True, kw_only=True):
    kind = "test.counted"
    number: int


def emit(project, count, fact=Noted, actor="user:eve"):
    with project.journal().transaction(actor=Actor(actor)) as transaction:
        for number in range(count):
            transaction.emit(fact(number=number))


def pages(api, path, **query):
    items, cursor = [], ""
    while cursor is not None:
        page = api.get(path, params=query | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= query.get("limit", 50)
        items += page["items"]
        cursor = page["next"]
    return items


def test_pages_have_every_event_once_newest_first(project, api):
    emit(project, 23)
    numbers = [event["seq"] for event in pages(api, "/events", limit=7)]
    assert numbers == list(range(project.journal().head().seq, 0, -1))


def test_events_are_filtered_in_the_query(project, api):
    emit(project, 5)
    emit(project, 4, Counted, "user:bob")
    emit(project, 700)
    assert [event["data"]["number"] for event in pages(api, "/events", kind="test.counted", limit=3)] == [3, 2, 1, 0]
    assert len(pages(api, "/events", actor="user:bob", limit=50)) == 4
    assert len(pages(api, "/events", kind="test.noted", limit=1000)) == 705
    for kind, count in (("test.*", 709), ("test.c*", 4), ("test.", 709), ("test", 0)):
        listed = pages(api, "/events", kind=kind, limit=1000)
        exported = api.get("/events/export", params={"kind": kind}).text.splitlines()
        assert [len(listed), len(exported)] == [count, count], f"a filter has one meaning: {kind}"


def test_the_trials_of_a_run_are_those_that_have_finished(project, api):
    record = RunRecord(
        id="run1",
        flow="train",
        status="running",
        principal="user:ada",
        settings={},
        process=this_process(),
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with project.journal().transaction(actor=Actor("user:ada"), run="run1") as transaction:
        transaction.put(RUN, "run1", msgspec.to_builtins(record))
    assert api.get("/runs/run1/trials").json()["trials"] == []
    with project.journal().transaction(actor=Actor("user:ada"), run="run1") as transaction:
        transaction.emit(
            TrialFinished(
                number=1, trainer="linear", state="complete", score=0.5, seconds=1, scores=(0.4, 0.6), params={"c": 2}
            )
        )
    answer = api.get("/runs/run1/trials").json()
    assert (answer["done"], answer["best"]) == (False, None)
    assert answer["trials"][0]["scores"] == [0.4, 0.6]


def test_an_unchanged_result_is_not_sent_again(project, api):
    emit(project, 1)
    first = api.get("/events")
    same = api.get("/events", headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    emit(project, 1)
    assert api.get("/events", headers={"if-none-match": first.headers["etag"]}).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "not-found"),
        ("/../../elsewhere", 404, "not-found"),
        ("/runs/x", 404, "not-found"),
        ("/runs/x/trials", 404, "not-found"),
        ("/models/none/1", 404, "not-found"),
        ("/data/none", 404, "not-found"),
        ("/data/payments", 404, "not-found"),
        ("/releases/latest", 404, "not-found"),
        ("/jobs/x", 404, "not-found"),
        ("/runs?limit=0", 400, "usage"),
        ("/runs?limit=x", 400, "request"),
        ("/runs?limit=99999999999999999999999", 400, "usage"),
        ("/runs?limit=1&limit=2", 400, "request"),
        ("/runs?unknown=1", 400, "request"),
        ("/events?cursor=!!", 400, "usage"),
        ("/events?cursor=WyJhIl0", 400, "usage"),
        ("/plan?x=1", 400, "request"),
    ],
)
def test_a_problem_says_what_is_wrong(api, path, status, code):
    response = api.get(path)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["detail"]


def test_an_unknown_project_and_a_wrong_method_are_problems(api):
    assert api.get(str(api.base_url).replace("churn", "other") + "runs").json()["code"] == "not-found"
    response = api.delete("/runs")
    assert (response.status_code, response.json()["code"]) == (405, "method")


def test_an_error_that_is_none_of_ours_shows_nothing_of_itself(project, api, monkeypatch, capfd):
    monkeypatch.setattr(type(project.policies), "sources", property(lambda self: 1 / 0))
    response = api.get("/data")
    assert (response.status_code, response.json()["code"]) == (500, "unexpected")
    assert "division" not in response.text
    number = response.json()["hint"].rpartition(" ")[2]
    logged = capfd.readouterr().err
    assert number in logged
    assert "ZeroDivisionError" in logged


def test_the_document_has_every_operation_and_all_types(api):
    document = api.get(str(api.base_url).partition("/v1/")[0] + "/v1/openapi.json").json()
    for operation in OPERATIONS:
        described = document["paths"]["/v1/projects/{project}" + operation.path][operation.method.lower()]
        assert described["operationId"] == operation.name
        assert described["summary"].endswith((".", "`"))
        assert described["x-action"] == operation.action
        assert "return" in operation.types
        assert ("requestBody" in described) == ("body" in operation.types or operation.uploads)
    references = set(_references(document))
    assert references <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def _references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_operations_have_names_of_their_own():
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


def test_a_path_stands_before_one_that_takes_any_word_in_its_place():
    """Of several that match, the first is found; so `Allow` names the methods of the path that was meant."""
    for place, operation in enumerate(OPERATIONS):
        pattern = re.compile(re.sub(r"{\w+}", "[^/]+", operation.path))
        hidden = [later.path for later in OPERATIONS[place + 1 :] if pattern.fullmatch(later.path)]
        assert {path for path in hidden if path != operation.path} == set(), operation.path


@given(st.lists(st.integers(-50, 50), unique=True), st.integers(1, 7), st.booleans())
def test_pages_of_any_list_have_each_item_once(items, limit, newest):
    read, cursor = [], ""
    while True:
        page = paginate(items, PageQuery(limit=limit, cursor=cursor), lambda item: (item,), newest=newest)
        read += page.items
        if page.next is None:
            break
        cursor = page.next
    assert read == sorted(items, reverse=newest)


@given(st.lists(st.one_of(st.integers(-(2**53), 2**53), st.text()), min_size=1))
def test_a_cursor_is_its_key(key):
    assert decode_cursor(encode_cursor(tuple(key))) == tuple(key)


@given(st.text(min_size=1))
def test_other_texts_are_no_cursors_or_keys(text):
    try:
        key = decode_cursor(text)
    except UsageError:
        return
    assert all(isinstance(part, str | int) for part in key)
    assert msgspec.json.encode(key)


FAMILIES_OF = {
    "text/plain": parser.text_string_to_metric_families,
    "application/openmetrics-text": openmetrics_parser.text_string_to_metric_families,
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_metrics_of_the_api_follow_the_rules_of_prometheus(project, api, accept, monkeypatch):
    for path in ("/releases", "/releases", "/releases/none-such", "/nothing/at/all"):
        api.get(path)
    api.request("BREW", "/releases")
    root = str(api.base_url).partition("/v1/")[0]
    api.get(f"{root}/v1/projects/none-such/releases/1")
    response = api.get(f"{root}/v1/metrics", headers={"accept": accept})
    requests = {
        tuple(sample.labels.values()): sample.value
        for family in FAMILIES_OF[accept](response.text)
        for sample in family.samples
        if sample.name == "cumulant_api_requests_total"
    }
    below = "/v1/projects/{project}/releases"
    assert requests == {
        ("churn", "GET", below, "200"): 2,
        ("churn", "GET", f"{below}/{{release}}", "404"): 1,
        ("churn", "GET", "other", "404"): 1,
        ("churn", "other", below, "405"): 1,
        ("", "GET", f"{below}/{{release}}", "404"): 1,
    }
    assert "none-such" not in response.text
    assert response.headers["content-type"].startswith(accept)
    assert 'cumulant_events_total{project="churn"' in response.text
    families = {family.name for family in FAMILIES_OF[accept](response.text)}
    assert {"cumulant_steps", "cumulant_alerts_firing", "cumulant_api_request_seconds"} <= families
    if accept == "text/plain":  # promtool reads no other format
        command = ["promtool", "check", "metrics"]
        subprocess.run(command, input=response.text, text=True, check=True, timeout=60)
    monkeypatch.setattr(project, "access", lambda: GrantedAccess({("user:ada", "project.overview")}))
    assert "cumulant_" not in api.get(f"{root}/v1/metrics").text, "not without stack.show"


def test_an_operation_is_looked_up_as_a_search_through_all_of_them_finds_it():
    routes = [Route(PREFIX + path, repr, methods=["GET"]) for path in dict.fromkeys(each.path for each in OPERATIONS)]
    looked_up = ProjectRoutes(routes)
    paths = [route.path.replace("{project}", "shop").replace("{", "").replace("}", "") for route in routes]
    others = ["/v1/projects", "/v1/projects/shop", "/v1/projects/shop/", "/projects/shop/runs", "/v1/projects//runs"]
    for path, method in itertools.product([*paths, *(f"{path}/" for path in paths), *others], ["GET", "HEAD", "PUT"]):
        scope = {"type": "http", "path": path, "method": method, "path_params": {}}
        tried = [(*route.matches(scope), route) for route in routes]
        fits = sorted((each for each in tried if each[0] is not Match.NONE), key=lambda each: each[0] is not Match.FULL)
        match, child = looked_up.matches(scope)
        assert (match is not Match.NONE) == bool(fits) == (path in paths), path
        if fits:
            assert (match, child, child["cumulant.match"]) == (fits[0][0], {**fits[0][1], **child}, fits[0][2])
