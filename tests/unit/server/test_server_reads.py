"""Reads of the API: pages, filters, entity tags, and problems in place of results."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import UsageError
from cumulant.core.events import Actor, Fact
from cumulant.server.operation import PageQuery
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.pages import decode_cursor, encode_cursor, paginate


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
        assert ("requestBody" in described) == ("body" in operation.types)
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
