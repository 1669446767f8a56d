"""The table of roles: complete, and without rows of personal data for viewers and admins."""

import ast
from pathlib import Path

import pytest

import cumulant
from cumulant.core.roles import ROLES, ROLES_OF, actions_of
from cumulant.flows.ledger.actions import ACTIONS

SOURCE = Path(cumulant.__file__).parent


def test_every_action_has_roles():
    assert set(ROLES_OF) == set(ACTIONS)
    assert list(ROLES_OF) == sorted(ROLES_OF)
    for action, roles in ROLES_OF.items():
        assert roles, action
        assert set(roles) <= set(ROLES)
        assert len(set(roles)) == len(roles)


#: what changes one's own tokens and sessions alone
OWN = {"identities.session_link", "identities.session_revoke", "identities.token_create", "identities.token_revoke"}


@pytest.mark.parametrize(
    ("role", "changes"),
    [
        ("viewer", set()),
        ("auditor", {"events.checkpoint"}),
        ("approver", {"release.approve"}),
        ("reviewer", {"review.answer"}),
        ("admin", {"alerts.test", "events.checkpoint", "identities.manage", "project.clean"}),
    ],
)
def test_what_a_role_may_change(role, changes):
    assert {action for action in actions_of(role) if ACTIONS[action].writes} == changes | OWN


def test_every_role_sees_what_viewers_see():
    for role in ROLES:
        assert set(actions_of("viewer")) <= set(actions_of(role))


def personal_actions():
    """Actions whose verbs, checks, operations or commands show rows that may be personal, as the code declares them."""
    for tree in _naming_personal("flows"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node) in ("verb", "check") and _is_personal(node):
                yield from (each.value for each in node.args if isinstance(each, ast.Constant))
    for folder in ("cli", "api", "server/operations"):
        for tree in _naming_personal(folder):
            for function in ast.walk(tree):
                if isinstance(function, ast.FunctionDef):
                    yield from _of_command(function)


def _naming_personal(folder):
    """The modules in which `_is_personal` could find something."""
    texts = (path.read_text("utf-8") for path in (SOURCE / folder).rglob("*.py"))
    return (ast.parse(text) for text in texts if "personal=" in text.replace(" ", ""))


def _of_command(function):
    actions = [
        keyword.value.value
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
        if keyword.arg == "action" and isinstance(keyword.value, ast.Constant)
    ]
    if any(isinstance(node, ast.Call) and _is_personal(node) for node in ast.walk(function)):
        yield from actions


def _name(call):
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_personal(call):
    # `personal=show` decides at run time, so it counts
    return any(
        keyword.arg == "personal" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        for keyword in call.keywords
    )


def test_personal_rows_are_not_for_viewers_and_admins():
    personal = set(personal_actions())
    assert {"data.show", "labels.show", "review.show", "project.backup"} <= personal
    assert {"predictions.show", "features.compute", "features.forget", "features.show_key"} <= personal
    for action in personal | {"features.show"}:
        assert not {"viewer", "admin", "approver"} & set(ROLES_OF[action]), action


@pytest.mark.parametrize(
    ("action", "roles"),
    [
        ("release.approve", {"approver"}),
        ("release.rollback", {"operator"}),
        ("model.train", {"developer"}),
        ("model.alias", {"operator"}),
        ("review.answer", {"reviewer"}),
        ("subjects.erase", {"operator"}),
        ("events.export", {"auditor", "admin"}),
    ],
)
def test_who_may_do_what_matters_most(action, roles):
    assert set(ROLES_OF[action]) == roles
