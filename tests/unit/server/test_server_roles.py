"""Roles at the API: each route of each project is open to those alone whose role has its action, and lists show no more."""

import httpx
import pytest
from api_server import serving
from msgspec import inspect

from cumulant.core.roles import ROLES, ROLES_OF
from cumulant.flows.ledger.actions import permits
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.server.operation_list import OPERATIONS

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')

FILE = """version: 1
model: {{name: {name}}}
data:
  payments: {{path: payments.csv, key: id}}
access:
  bindings:
{bindings}
environments:
  local: {{access: "cedar://", tenant: {tenant}}}
"""
#: the roles that each project has; in it the group of a role is named like the role
PROJECTS = {"churn": tuple(ROLES), "fraud": ("viewer", "approver", "admin"), "late": ()}
#: has all roles, for principals of its own tenant
ELSEWHERE = "foreign"


class CallerOfGroups:
    """Middleware: a header names the principal's groups."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            groups = dict(scope["headers"]).get(b"x-groups", b"").decode().split()
            scope.setdefault("state", {})["principal"] = Principal("user:ada", tuple(groups), via="http")
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    loaded = {}
    for name, roles in {**PROJECTS, ELSEWHERE: tuple(ROLES)}.items():
        folder = tmp_path_factory.mktemp(name)
        lines = "\n".join(f"    - {{role: {role}, groups: [{role}]}}" for role in roles)
        bindings = lines or "    - {role: viewer, users: [user:nobody]}"
        (folder / "cumulant.yaml").write_text(
            FILE.format(name=name, bindings=bindings, tenant="acme" if name == ELSEWHERE else "default")
        )
        (folder / "payments.csv").write_text("id\n1\n")
        loaded[name] = load(folder, via="http")
    yield loaded
    for project in loaded.values():
        project.close()


@pytest.fixture(scope="module")
def url(projects):
    with serving(projects, authenticate=CallerOfGroups) as address:
        yield address


@pytest.mark.parametrize("role", [*ROLES, "", "viewers"])
def test_the_list_of_projects_holds_those_that_the_principal_may_see(url, projects, role):
    heads = [project.journal().head().seq for project in projects.values()]
    shown = httpx.get(f"{url}/v1/projects", headers={"x-groups": role}).json()
    described = httpx.get(f"{url}/v1", headers={"x-groups": role}).json()
    assert [each["name"] for each in shown] == [name for name, roles in PROJECTS.items() if role in roles]
    assert described["projects"] == shown
    assert [project.journal().head().seq for project in projects.values()] == heads


@pytest.mark.slow
@pytest.mark.parametrize("role", [*ROLES, ""])
def test_each_route_of_each_project_is_for_the_roles_of_its_action(url, projects, role):
    """Routes without parameters, which are not refused for another reason first."""
    operations = [each for each in OPERATIONS if not each.parameters and not each.writes]
    assert len(operations) > 10
    with httpx.Client(base_url=url, headers={"x-groups": role}, timeout=60) as http:
        for name, project in projects.items():
            who = Principal("user:ada", (role,), via="http")
            for each in operations:
                answered = http.get(f"/v1/projects/{name}{each.path}", **_request(each))
                may = role in PROJECTS.get(name, ()) and role in ROLES_OF[each.action]
                assert permits(project, who, each.action) == may
                seen = role in PROJECTS.get(name, ())
                refused = answered.status_code == (403 if seen else 404) and not may
                assert refused == (not may), (role, name, each.path, answered.text)
                if not may:
                    assert ("role" if seen else "GET /v1/projects") in answered.json()["hint"]


def test_who_has_no_role_changes_and_sees_nothing_at_any_route(url, projects):
    journal = projects["churn"].journal()
    before = journal.head().seq
    places = {"model": "churn", "version": "1", "source": "payments", "alias": "champion"}
    with httpx.Client(base_url=url, timeout=60) as http:
        wrong = []
        for each in OPERATIONS:
            path = each.path.format_map({name: places.get(name, "x") for name in each.parameters})
            answered = http.request(each.method, f"/v1/projects/churn{path}", **_request(each))
            if answered.status_code != 404 or "no project named" not in answered.text:
                wrong.append((each.name, answered.status_code, answered.text))
        assert wrong == []
    kinds = {event.kind for event in journal.events(after=before)}
    assert kinds == {"access.refused"}


def _sample(type_):
    """A value of a type, with required fields alone."""
    match type_:
        case inspect.Metadata():
            return _sample(type_.type)
        case inspect.StructType():
            return {field.encode_name: _sample(field.type) for field in type_.fields if field.required}
        case inspect.UnionType():
            return _sample(type_.types[0])
        case inspect.LiteralType():
            return type_.values[0]
        case inspect.ListType() | inspect.VarTupleType():
            return [_sample(type_.item_type)] * 2
        case inspect.DictType():
            return {"x": _sample(type_.value_type)}
        case inspect.BoolType():
            return True
        case inspect.IntType() | inspect.FloatType():
            return 1
        case _:
            return "x"


def _request(operation):
    """What a request of an operation needs, so that nothing but its action refuses it."""
    needed = {}
    if "query" in operation.types:
        needed["params"] = _sample(inspect.type_info(operation.types["query"]))
    if "body" in operation.types:
        needed["json"] = _sample(inspect.type_info(operation.types["body"]))
    return needed
