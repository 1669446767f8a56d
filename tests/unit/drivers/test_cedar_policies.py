"""Policies of bindings and of files: what they allow, what is refused before Cedar sees it, and what a fault names."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import UsageError
from cumulant.core.roles import ROLES_OF
from cumulant.ports.access import Principal, Resource, RoleBinding

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')
import cedarpy

from cumulant.drivers.cedar.access import CedarAccess
from cumulant.drivers.cedar.binding_policies import binding_policies, policy_text
from cumulant.drivers.cedar.policy_files import MAX_DEPTH, MAX_POLICY, read_policies, split_policies
from cumulant.drivers.cedar.schema import schema_text

ADA = Principal("user:ada", ("risk",), claims={"os_user": "ada"}, via="cli")
EVE = Principal("user:eve")


def model(name="shop", *, author="", **where):
    labels = {"project": "shop", "environment": "prod"} | ({"author": author} if author else {})
    return Resource(
        kind="model",
        name=name,
        labels=labels | {k: v for k, v in where.items() if k != "region"},
        region=where.get("region", "eu"),
    )


@pytest.fixture
def access(tmp_path):
    def make(bindings=(), **files):
        for name, text in files.items():
            (tmp_path / f"{name}.cedar").write_text(text, encoding="utf-8")
        return CedarAccess(f"cedar://{tmp_path}" if files else "cedar://", bindings=bindings)

    return make


def faults(folder, text):
    (folder / "team.cedar").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_policies(folder)
    return caught.value


def test_nothing_is_allowed_by_default(access):
    decision = access().check(ADA, "release.approve", model())
    assert not decision.allowed
    assert decision.policies == ()
    assert decision.hint == "it takes the role approver here; `access.bindings` of the project file says who has it"
    assert "any role" in access().check(ADA, "runs.show", model()).hint


def test_a_decision_names_its_binding(access):
    bindings = [RoleBinding(id=f"access.bindings[{n}]", role="approver", groups=("risk",)) for n in range(2)]
    decision = access(bindings).check(ADA, "release.approve", model())
    assert decision.allowed
    assert decision.policies == ("access.bindings[0] group:risk", "access.bindings[1] group:risk")
    assert not access(bindings).check(EVE, "release.approve", model()).allowed
    assert not access(bindings).check(ADA, "release.steer", model()).allowed


@pytest.mark.parametrize(
    ("limit", "inside", "outside"),
    [
        ({"projects": ("shop",)}, {"project": "shop"}, {"project": "shops"}),
        ({"environments": ("prod", "stage")}, {"environment": "stage"}, {"environment": "local"}),
        ({"regions": ("eu", "us-east-1")}, {"region": "eu-west-1"}, {"region": "europe"}),
        ({"regions": ("us-east-1",)}, {"region": "us-east-1"}, {"region": "us-east"}),
        ({"models": ("shop", "late")}, {"name": "late"}, {"name": "later"}),
    ],
)
def test_a_binding_is_limited(access, limit, inside, outside):
    limited = access([RoleBinding(id="b", role="viewer", users=("user:ada",), **limit)])
    assert limited.check(ADA, "model.show", model(**inside)).allowed
    assert not limited.check(ADA, "model.show", model(**outside)).allowed


def test_a_binding_of_models_is_not_for_the_project(access):
    limited = access([RoleBinding(id="b", role="viewer", users=("user:ada",), models=("shop",))])
    assert not limited.check(ADA, "model.show", Resource(kind="project", name="shop")).allowed


def test_a_principal_of_another_tenant_has_no_role(access):
    everybody = access([RoleBinding(id="b", role="viewer", users=("*",))])
    assert everybody.check(Principal("anonymous"), "model.show", model()).allowed
    assert not everybody.check(Principal("user:ada", tenant="other"), "model.show", model()).allowed


def test_single_actions_instead_of_a_role(access):
    program = access([RoleBinding(id="b", actions=("model.predict", "labels.post"), users=("service:shop",))])
    allowed = {action for action in ROLES_OF if program.check(Principal("service:shop"), action, model()).allowed}
    assert allowed == {"model.predict", "labels.post"}


TEAM = """// the team's own; with a semicolon
@id("no-own-release")
forbid(principal, action == Action::"release.approve", resource)
when { resource has author && resource.author == principal };

permit(principal in Group::"ops", action in Action::"operator", resource)
when { principal.hasTag("os_user") && principal.getTag("os_user") == "a;b" };
"""


def test_files_add_to_bindings_and_a_forbid_wins(access):
    team = access([RoleBinding(id="b", role="approver", users=("*",))], team=TEAM)
    refused = team.check(ADA, "release.approve", model(author="user:ada"))
    assert (refused.allowed, refused.policies) == (False, ("no-own-release",))
    assert refused.hint == "the policy no-own-release forbids it"
    assert team.check(EVE, "release.approve", model(author="user:ada")).allowed
    operator = Principal("user:ops", ("ops",), claims={"os_user": "a;b"})
    assert team.check(operator, "release.steer", model()).policies == ("team.cedar:6",)
    assert not team.check(Principal("user:ops", ("ops",)), "release.steer", model()).allowed


def test_a_policy_that_fails_refuses(access):
    team = access(
        [RoleBinding(id="b", role="viewer", users=("*",))],
        team="forbid(principal, action, resource) when { 9223372036854775807 + 1 == 2 };",
    )
    refused = team.check(ADA, "runs.show", model())
    assert not refused.allowed
    assert "overflow" in refused.hint


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ('permit(principal, action == Action::"model.trian", resource);', 1, "unrecognized action"),
        ('\n// c\npermit(principal == User::"ada", action, resource);', 3, "unrecognized entity type `User`"),
        ("permit(principal, action, resource) when { resource.owner == 1 };", 1, "attribute `owner`"),
        ('permit(principal, action, resource) when { principal.getTag("a") == "b" };', 1, "safety of access to tag"),
        ("permit(principal, action, resource) when { resource.author == principal };", 1, "safety of access to"),
        ("permit(principal == ?principal, action, resource);", 1, "a template"),
        ('permit(principal, action, resource);\n@id("a")\npermit(principal action);', 2, "unexpected token `action`"),
        ("permit(principal, action, resource)", 1, "unexpected end of input"),
        (";", 1, "unexpected token"),
        ('permit(principal, action, resource) when { "', 1, "invalid token"),
        (f"permit(principal, action, resource) when {{ {'(' * 5_000}true{')' * 5_000} }};", 1, "characters"),
        (f"permit(principal, action, resource) when {{ {'[' * 65}{']' * 65} == 1 }};", 1, "nested deeper than 64"),
        (f"permit(principal, action, resource) when {{ {'true&&' * 100_000}true }};", 1, "characters"),
        ('@id("a") permit(principal, action, resource);\n@id("a") permit(principal, action, resource);', 2, "too"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path, text, line, part):
    message = str(faults(tmp_path, text))
    assert f"team.cedar:{line}: " in message
    assert part in message


def test_every_faulty_policy_is_named(tmp_path):
    message = str(faults(tmp_path, "permit(a);\npermit(principal, action, resource);\n\npermit(b);"))
    assert "team.cedar:1: " in message
    assert "team.cedar:4: " in message


def test_a_folder_without_policies(tmp_path):
    with pytest.raises(UsageError, match=r"no \.cedar files"):
        CedarAccess(f"cedar://{tmp_path}")
    with pytest.raises(UsageError, match="cannot be read"):
        CedarAccess(f"cedar://{tmp_path / 'none'}")
    (tmp_path / "a.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        CedarAccess(f"cedar://{tmp_path}")
    (tmp_path / "a.cedar").unlink()
    os.mkfifo(tmp_path / "a.cedar")  # to read it would wait for ever
    with pytest.raises(UsageError, match="no file"):
        CedarAccess(f"cedar://{tmp_path}")


@pytest.mark.parametrize(
    ("principal", "resource"),
    [
        (Principal("user:\ud800"), model()),
        (Principal("user:eve", ("\udcff",)), model()),
        (Principal("user:eve", claims={"branch": "\ud800"}), model()),
        (EVE, model("\ud800")),
        (EVE, Resource(kind="we ird", name="shop")),
        (EVE, Resource(kind="", name="shop")),
    ],
)
def test_what_is_no_name_is_refused(access, principal, resource):
    everybody = access([RoleBinding(id="b", role="viewer", users=("*",))])
    assert everybody.check(EVE, "runs.show", model()).allowed
    refused = everybody.check(principal, "runs.show", resource)
    assert (refused.allowed, bool(refused.hint)) == (False, True)


@pytest.mark.parametrize("claims", [{"": "x", "__entity": "y", "__extn": "z", "__proto__": "{}"}])
def test_claims_and_labels_are_values(access, claims):
    condition = 'principal.hasTag("__entity") && principal.getTag("__entity") == "y"'
    team = access(team=f"permit(principal, action, resource) when {{ {condition} }};")
    assert team.check(Principal("user:eve", claims=claims), "runs.show", model()).allowed
    assert not team.check(EVE, "runs.show", model(__entity="y")).allowed


@pytest.mark.parametrize("depth", [MAX_DEPTH - 3])
def test_what_is_within_the_bounds_does_not_end_the_process(tmp_path, depth):
    deep = f"permit(principal, action, resource) when {{ {'(' * depth}true{')' * depth} }};"
    head = "permit(principal, action, resource) when { "
    long = head + "true" + "&&true" * ((MAX_POLICY - len(head) - 20) // 6) + " };"
    (tmp_path / "a.cedar").write_text(f"{deep}\n{long}")
    assert len(read_policies(tmp_path)) == 2


BODIES = st.lists(
    st.sampled_from(['";"', "// x; y\n", '"//"', "\n", "(", "é", '"\\""', "permit", "@id"]), max_size=6
).map("".join)
BETWEEN = st.lists(st.sampled_from(["\n", " ", "// permit(a);\n", '// "\n']), max_size=4).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(BETWEEN, BODIES), max_size=6))
def test_a_file_is_divided_at_semicolons_outside_of_text_and_comments(parts):
    text, wanted = "", []
    for between, body in parts:
        text += between
        wanted.append(("f", text.count("\n") + 1, f"permit {body};"))
        text += f"permit {body};"
    assert split_policies("f", text) == wanted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(['"a;b"', '"\\""', "// x; y\n", "true", "\n", '"//"']), min_size=1, max_size=8))
def test_a_file_is_divided_as_cedar_reads_it(parts):
    one = "permit(principal, action, resource) when { [" + ",".join(p if p[0] in '"t' else f"{p}1" for p in parts)
    one += "] == [] };"
    text = f"{one}\n{one} // end\n{one}"
    assert len(split_policies("f", text)) == len(cedarpy.PolicySet.from_str(text)) == 3


def test_policies_of_bindings_fit_the_schema():
    limits = {"projects": ("a",), "models": ("b", 'q"'), "environments": ("c",), "regions": ("eu", "us")}
    bindings = [
        RoleBinding(id='a"\n', role="viewer", users=("*", 'user:"'), groups=("g",), **limits),
        RoleBinding(id="b", actions=("model.predict",), groups=('"; permit(principal, action, resource); //',)),
    ]
    static = binding_policies(bindings)
    text = "\n".join(policy_text(policy) for policy in static.values())
    assert len(cedarpy.PolicySet.from_str(text)) == len(static) == 4
    assert cedarpy.validate_policies(text, schema_text()).validation_passed


def test_a_binding_of_many_regions(access):
    regions = tuple(f"r{number}" for number in range(300))
    limited = access([RoleBinding(id="b", role="viewer", users=("*",), regions=regions)])
    assert limited.check(ADA, "runs.show", model(region="r299-a")).policies == ("b *",)
    assert not limited.check(ADA, "runs.show", model(region="r300")).allowed


@pytest.mark.parametrize("annotation", ['@permit("(")', '@ permit ("x)")', '@id("permit(")', "@forbid"])
def test_the_scope_is_read_behind_annotations(access, annotation):
    team = access(
        team=f"{annotation} // permit(\npermit /*".removesuffix(" /*")
        + '(principal == Principal::"user:ada", action, resource);'
    )
    assert team.check(ADA, "runs.show", model()).allowed
    assert not team.check(EVE, "runs.show", model()).allowed


def test_policies_that_cannot_concern_a_request_are_left_out_without_effect(tmp_path):
    """Against Cedar with every policy and the whole request."""
    chance = random.Random(5)
    names = [f"user:{n}" for n in range(6)]
    groups = [f"g{n}" for n in range(6)]
    actions = chance.sample(sorted(ROLES_OF), 8)
    scopes = [
        "principal",
        *(f'principal == Principal::"{n}"' for n in names),
        *(f'principal in Group::"{g}"' for g in groups),
    ]
    scopes += [
        "principal is Principal",
        f'principal is Principal in Group::"{groups[0]}"',
        f'principal in Principal::"{names[0]}"',
    ]
    acts = ["action", *(f'action == Action::"{a}"' for a in actions), 'action in Action::"operator"']
    acts += ['action in [Action::"viewer", Action::"release.approve"]']
    lines = [
        f"{chance.choice(['permit', 'permit', 'forbid'])}({chance.choice(scopes)}, {chance.choice(acts)}, resource)"
        f' when {{ resource.environment == "e{chance.randrange(3)}" }};'
        for _ in range(60)
    ]
    (tmp_path / "a.cedar").write_text("\n".join(lines))
    bindings = [
        RoleBinding(
            id=f"b{number}",
            role=chance.choice(["viewer", "approver", "operator"]),
            groups=(chance.choice(groups),),
            projects=chance.choice([(), ("shop",), ("late", "shop", "shop"), ("late",)]),
            environments=chance.choice([(), ("e1",), ("e0", "e2")]),
        )
        for number in range(40)
    ]
    sliced = CedarAccess(f"cedar://{tmp_path}", bindings=bindings)
    whole = CedarAccess(f"cedar://{tmp_path}", bindings=bindings)
    whole._index.matching = lambda *_, **__: tuple(whole._policies)
    for _ in range(2_000):
        principal = Principal(chance.choice(names), tuple(chance.sample(groups, chance.randrange(3))))
        action = chance.choice([*actions, "release.approve"])
        resource = model(environment=f"e{chance.randrange(3)}", project=chance.choice(["shop", "late"]))
        ours, cedars = sliced.check(principal, action, resource), whole.check(principal, action, resource)
        assert (ours.allowed, ours.policies) == (cedars.allowed, cedars.policies)


def test_policies_of_files_that_are_links_decide_as_their_texts_do(tmp_path, monkeypatch):
    """Short ones are links of templates; with a bound of no letters all are parsed as they stand."""
    lines = [
        f'@id("view-{n}") permit(principal in Group::"g{n}", action in Action::"viewer", resource)\n'
        f'when {{ resource.environment == "{("prod", "test")[n % 2]}" }};'
        for n in range(6)
    ]
    lines.append('@id("not-eve") forbid(principal == Principal::"user:eve", action, resource);')
    lines.append('permit(principal is Principal in Group::"g9", action == Action::"model.show", resource);')
    (tmp_path / "team.cedar").write_text("\n".join(lines))
    linked = CedarAccess(f"cedar://{tmp_path}")
    monkeypatch.setattr("cumulant.drivers.cedar.policy_files._SHORT", 0)
    parsed = CedarAccess(f"cedar://{tmp_path}")
    assert linked.policies() == parsed.policies()
    allowed = 0
    for user in ("user:ada", "user:eve"):
        for groups in (("g0",), ("g0", "g1", "g2", "g5"), ("g9",), ("g3", "g9"), ()):
            for environment in ("prod", "test"):
                resource = Resource(kind="model", name="m", labels={"project": "p", "environment": environment})
                for action in ("model.show", "model.train"):
                    principal = Principal(user, groups)
                    decision = linked.check(principal, action, resource)
                    assert decision == parsed.check(principal, action, resource)
                    allowed += decision.allowed
    assert allowed > 5
    prod = Resource(kind="model", name="m", labels={"project": "p", "environment": "prod"})
    assert linked.check(Principal("user:ada", ("g0", "g2")), "model.show", prod).policies == ("view-0", "view-2")
