"""Every request over HTTP is checked against the policy in force, before its body is read."""

from __future__ import annotations

import asyncio

import pytest
from serving_models import ROW, call, servable

from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.core.network.gateway_token import token_for
from cumulant.core.scope import Scope
from cumulant.core.traffic import TOKEN_HEADER
from cumulant.ports.access import Decision, Principal
from cumulant.serving.access.callers import Callers, CallerToken, read_holders
from cumulant.serving.access.control import KEPT_SECONDS, AccessControl
from cumulant.serving.app import ServingApplication
from cumulant.serving.gateway_headers import Trust
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.http.site import HttpSite
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol import paths
from cumulant.serving.protocol.paths import ROUTES
from cumulant.serving.protocol.probes import OPEN

PREDICT = "/v1/models/flight-late/predict"
#: what is answered whatever the policy says: probes, and the version to whoever has a token
PROBES = {"/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready"}
SCOPE = Scope(tenant="acme", project="flights", environment="prod", region="north")
ADA, SCRAPER = "0123456789abcdef-ada", "0123456789abcdef-scraper"
HOLDERS = (CallerToken(ADA, "user:ada", ("risk",)), CallerToken(SCRAPER, "service:scraper"))


class Policy:
    """Allows the actions alone, and keeps what it was given."""

    def __init__(self, *actions):
        self.actions, self.requests = actions, []

    def check(self, principal, action, resource):
        self.requests.append((principal, action, resource))
        return Decision(allowed=action in self.actions, policies=("p1",), hint="request the role reader")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    model = open_model(servable(tmp_path_factory.mktemp("models") / "model"))
    yield ModelSet([model])
    model.close()


def application(models, policy=None, holders=(), **options):
    access = AccessControl(Callers(holders, tenant=SCOPE.tenant), policy, scope=SCOPE, **options)
    return ServingApplication(models, access=access)


def target_of(route):
    return route.template.replace("{model}", "flight-late").replace("{version}", "1")


def answer(app, method, target, headers=(), body=b""):
    async def run():
        response = app(Request(method, target.encode(), dict(headers), body))
        return response if not hasattr(response, "__await__") else await response

    return asyncio.run(run())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.template)
def test_the_action_of_every_route_is_checked_before_its_body_is_read(models, route):
    policy = Policy()
    headers, body = ({b"content-encoding": b"gzip"}, b"no gzip") if route.method == "POST" else ({}, b"")
    response = answer(application(models, policy), route.method, target_of(route), headers, body)
    assert (route.action is None) == (route.template in PROBES)
    assert response.status == (200 if route.action is None else 403)
    assert [action for _, action, _ in policy.requests] == ([] if route.action is None else [route.action])
    for principal, _, resource in policy.requests:
        assert principal == Principal("anonymous", tenant="acme", via="http")
        of_model = "{model}" in route.template or route.template == "/invocations"
        assert (resource.kind, resource.name) == (("model", "flight-late") if of_model else ("server", "cumulant"))
        assert (resource.tenant, resource.region) == ("acme", "north")
        assert resource.labels == {"project": "flights", "environment": "prod"}


#: without its own line this path would be that of a model with this name, whose action is the same
NAMED = [route for route in ROUTES if route.template != "/v2/models/stats"]


@pytest.mark.parametrize("route", NAMED, ids=lambda route: route.template)
def test_a_path_that_declares_nothing_is_not_answered(models, route, monkeypatch):
    others = [(other.parts, other) for other in ROUTES if other != route]
    monkeypatch.setattr(paths, "_TEMPLATES", others)
    response = answer(application(models), route.method, target_of(route), body=b"{}")
    assert (response.status, b"nothing at" in response.body) == (404, True), response


def test_what_is_open_without_a_token(models):
    app = application(models, Policy("server.show", "model.predict"), HOLDERS)
    statuses = {route.template: answer(app, route.method, target_of(route)).status for route in ROUTES}
    probes = {template for template in PROBES if template.encode().startswith(OPEN)}
    assert {template for template, status in statuses.items() if status == 200} == probes
    assert {status for template, status in statuses.items() if template not in probes} == {401}
    assert "/metrics" not in probes  # models, versions and traffic are no one's but the operator's


def test_a_scraper_with_a_token_reads_metrics_and_no_more(models):
    class Scraping(Policy):
        def check(self, principal, action, resource):
            super().check(principal, action, resource)
            return Decision(allowed=principal.id == "user:ada" or action == "server.show")

    app = application(models, Scraping(), HOLDERS)
    scraper, ada = ({"authorization": f"Bearer {token}"} for token in (SCRAPER, ADA))
    assert call(app, "GET", "/metrics", headers=scraper).status_code == 200
    refused = call(app, "POST", PREDICT, ROW, headers=scraper)
    assert (refused.status_code, "service:scraper may not do model.predict to flight-late" in refused.text) == (
        403,
        True,
    )
    assert call(app, "POST", PREDICT, ROW, headers=ada).status_code == 200
    for wrong in (ADA[:-1], f"{ADA}x", "x"):
        assert call(app, "POST", PREDICT, ROW, headers={"authorization": f"Bearer {wrong}"}).status_code == 401


def test_a_path_without_a_token_holder_is_not_answered_by_its_known_target(models):
    policy = Policy("model.predict")
    app = application(models, policy)
    assert call(app, "POST", PREDICT, ROW).status_code == 200
    policy.actions = ()
    assert call(app, "POST", PREDICT, ROW).status_code == 200, "a decision is kept for a while"
    app = application(models, policy)
    assert call(app, "POST", PREDICT, ROW).status_code == 403


def test_a_decision_is_kept_for_seconds_and_of_a_bounded_number_of_names():
    policy, now = Policy("model.predict"), [0.0]
    access = AccessControl(access=policy, clock=lambda: now[0])
    who = access.callers.anonymous
    for _ in range(3):
        access.check(who, "model.predict", "a")
    assert len(policy.requests) == 1
    policy.actions, now[0] = (), KEPT_SECONDS - 0.1
    assert access.allows(who, "model.predict", "a")
    now[0] = KEPT_SECONDS
    assert not access.allows(who, "model.predict", "a")
    for number in range(5000):
        access.allows(who, "model.predict", f"made up {number}")
    assert len(access._decisions) <= 1024


def test_the_oldest_decision_makes_room():
    policy, now = Policy("model.predict"), [0.0]
    access = AccessControl(access=policy, clock=lambda: now[0])
    who = access.callers.anonymous
    access.allows(who, "model.predict", "a")
    now[0] = KEPT_SECONDS - 1
    for number in range(1022):
        access.allows(who, "model.predict", f"{number}")
    now[0] = KEPT_SECONDS
    access.allows(who, "model.predict", "a")  # decided again
    for number in range(2000, 2100):
        access.allows(who, "model.predict", f"{number}")
    asked = len(policy.requests)
    access.allows(who, "model.predict", "a")
    assert len(policy.requests) == asked
    access.allows(who, "model.predict", "0")
    assert len(policy.requests) == asked + 1


def test_names_that_callers_make_up_are_neither_kept_nor_recorded(models):
    refused = []
    policy = Policy()
    app = application(models, policy, refused=refused.append)
    long = "x" * 5000
    for name in ("made-up", long, "flight-late"):
        assert call(app, "POST", f"/v1/models/{name}/predict", ROW).status_code == 403
    assert [one.resource for one in refused] == ["(unknown)", "(unknown)", "flight-late"]
    assert [resource.name for _, _, resource in policy.requests] == ["made-up", long, "flight-late"]
    assert [model for *_, model in app.access._decisions] == ["flight-late"]
    assert len(call(app, "POST", f"/v1/models/{long}/predict", ROW).text) < 1000


def test_without_a_driver_no_decision_is_kept(models):
    app = application(models)
    assert call(app, "POST", PREDICT, ROW).status_code == 200
    assert app.access._decisions == {}


def test_what_nobody_known_asks_for_is_recorded_of_the_server(models):
    refused = []
    app = application(models, holders=HOLDERS, refused=refused.append)
    for number in range(5):
        assert call(app, "POST", f"/v1/models/{number}/predict", ROW).status_code == 401
    assert call(app, "POST", PREDICT, ROW).status_code == 401
    open_app = application(models, refused=refused.append)
    assert answer(open_app, "GET", "/v1/models/flight-late", {b"origin": b"http://elsewhere"}).status == 403
    assert {(one.resource, one.reason) for one in refused} == {("cumulant", "token"), ("cumulant", "origin")}


@pytest.mark.slow
def test_requests_that_are_refused_or_many_take_no_known_path_away(models):
    app = application(models, holders=HOLDERS)
    known = app.requests._known
    for number in range(300):
        assert call(app, "GET", f"/v2/models/flight-late/versions/{number}").status_code == 401
        assert not app.requests.admitted(f"/v2/models/flight-late/versions/{number}".encode(), {})
    assert known == {}
    ada = {"authorization": f"Bearer {ADA}"}
    for number in range(2, 302):
        assert call(app, "GET", f"/v2/models/flight-late/versions/{number}", headers=ada).status_code == 404
    assert call(app, "POST", PREDICT, ROW, headers=ada).status_code == 200
    assert (PREDICT.encode() in known, len(known)) == (True, 256)
    assert call(app, "POST", "/invocations", {"dataframe_records": [ROW]}, headers=ada).status_code != 401
    assert b"/invocations" not in known, "its model is the only one, which may change"


def test_principals_with_equal_names_and_other_groups_have_decisions_of_their_own():
    class Groups(Policy):
        def check(self, principal, action, resource):
            return Decision(allowed="risk" in principal.groups)

    access = AccessControl(access=Groups())
    assert access.allows(Principal("user:ada", ("risk",)), "model.predict", "a")
    assert not access.allows(Principal("user:ada"), "model.predict", "a")


def test_a_driver_that_does_not_decide_lets_nothing_through(models):
    class Away(Policy):
        def check(self, *_):
            raise EngineUnavailableError("the policies cannot be read")

    class Faulty(Policy):
        def check(self, *_):
            raise ValueError("no")

    for policy, status in ((Away(), 503), (Faulty(), 500)):
        app = application(models, policy)
        assert call(app, "POST", PREDICT, ROW).status_code == status
        assert not app.requests.admitted(PREDICT.encode(), {})
        assert call(app, "GET", "/v2/health/live").status_code == 200


def test_a_refused_request_is_refused_by_its_head(models):
    app = application(models, Policy())

    async def act():
        site = HttpSite(app, HttpLimits(), app.requests.admitted)
        listening = await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0)
        async with listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert head.startswith(b"HTTP/1.1 403")
            writer.write(b"x" * 500)
            await asyncio.sleep(0.05)
            assert site.body_bytes == 0, "its body is kept"
            writer.close()

    asyncio.run(act())


class FailingOnce(Policy):
    """Does not decide the first time, and then allows all."""

    def check(self, principal, action, resource):
        super().check(principal, action, resource)
        if len(self.requests) == 1:
            raise EngineUnavailableError("the policies cannot be read")
        return Decision(allowed=True)


class Inbox:
    def __init__(self):
        self.bodies = []

    def post(self, request):
        self.bodies.append(request.body)
        return asyncio.sleep(0, Response(200, b"{}"))


#: takes as long as the request behind it needs to come
SLOW = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("before", [b"", SLOW], ids=["first", "behind another"])
def test_a_request_whose_body_is_thrown_away_is_not_carried_out(models, before):
    app = application(models, FailingOnce())
    app.inbox = Inbox()

    def handle(request):
        return asyncio.sleep(0.3, Response(200, b"")) if request.target == b"/slow" else app(request)

    async def act():
        site = HttpSite(handle, HttpLimits(), app.requests.admitted)
        listening = await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0)
        async with listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(before + b"POST /v1/labels HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
            await asyncio.sleep(0.1)
            writer.write(b'{"rows":[]}')
            for _ in range(bool(before)):
                assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 200")
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 503")
            writer.close()

    asyncio.run(act())
    assert app.inbox.bodies == []


def test_the_gateway_is_a_principal_where_callers_need_no_token(models):
    key, url = b"k" * 32, "http://127.0.0.1:1"
    policy = Policy("model.predict")
    app, trust = application(models, policy), Trust(key, [url])
    for token in (token_for(key, url), "forged"):
        headers = {TOKEN_HEADER.encode(): token.encode()}
        assert trust.admit(app.requests.admitted)(PREDICT.encode(), headers)
        answer(trust.wrap(app), "POST", PREDICT, headers, b"{}")
    assert [principal.id for principal, _, _ in policy.requests] == ["service:gateway", "anonymous"]
    guarded = application(models, policy, HOLDERS)
    assert (
        answer(trust.wrap(guarded), "POST", PREDICT, {TOKEN_HEADER.encode(): token_for(key, url).encode()}).status
        == 401
    )


def test_a_file_of_tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# callers\n{ADA} ada risk,eu\n\n{SCRAPER} service:scraper\n0123456789abcdef\n")
    path.chmod(0o600)
    assert read_holders(path, {}) == (
        CallerToken(ADA, "user:ada", ("risk", "eu")),
        CallerToken(SCRAPER, "service:scraper"),
        CallerToken("0123456789abcdef"),
    )
    assert read_holders(None, {"CUMULANT_TOKEN": ADA}) == (CallerToken(ADA),)
    assert read_holders(None, {}) == ()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no token"),
        (f"{ADA} ada\n{ADA} bo", "a token twice"),
        (f"{ADA} ada risk eu", "line 1: more than TOKEN NAME"),
        ("short ada", "line 1 has 5 characters"),
    ],
)
def test_a_file_of_tokens_that_is_refused(tmp_path, text, match):
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=match):
        read_holders(path, {})
