"""Roles at the console: each page and each form is open to those alone whose role has its action."""

import re

import pytest
from console_support import SAME_ORIGIN, console_client, csrf_of, make_project

from cumulant.console.routes import ROUTES
from cumulant.core.roles import ROLES, ROLES_OF
from cumulant.ports.access import Principal

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')

PROJECT = "/projects/{project}"
PAGES = [route for route in ROUTES if route.method == "GET" and route.action is not None]
FORMS = [route for route in ROUTES if route.method == "POST"]


def bindings(*roles):
    lines = "\n".join(f"    - {{role: {role}, groups: [{role}]}}" for role in roles)
    return f'access:\n  bindings:\n{lines}\nenvironments:\n  local: {{access: "cedar://"}}\n'


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    place = tmp_path_factory.mktemp("projects")
    loaded = [
        make_project(place / "late", "late", "monitoring: {review: {budget: 5/day}}\n" + bindings(*ROLES)),
        make_project(place / "fraud", "fraud", bindings("viewer", "approver")),
    ]
    yield loaded
    for project in loaded:
        project.close()


def client_of(projects, role):
    return console_client(*projects, principal=Principal("user:ada", (role,), via="http"))


def path_of(route, project):
    return re.sub(r"{\w+}", "1", route.path.replace("{project}", project))


@pytest.mark.parametrize("role", [*ROLES, ""])
def test_each_page_is_for_the_roles_of_its_action(projects, role):
    client, has = client_of(projects, role), {"late": set(ROLES), "fraud": {"viewer", "approver"}}
    for name, roles in has.items():
        for route in PAGES:
            answered = client.get(path_of(route, name))
            may = role in roles and role in ROLES_OF[route.action]
            if may:
                assert answered.status_code != 403, (name, route.path)
            else:  # as a project that does not exist, to those who may not see it either
                assert answered.status_code == (403 if role in roles else 404), (name, route.path)
            assert answered.status_code < 500, (name, route.path, answered.text)


@pytest.mark.parametrize("role", [*ROLES, ""])
def test_the_navigation_has_the_pages_that_one_may_open(projects, role):
    shown = client_of(projects, role).get("/projects/late").text
    for route in PAGES:
        if route.nav is not None:
            assert (f'data-go="{route.nav.key}"' in shown) == (role in ROLES_OF[route.action]), route.path


@pytest.mark.parametrize("role", ["", "auditor"])
def test_the_overview_lists_the_projects_that_one_may_see(projects, role):
    page = client_of(projects, role).get("/")
    assert page.status_code == 200
    assert ("/projects/late" in page.text) == (role == "auditor")
    assert "/projects/fraud" not in page.text


def test_who_has_no_role_sends_no_form(projects):
    client = client_of(projects, "")
    csrf, before = csrf_of(client.get("/")), projects[0].journal().head().seq
    assert FORMS
    for route in FORMS:
        fields = {"csrf": csrf, "reason": "x", "uri": "late/1", "version": "1", "seconds": "60", "label": "yes"}
        answered = client.post(path_of(route, "late"), data=fields, headers=SAME_ORIGIN)
        assert answered.status_code == 404, (
            route.path,
            answered.status_code,
            re.sub(r"<[^>]*>", " ", answered.text)[:500],
        )
    kinds = {event.kind for event in projects[0].journal().events(after=before)}
    assert kinds == {"access.refused"}
