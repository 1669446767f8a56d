"""Reads of a filled project: pages over the prediction log and labels, quarantine, monitoring, tokens and sessions."""

import httpx
import pytest
from api_server import serving
from filled_project import SECRET, opened_project
from test_server_reads import pages

from cumulant.flows.identities.records import TOKENS
from cumulant.flows.ledger.ledger_records import API_REQUEST
from cumulant.project.redaction import redacted_value, redaction_of
from cumulant.server.operation_list import OPERATIONS
from cumulant.server.pages import encode_cursor


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with opened_project(tmp_path_factory.mktemp("filled")) as project:
        yield project


@pytest.fixture(scope="module")
def http(shop):
    with (
        serving({"shop": shop}) as url,
        httpx.Client(base_url=f"{url}/v1/projects/shop", timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("limit", [1, 2, 4, 7, 24, 25, 1000])
def test_pages_of_predictions_have_each_once_in_order(http, limit):
    rows = pages(http, "/predictions", limit=limit)
    assert sorted(row["id"] for row in rows) == sorted(f"r{number}" for number in range(25))
    whole = http.get("/predictions", params={"limit": 1000}).json()["items"]
    assert [row["id"] for row in rows] == [row["id"] for row in whole]
    assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)


def test_pages_of_predictions_are_of_one_model_and_since_a_moment(http):
    assert pages(http, "/predictions", limit=3, model="other") == []
    newest = http.get("/predictions", params={"limit": 1}).json()["items"][0]["time"]
    assert {row["time"] for row in pages(http, "/predictions", limit=1, since=newest)} == {newest}


@pytest.mark.parametrize("limit", [1, 3, 10, 50])
@pytest.mark.parametrize("state", ["usable", ""])
def test_pages_of_labels_have_each_once(http, limit, state):
    query = {"state": state} if state else {}
    rows = pages(http, "/labels", limit=limit, **query)
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(10)]
    assert http.get("/labels", params={"limit": limit, **query}).json()["total"] == 10


@pytest.mark.parametrize("path", ["/predictions", "/labels", "/data/visits/quarantine/cells", "/runs"])
@pytest.mark.parametrize("cursor", ["x", "WzFd", "WyJhIiwxXQ", "Wy0xLC0xXQ", "W10"])
def test_a_cursor_of_another_list_is_refused(http, path, cursor):
    answered = http.get(path, params={"cursor": cursor})
    if not (path.endswith("cells") and cursor == "WzFd"):  # [1] is a place in a quarantine
        assert (answered.status_code, answered.json()["code"]) == (400, "usage"), answered.text


def test_quarantine_is_counted_by_rule_and_day(http):
    first = http.get("/data/visits/quarantine/cells", params={"limit": 2}).json()
    view = first["view"]
    assert view["total"] == sum(cell["rows"] for cell in view["cells"]) == 18
    assert {cell["day"] for cell in view["cells"]} == set(view["days"])
    assert all(row["bad"] == ["pages"] for row in view["rows"])
    rows, cursor = view["rows"], first["next"]
    while cursor:
        page = http.get("/data/visits/quarantine/cells", params={"limit": 2, "cursor": cursor}).json()
        rows, cursor = rows + page["view"]["rows"], page["next"]
    assert len(rows) == len({row["row"] for row in rows}) == 18
    cell = view["cells"][0]
    chosen = {"rule": cell["rule"], "day": cell["day"]}
    assert http.get("/data/visits/quarantine/cells", params=chosen).json()["view"]["matching"] == cell["rows"]
    assert SECRET not in http.get("/data/visits/quarantine/cells", params={"limit": 50}).text


def test_a_source_has_its_history(http):
    detail = http.get("/data/visits/history").json()
    assert (len(detail["history"]), detail["history"][0]["rows_quarantined"]) == (1, 18)
    assert http.get("/data/none/history").status_code == 404


def test_what_was_not_monitored_is_null(http):
    for path in ("/monitor/quality", "/monitor/drift"):
        answered = http.get(path)
        assert (answered.status_code, answered.json()) == (200, None), answered.text
    assert http.get("/monitor/retraining").json() == {"request": None, "steps": [], "versions": []}
    assert http.get("/monitor/quality", params={"version": "9"}).json() is None


def test_an_answer_is_withdrawn(http):
    case = http.post("/review/next", json={}).json()
    skipped = http.post(f"/review/cases/{case['id']}/skip", json={})
    assert skipped.status_code == 200
    undone = http.post(f"/review/cases/{case['id']}/undo", json={})
    assert undone.status_code == 200, undone.text
    assert http.post(f"/review/cases/{case['id']}/undo", json={}).status_code == 409


def test_a_tokens_secret_is_sent_once_and_stored_nowhere(shop, http):
    body, headers = {"name": "nightly", "scope": ["runs.show"]}, {"idempotency-key": "token-1"}
    created = http.post("/tokens", json=body, headers=headers).json()
    again = http.post("/tokens", json=body, headers=headers)
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")
    assert again.json()["code"] == "conflict"
    stored = [row.value for kind in (API_REQUEST, TOKENS) for row in shop.journal().rows(kind)]
    assert stored
    assert created["secret"] not in str(stored)
    assert [token["id"] for token in http.get("/tokens").json()] == [created["token"]["id"]]
    for scope in (["model.train", "nothing.*"], ["x"]):
        assert http.post("/tokens", json={"name": "y", "scope": scope}).status_code == 400
    revoked = http.post(f"/tokens/{created['token']['id']}/revoke", json={"reason": "was in a log"})
    assert revoked.status_code == 200
    assert http.get("/tokens").json() == []
    assert http.post(f"/tokens/{created['token']['id']}/revoke", json={}).status_code == 404


def test_sessions_are_listed_and_revoked(http):
    assert http.get("/sessions").json() == []
    assert http.post("/sessions/revoke", json={"of": "user:ada"}).json() == []
    assert http.post("/sessions/revoke", json={}).status_code == 400
    assert http.post("/sessions/revoke", json={"session": "3fa2"}).status_code == 404


def test_reads_of_settings_access_and_reports(shop, http):
    settings = {row["path"]: row for row in http.get("/settings").json()}
    assert settings["training.target"]["value"] == "bought"
    assert settings["environment.journal"]["value"] == "sqlite://.cumulant/journal.db", "not where its machine has it"
    listed = redacted_value(redaction_of(shop), [{"a": (f"{shop.root}/x", 1)}])
    assert listed == [{"a": ["x", 1]}], "lists too"
    decision = http.get("/access/check", params={"subject": "ada", "action": "runs.show"}).json()
    assert (decision["principal"], decision["allowed"]) == ("user:ada", True)
    assert len(http.get("/access/explanation", params={"subject": "ada", "group": ["a", "b"]}).json()) > 50
    assert http.get("/access/policies").status_code == 400  # the driver has none
    assert http.get("/runs/latest/report").status_code == 200
    undeclared = http.get("/objectives/rules").json()
    assert (undeclared["code"], undeclared["subject"]) == ("usage", "cumulant.yaml")
    reads = [each.path for each in OPERATIONS if not each.writes and not each.parameters]
    texts = {place: http.get(place).text for place in (*reads, "/runs/latest", "/runs/latest/report")}
    assert [place for place, text in texts.items() if str(shop.root) in text] == []
    assert http.get("/releases/waiting").json() == {"candidate": None}
    assert http.get("/stack/detail").json()["status"] is None


@pytest.mark.parametrize("place", [[2**62, "w", 1, 1], [-(2**62), "w", 1, 1], [1, "w", 2**63, 1], [1, "w", 1, -1]])
def test_a_place_beyond_all_predictions_is_no_cursor(http, place):
    answered = http.get("/predictions", params={"cursor": encode_cursor(tuple(place))})
    assert (answered.status_code, answered.json()["code"]) == (400, "usage")


def test_times_beyond_the_calendar_are_faults_of_the_caller(http):
    since = http.get("/predictions", params={"since": "0001-01-01T00:00:00+14:00"})
    token = http.post("/tokens", json={"name": "x", "expires": f"{'9' * 400}d"})
    for answered in (since, token):
        assert (answered.status_code, answered.json()["code"]) == (400, "usage")
