"""Every route of every server declares what its callers do there, and checks it: the controller's here, prediction
servers in `test_serving_access` and `test_grpc_access`, the API in `test_server_writes`.
"""

import httpx
import pytest

from cumulant.core.events import Actor, Fact
from cumulant.flows.ledger.actions import ACTIONS, OWN_MODEL, check
from cumulant.flows.release import __main__ as controller
from cumulant.flows.release.controller import metrics_server
from cumulant.ports.access import Decision
from cumulant.project.file.loading import load
from cumulant.serving.grpc.actions import METHOD_ACTIONS
from cumulant.serving.protocol.paths import ROUTES

#: routes of probes: there is nothing to allow
OPEN = {"/ping", "/health", "/version", "/healthz", "/v2/health/live", "/v2/health/ready"}
FILE = """\
version: 1
model: {name: flight-late}
environments: {local: {tenant: acme, region: north}}
"""


class Recorded:
    """Refuses everything, and keeps what it was given."""

    def __init__(self):
        self.requests = []

    def check(self, principal, action, resource):
        self.requests.append((principal, action, resource))
        return Decision(allowed=False)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(FILE)
    with load(tmp_path, via="cli", variables={"CUMULANT_USER": "ada", "CUMULANT_GROUPS": "team:risk"}) as loaded:
        yield loaded


@pytest.fixture
def access(project, monkeypatch):
    recorded = Recorded()
    monkeypatch.setattr(project, "access", lambda: recorded)
    return recorded


def test_every_route_of_a_server_declares_an_action():
    assert {route.template for route in ROUTES if route.action is None} <= OPEN
    assert {route.action for route in ROUTES} - {None} <= ACTIONS.keys()
    for route in ROUTES:  # what changes something is not a mere look
        looks = route.action in (None, "server.show") or not ACTIONS[route.action].writes
        assert looks or route.method == "POST", route.template


def test_every_grpc_method_declares_an_action():
    assert set(METHOD_ACTIONS.values()) - {None} <= ACTIONS.keys()


@pytest.mark.parametrize("path", metrics_server.ROUTES)
def test_the_controller_asks_for_the_action_of_a_route(project, access, tmp_path, path):
    action = metrics_server.ROUTES[path]
    assert action or path in OPEN
    with metrics_server.serve_metrics(tmp_path / "stack", lambda: "", allow=controller._anonymous(project)) as url:
        assert httpx.get(url + path).status_code == (403 if action else 200)
    assert [action for _, action, _ in access.requests] == ([action] if action else [])
    assert all(principal.via == "http" and principal.tenant == "acme" for principal, _, _ in access.requests)
    assert all((resource.kind, resource.name) == ("model", "flight-late") for _, _, resource in access.requests)


def test_who_acts_on_a_command_line(project):
    ada = project.principal()
    assert (ada.id, ada.groups, ada.tenant, ada.via) == ("user:ada", ("team:risk",), "acme", "cli")
    assert ada.claims["os_user"]


@pytest.mark.parametrize(
    "uri", ["shop", "shop/3", "shop@champion", "models:/shop/3", "models:/shop@champion", "models:///shop/3"]
)
def test_the_resource_is_the_model_whatever_of_it_is_named(project, access, uri):
    with pytest.raises(Exception, match=r"may not do model\.alias to shop$"):
        check(project, project.principal(), "model.alias", model=uri)
    ((_, _, resource),) = access.requests
    assert (resource.kind, resource.name, resource.tenant, resource.region) == ("model", "shop", "acme", "north")


def test_an_empty_uri_is_of_the_projects_own_model(project, access):
    with pytest.raises(Exception, match=r"may not do release\.show to flight-late$"):
        check(project, project.principal(), "release.show", model=OWN_MODEL)
    assert access.requests[0][2].kind == "model"


class Happened(Fact, frozen=True, kw_only=True):
    kind = "test.happened"


def test_events_have_the_tenant_and_the_region(project):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(Happened())
    assert [(event.tenant, event.region) for event in project.journal().events()] == [("acme", "north")]
