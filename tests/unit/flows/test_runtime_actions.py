"""Every verb of the runtime asks for a declared action."""

import ast
from pathlib import Path

import pytest

import cumulant
from cumulant.core.errors import RefusedError, TerminalError
from cumulant.flows.ledger.actions import ACTIONS, check, find_action, verb
from cumulant.ports.access import Principal
from cumulant.testing.access import GrantedAccess

ADA = Principal("user:ada")
ROOT = Path(cumulant.__file__).parent


def test_a_declared_action_is_asked_for():
    access = GrantedAccess({("user:ada", "model.train")})
    check(access, ADA, "model.train", "flight-late")
    with pytest.raises(RefusedError, match=r"user:ada may not do model\.alias"):
        check(access, ADA, "model.alias", "flight-late")
    assert access.requests == [("user:ada", "model.train", "flight-late"), ("user:ada", "model.alias", "flight-late")]


def test_an_action_that_is_not_declared():
    access = GrantedAccess({("user:ada", "model.trian")})
    with pytest.raises(TerminalError, match="not declared") as caught:
        check(access, ADA, "model.trian", "flight-late")
    assert caught.value.hint == 'did you mean "model.train"?'
    assert access.requests == []
    with pytest.raises(TerminalError):
        verb("model.trian")


def test_a_verb_carries_its_action():
    @verb("model.train")
    def train():
        return 1

    assert train.action == find_action("model.train")  # type: ignore[attr-defined]
    assert train() == 1


def test_actions_are_named_by_room_and_verb():
    for name, action in ACTIONS.items():
        assert name == action.name
        assert len(name.split(".")) == 2
        assert action.text


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def asked_for(function):
    """The texts that the function gives as an action: `action="..."`, `check(..., "...", ...)`, `@verb("...")`."""
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        given = [word.value for word in call.keywords if word.arg == "action"]
        if isinstance(call.func, ast.Name) and call.func.id in {"check", "verb"}:
            given += call.args
        yield from (value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str))


FUNCTIONS = [
    pytest.param(function, id=f"{path.stem}.{function.name}")
    for path in sorted((ROOT / "flows").rglob("*.py"))
    for function in functions(path)
    if path.stem not in {"actions", "ledger", "ledger_records", "__main__"}
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_the_runtime_asks_for_is_declared(function):
    assert set(asked_for(function)) <= set(ACTIONS)
