"""The section `access` of the project file: strict, with lines; and the driver that decides by it."""

import pytest

from cumulant.core.errors import ProjectFileError, UsageError
from cumulant.flows.project import planning
from cumulant.ports.access import Principal, Resource, RoleBinding
from cumulant.project.file.loading import load

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')


@pytest.fixture
def project(tmp_path):
    opened = []

    def make(bindings="", access="cedar://"):
        (tmp_path / "cumulant.yaml").write_text(
            "version: 1\nmodel: {name: shop}\naccess:\n  bindings:\n"
            + "".join(f"    - {line}\n" for line in bindings.splitlines())
            + f'environments:\n  prod: {{access: "{access}", tenant: acme}}\n'
        )
        opened.append(load(tmp_path, environment="prod"))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def resource(project):
    scope = project.scope
    labels = {"project": "shop", "environment": "prod"}
    return Resource(kind="project", name="shop", tenant=scope.tenant, region=scope.region, labels=labels)


def test_bindings_are_parsed_once(project):
    loaded = project("{role: viewer, groups: [all of us], regions: [eu]}\n{actions: [model.predict], users: ['*']}")
    assert loaded.policies.bindings == (
        RoleBinding(id="access.bindings[0]", role="viewer", groups=("all of us",), regions=("eu",)),
        RoleBinding(id="access.bindings[1]", actions=("model.predict",), users=("*",)),
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{role: aprover, users: ['*']}", 'may not be "aprover"; did you mean "approver"?'),
        ("{role: viewer}", "access.bindings.0 is for nobody; write users or groups"),
        ("{users: [user:ada]}", "access.bindings.0: write a role, or actions, and not both"),
        ("{role: viewer, actions: [runs.show], users: ['*']}", "access.bindings.0: write a role, or actions, and not"),
        ("{actions: [model.predit], users: ['*']}", 'there is no action "model.predit"; did you mean "model.predict"?'),
        ("{role: viewer, users: [ada]}", '"ada" is not a user: write user:NAME'),
        ("{role: viewer, users: ['user:a\\nb']}", None),
        ('{role: viewer, users: ["user:a\\nb"]}', "is not a user"),
        ("{role: viewer, groups: ['']}", "may not be empty"),
        ("{role: viewer, group: [a]}", 'unknown key "group"'),
        ("{role: viewer, users: user:ada}", "must be a list"),
        ("{role: viewer, users: ['*'], environments: ['a b']}", '"a b" is not a name'),
    ],
)
def test_what_means_nothing_is_refused_with_its_line(project, line, text):
    if text is None:
        project(line)
        return
    with pytest.raises(ProjectFileError) as caught:
        project(line)
    assert caught.value.problems[0][:2] == ("cumulant.yaml", 5)
    assert text in caught.value.problems[0][2]


def test_the_driver_decides_by_the_bindings(project):
    loaded = project("{role: developer, users: [user:ada]}\n{role: viewer, groups: [all]}")
    access, where = loaded.access(), resource(loaded)
    assert access.check(Principal("user:ada", tenant="acme"), "model.train", where).allowed
    assert access.check(Principal("user:eve", ("all",), tenant="acme"), "runs.show", where).allowed
    assert not access.check(Principal("user:eve", ("all",), tenant="acme"), "model.train", where).allowed
    assert not access.check(Principal("user:ada"), "model.train", where).allowed  # of another tenant


def test_a_folder_of_policies_is_relative_to_the_project(project, tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "team.cedar").write_text("permit(principal, action, resource)\nwhen { 1 };")
    with pytest.raises(UsageError, match=r"team\.cedar:1: "):
        project("{role: viewer, users: ['*']}", access="cedar://policies").access()
    (tmp_path / "policies" / "team.cedar").write_text('forbid(principal, action == Action::"runs.show", resource);')
    loaded = project("{role: viewer, users: ['*']}", access="cedar://policies")
    decision = loaded.access().check(Principal("user:eve", tenant="acme"), "runs.show", resource(loaded))
    assert decision.policies == ("team.cedar:1",)


def test_a_plan_notes_bindings_that_decide_nothing(project):
    line = "{role: viewer, users: ['*']}"
    assert "access.bindings decide nothing in prod" in planning._access_notes(project(line, access="open://"))[0]
    assert planning._access_notes(project(line)) == []


def test_an_option_that_the_driver_does_not_have(project):
    with pytest.raises(UsageError, match='no option "watch"'):
        project("{role: viewer, users: ['*']}", access="cedar://policies?watch=1").access()
