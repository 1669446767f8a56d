"""Roles at the command line: what is refused, who may see why, and the commands that show it."""

import pytest

from cumulant.core.roles import ROLES_OF

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')

FILE = """version: 1
model: {name: shop}
access:
  bindings:
    - {role: auditor, users: [user:ada]}
    - {role: approver, groups: [risk], environments: [prod], regions: [eu]}
    - {actions: [model.predict], users: ["service:shop"], models: [shop]}
environments:
  prod: {access: "cedar://", region: eu-1}
  team: {access: "cedar://policies"}
"""


@pytest.fixture
def call(tmp_path, cumulant, monkeypatch):
    (tmp_path / "cumulant.yaml").write_text(FILE)

    def run(*words, who="ada", groups="", environment="prod"):
        monkeypatch.setenv("CUMULANT_USER", who)
        monkeypatch.setenv("CUMULANT_GROUPS", groups)
        return cumulant(*words, "--project", str(tmp_path), "--env", environment)

    return run


def test_who_has_no_role_may_do_nothing_and_the_refusal_names_the_role(call):
    ended = call("runs", "list", who="eve")
    assert ended.code == 1
    assert "user:eve may not do runs.show to shop" in ended.err
    assert "it takes any role here" in ended.err
    assert "CUMULANT_USER and CUMULANT_GROUPS say who you are" in ended.err
    assert "the role auditor or admin" in call("access", "roles", who="eve").err
    events = call("events", "list", "--json").document
    refused = [event for event in events if event["kind"] == "access.refused"]
    assert [(event["actor"], event["data"]["action"]) for event in refused] == [
        ("user:eve", "runs.show"),
        ("user:eve", "access.show"),
    ]


def test_a_role_by_a_group_of_the_variable(call):
    assert call("runs", "list", who="eve", groups="x, risk").code == 0
    assert call("data", "validate", who="eve", groups="risk").code == 1


def test_roles_are_shown_with_their_actions_and_bindings(call):
    shown = call("access", "roles", "--json").document
    assert {item["action"]: tuple(item["roles"]) for item in shown["actions"]} == ROLES_OF
    assert shown["bindings"][1]["groups"] == ["risk"]
    text = call("access", "roles").out
    assert "data.*" in text
    assert len(text.splitlines()) < 50
    assert "yes" in call("access", "roles", "--actions").out
    assert "access.bindings[1]" in text
    assert "environment prod; region eu" in text


def test_a_decision_is_shown_with_its_policy(call):
    decided = call("access", "check", "eve", "release.approve", "--group", "risk", "--json")
    assert decided.code == 0
    assert decided.document["policies"] == ["access.bindings[1] group:risk"]
    refused = call("access", "check", "eve", "release.approve")
    assert refused.code == 1
    assert "user:eve may not do release.approve to the project shop" in refused.out
    assert "it takes the role approver here" in refused.out
    assert call("access", "check", "service:shop", "model.predict", "--model", "shop/3").code == 0
    assert call("access", "check", "service:shop", "model.predict").code == 1
    unknown = call("access", "check", "eve", "release.aprove")
    assert unknown.code == 2
    assert 'did you mean "release.approve"?' in unknown.err


def test_all_that_a_principal_may_do(call):
    shown = call("access", "explain", "service:shop", "--model", "shop", "--json").document
    assert [item["action"] for item in shown if item["allowed"]] == ["model.predict"]
    assert "anonymous may do 0 of" in call("access", "explain", "anonymous").out


def test_policies_are_shown_and_are_policies(call, tmp_path):
    import cedarpy

    policies = call("access", "policies").out
    schema = call("access", "policies", "--schema", "--json").document["schema"]
    assert len(cedarpy.PolicySet.from_str(policies)) == 3
    assert cedarpy.validate_policies(policies, schema).validation_passed
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "team.cedar").write_text(policies)  # a start for files that replace the bindings
    assert call("access", "check", "user:ada", "access.show", environment="team").code == 0
    refused = call("access", "policies", environment="local")
    assert (refused.code, "open:// has no policies" in refused.err) == (2, True)


def test_a_faulty_policy_stops_plan_with_its_line(call, tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "team.cedar").write_text('\npermit(principal, action == Action::"plan", resource);')
    ended = call("plan", environment="team")
    assert ended.code == 2
    assert "team.cedar:2: unrecognized action" in ended.err


def test_everybody_may_do_everything_by_default(call):
    assert "everybody may do everything" in call("access", "roles", who="eve", environment="local").out
