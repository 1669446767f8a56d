"""Every place of the package that declares a step, found by walking it, and where each may run."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeGuard

import cumulant

#: steps that a worker on another machine may run
ELSEWHERE = {
    "data {name}",
    "check rows",
    "features",
    "search",
    "evaluate",
    "final fit",
    "package",
    "online state",
    "monitoring reference",
    "review reference",
}
#: steps that run in the process of their command, each with the reason
IN_COMMAND = {
    "check packages": "what is checked are the packages of this machine",
    "register": "reads the commit of the project's folder, and takes less time than a process needs to start",
    "clean": "removes folders of this machine too",
}


class StepSite(NamedTuple):
    """`function`: what does the step in a process of its own, as `module:name`; empty where nothing does."""

    step: str
    module: str
    function: str


def find_step_sites() -> list[StepSite]:
    root = Path(cumulant.__file__).parent
    paths = sorted((root / "flows").rglob("*.py"))
    return [site for path in paths if path.parent.name != "ledger" for site in _of_module(path, root)]


def _of_module(path: Path, root: Path) -> Iterator[StepSite]:
    module = ".".join(("cumulant", *path.relative_to(root).with_suffix("").parts))
    text = path.read_text(encoding="utf-8")
    if "run_isolated" not in text and ".step" not in text:  # nothing that `_declares_step` would find
        return
    for around in ast.parse(text).body:
        for call in filter(_declares_step, ast.walk(around)):
            yield StepSite(_text(call.args[0], module), module, _function(call, around))


def _declares_step(node: ast.AST) -> TypeGuard[ast.Call]:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    of = node.func.value
    owner = of.id if isinstance(of, ast.Name) else getattr(of, "attr", "")
    return node.func.attr == "run_isolated" or (node.func.attr == "step" and owner in ("context", "ledger"))


def _text(node: ast.expr, module: str) -> str:
    if isinstance(node, ast.Name):
        return str(getattr(importlib.import_module(module), node.id))
    return (
        ast.unparse(node).removeprefix("f").strip("'\"") if isinstance(node, ast.JoinedStr) else ast.literal_eval(node)
    )


def _function(call: ast.Call, around: ast.stmt) -> str:
    """The name of the function in the `StepFunction` of a call, given directly or by a variable."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "function"] + call.args[1:2]
    for made in ast.walk(around):
        if isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == "StepFunction":
            direct = any(made in ast.walk(value) for value in given)
            if direct or any(isinstance(value, ast.Name) and value.id == "function" for value in given):
                names = [node for node in ast.walk(made.args[0]) if isinstance(node, ast.Attribute)]
                return next(node.value.id for node in names if isinstance(node.value, ast.Name))
    return ""
