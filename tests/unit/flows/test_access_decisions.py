"""Decisions against an independent model, which is written from docs/how-to/access.md; and lists against decisions."""

import random
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cumulant.core.errors import RefusedError
from cumulant.core.roles import ROLES, ROLES_OF
from cumulant.flows.access.allowed import allowed
from cumulant.flows.ledger.actions import ACTIONS, check
from cumulant.ports.access import Principal, Resource, RoleBinding
from cumulant.project.file.loading import load

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')
from cumulant.drivers.cedar.access import CedarAccess

ROOT = Path(__file__).parents[3]
USERS = ("user:ada", "user:eve", "service:ci", "anonymous", 'user:"x"', "user:a,b", "user:ÿ\\")
GROUPS = ("risk", "ops", "all of us", 'a"b', "user:ada")
PROJECTS, MODELS = ("shop", "late", "fraud"), ("shop", "late", "fraud", "late2")
ENVIRONMENTS, REGIONS = ("local", "stage", "prod"), ("local", "eu", "eu-west-1", "eu-west-10", "europe", "us-east-1")

#: policies of a team, and the same in Python
TEAM = """
@id("author") forbid(principal, action == Action::"release.approve", resource)
  when { resource has author && resource.author == principal };
@id("freeze") forbid(principal, action in [Action::"release.start", Action::"release.steer"], resource)
  when { resource.environment == "prod" } unless { principal in Group::"ops" };
@id("cli") permit(principal in Group::"all of us", action in Action::"viewer", resource is Project)
  when { principal.via == "cli" && resource.region like "eu*" };
@id("ci") permit(principal == Principal::"service:ci", action, resource)
  when { principal.hasTag("branch") && principal.getTag("branch") == "main" && resource.project != "fraud" };
"""


def documented_roles():
    """The table of the page: role to actions."""
    text = (ROOT / "docs/how-to/access.md").read_text("utf-8")
    rows = [line.strip("|\n ").split(" | ") for line in text.splitlines() if line.startswith("| `") and "." in line]
    table: dict[str, set[str]] = {}
    for action, roles, *_ in rows:
        for role in roles.split(", ") if roles != "every role" else ROLES:
            table.setdefault(role, set()).add(action.strip("`"))
    return table


@dataclass
class Model:
    """What the page says, as simply as possible."""

    bindings: list[RoleBinding]
    team: bool
    table: dict[str, set[str]] = field(default_factory=documented_roles)

    def allows(self, who: Principal, action: str, what: Resource) -> bool:
        if self.team and self.forbidden(who, action, what):
            return False
        return any(self.binds(each, who, action, what) for each in self.bindings) or (
            self.team and self.permitted(who, action, what)
        )

    def binds(self, binding, who, action, what):
        named = "*" in binding.users or who.id in binding.users or not set(who.groups).isdisjoint(binding.groups)
        has = action in (self.table[binding.role] if binding.role else binding.actions)
        inside = not binding.regions or any(
            what.region == name or what.region.startswith(name + "-") for name in binding.regions
        )
        return (
            named
            and has
            and inside
            and who.tenant == what.tenant
            and (not binding.projects or what.labels["project"] in binding.projects)
            and (not binding.environments or what.labels["environment"] in binding.environments)
            and (not binding.models or (what.kind == "model" and what.name in binding.models))
        )

    def forbidden(self, who, action, what):
        author = action == "release.approve" and what.labels.get("author") == who.id
        frozen = action in ("release.start", "release.steer") and what.labels["environment"] == "prod"
        return author or (frozen and "ops" not in who.groups)

    def permitted(self, who, action, what):
        sees = action in self.table["viewer"] and what.kind == "project" and what.region.startswith("eu")
        ci = who.id == "service:ci" and who.claims.get("branch") == "main" and what.labels["project"] != "fraud"
        return ci or ("all of us" in who.groups and who.via == "cli" and sees)


def some(chance, values, least=0, most=2):
    return tuple(chance.sample(values, chance.randint(least, most)))


def limit(chance, values):
    return some(chance, values, 1) if chance.random() < 0.3 else ()


def random_binding(chance, number):
    role = chance.choice([*ROLES, None])
    users, groups = some(chance, (*USERS, "*")), some(chance, GROUPS)
    return RoleBinding(
        id=f"b{number}",
        role=role,
        actions=() if role else some(chance, sorted(ACTIONS), 1, 6),
        users=users if users or groups else ("user:ada",),
        groups=groups,
        projects=limit(chance, PROJECTS),
        models=limit(chance, MODELS),
        environments=limit(chance, ENVIRONMENTS),
        regions=limit(chance, REGIONS),
    )


def random_request(chance):
    claims = {"branch": chance.choice(("main", "dev"))} if chance.random() < 0.4 else {}
    tenant = "default" if chance.random() < 0.9 else "other"
    who = Principal(
        chance.choice(USERS), some(chance, GROUPS), tenant, claims, chance.choice(("cli", "http", "service", "python"))
    )
    project = chance.choice(PROJECTS)
    kind = chance.choice(("project", "model", "server"))
    labels = {"project": project, "environment": chance.choice(ENVIRONMENTS)}
    action = "release.approve" if chance.random() < 0.05 else chance.choice(sorted(ACTIONS))
    if chance.random() < 0.3:
        labels["author"] = chance.choice(USERS)
    name = {"project": project, "server": "cumulant", "model": chance.choice(MODELS)}[kind]
    tenant = "default" if chance.random() < 0.9 else "other"
    return who, action, Resource(kind=kind, name=name, tenant=tenant, region=chance.choice(REGIONS), labels=labels)


def compare(tmp_path, worlds, requests, seed):
    """Decisions that were compared, and how many were allowed."""
    chance, permitted = random.Random(seed), 0
    (tmp_path / "team.cedar").write_text(TEAM, encoding="utf-8")
    for world in range(worlds):
        team = world % 2 == 1
        bindings = [random_binding(chance, number) for number in range(chance.randint(0, 12))]
        model = Model(bindings, team)
        access = CedarAccess(f"cedar://{tmp_path}" if team else "cedar://", bindings=bindings)
        for _ in range(requests):
            who, action, what = random_request(chance)
            decision = access.check(who, action, what)
            assert decision.allowed == model.allows(who, action, what), (seed, world, who, action, what, decision)
            assert decision.allowed or decision.hint
            permitted += decision.allowed
    return permitted


def test_decisions_equal_the_documentation(tmp_path):
    assert 300 < compare(tmp_path, worlds=20, requests=150, seed=1) < 2_700


@pytest.mark.slow
def test_a_hundred_thousand_decisions_equal_the_documentation(tmp_path):
    assert 10_000 < compare(tmp_path, worlds=200, requests=500, seed=2) < 90_000


def test_the_table_of_the_page_is_the_one_of_the_code():
    table = documented_roles()
    assert {role: sorted(actions) for role, actions in table.items()} == {
        role: sorted(action for action, roles in ROLES_OF.items() if role in roles) for role in ROLES
    }


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Projects with random bindings in three environments, regions and tenants; and one that allows everything."""
    chance, loaded = random.Random(3), []
    for number in range(6):
        root = tmp_path_factory.mktemp(f"p{number}")
        roles = [
            {
                "role": role,
                "groups": [f"group-{role}"],
                **({"environments": [chance.choice(ENVIRONMENTS)]} if chance.random() < 0.5 else {}),
                **({"regions": [chance.choice(("eu", "us"))]} if chance.random() < 0.5 else {}),
                **({"projects": [chance.choice(PROJECTS)]} if chance.random() < 0.3 else {}),
            }
            for role in chance.sample(sorted(ROLES), 5)
        ]
        lines = "".join(f"    - {role}\n" for role in roles).replace("'", "")
        (root / "cumulant.yaml").write_text(
            f"version: 1\nmodel: {{name: {chance.choice(PROJECTS)}}}\naccess:\n  bindings:\n{lines}environments:\n"
            f'  stage: {{access: "cedar://", region: eu-1}}\n  prod: {{access: "cedar://", region: us-1}}\n'
            f'  local: {{access: "{"open" if number == 5 else "cedar"}://"}}\n'
        )
        loaded += [load(root, environment=name) for name in ENVIRONMENTS]
    yield loaded
    for project in loaded:
        project.close()


def test_a_list_holds_what_each_decision_allows(projects):
    """Every role, action and project."""
    shown, heads = 0, [project.journal().head().seq for project in projects]
    for role in ROLES:
        who = Principal("user:ada", (f"group-{role}",))
        for action in ACTIONS:
            listed = allowed(who, action, projects)
            assert listed == [project for project in projects if _may(project, who, action)]
            shown += len(listed)
    assert 0 < shown < len(ROLES) * len(ACTIONS) * len(projects)
    assert [project.journal().head().seq for project in projects] == heads, "a list leaves no event of refusals"


def _may(project, who, action):
    return project.access().check(who, action, _resource(project)).allowed


def _resource(project):
    scope = project.scope
    labels = {"project": scope.project, "environment": scope.environment}
    return Resource(kind="project", name=project.name, tenant=scope.tenant, region=scope.region, labels=labels)


def test_a_verb_and_a_list_decide_alike(projects):
    chance = random.Random(4)
    for project in chance.sample(projects, 4):
        for action in chance.sample(sorted(ACTIONS), 8):
            who = Principal("user:ada", (f"group-{chance.choice(sorted(ROLES))}",))
            listed = allowed(who, action, [project])
            with nullcontext() if listed else pytest.raises(RefusedError) as refused:
                check(project, who, action)
            assert listed or refused.value.hint
