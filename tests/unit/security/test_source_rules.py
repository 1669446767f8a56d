"""What the code never does, whatever a change adds: found in its syntax trees and in the scripts of the console."""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cumulant.flows.identities.records import new_secret
from cumulant.flows.ledger.actions import ACTIONS
from cumulant.server.operation_list import OPERATIONS

PACKAGE = Path(__file__).parents[3] / "src/cumulant"


@cache
def trees() -> dict[str, ast.Module]:
    """By path in the package. Not when the module is imported: every process of the suite imports it, and one needs them."""
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


SCRIPTS = {path.name: path.read_text() for path in (PACKAGE / "console/static").glob("*.js") if "min" not in path.name}
#: runs `features.py` of the project's author, which is trusted (SECURITY.md)
USERS_CODE = ["features/definition/loading.py"]
#: with `--trust-pickle` alone
UNPICKLING = {"packaging/convert/model_objects.py"}
#: draws of samples, delays and test data
RANDOM = {
    "data/rules/prepare_check.py",
    "datasets/payments.py",
    "demo/data_fault.py",
    "server/client/http_api.py",
    "serving/cache/shared_cache.py",
    "serving/logged_answers.py",
    "serving/models/sample_inputs.py",
    "testing/log.py",
    "testing/plans/cases.py",
    "testing/servers/fault_proxy.py",
    "testing/servers/programs.py",
}


@pytest.fixture(scope="module", autouse=True)
def trees_for_this_module_alone() -> Iterator[None]:
    """Each collection of garbage looks at all nodes, a million and a half: not here, and not in the tests that follow."""
    gc.disable()
    try:
        yield
    finally:
        trees.cache_clear()
        nodes.cache_clear()
        gc.enable()


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    return list(ast.walk(tree))


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in nodes(tree) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def imports(tree: ast.AST) -> set[str]:
    named: set[str] = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            named |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add(node.module or "")
    return named


def test_no_code_is_made_of_text_and_no_shell_is_used():
    forbidden = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    forbidden |= {"marshal.loads", "yaml.unsafe_load", "yaml.full_load"}
    last = {name.rpartition(".")[2] for name in forbidden}  # writing out each call's name takes 15 s
    faults = [
        f"{name}:{call.lineno}"
        for name, tree in trees().items()
        for call in calls(tree)
        if (called(call) in last and ast.unparse(call.func) in forbidden)
        or any(each.arg == "shell" and ast.unparse(each.value) == "True" for each in call.keywords)
    ]
    assert [fault.partition(":")[0] for fault in faults] == USERS_CODE
    unpickling = {name for name, tree in trees().items() if imports(tree) & {"pickle", "cloudpickle", "dill", "joblib"}}
    assert unpickling <= UNPICKLING


def test_statements_are_constant_texts():
    """Values go beside a statement. What is put into its text are names of ours, numbers and quoted identifiers."""
    faults = []
    for name, tree in trees().items():
        for call in calls(tree):
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            if method not in ("execute", "executemany", "executescript") or not call.args:
                continue
            text = call.args[0]
            composed = isinstance(text, ast.BinOp) or (isinstance(text, ast.Call) and ".format" in ast.unparse(text))
            if composed and "sql.SQL(" not in ast.unparse(text):
                faults.append(f"{name}:{call.lineno}")
            if isinstance(text, ast.JoinedStr):
                parts = {ast.unparse(part.value) for part in text.values if isinstance(part, ast.FormattedValue)}
                if not parts <= PARTS.get(name, set()):
                    faults.append(f"{name}:{call.lineno} {sorted(parts)}")
    assert faults == []


#: what statements contain: constants, numbers, and a schema whose letters were checked
PARTS = {
    "drivers/local/journal.py": {"table", "index", "target", "listed", "' AND '.join(conditions)"},
    "drivers/local/journal_rows.py": {"value", "'DESC' if descending else 'ASC'", "' AND '.join(conditions)"},
    "drivers/local/online.py": {"_name(generation)", "_name(number)", "into"},
    "drivers/local/row_hashes.py": {"_EVENT"},
    "drivers/mlflow/database.py": {"column", "table"},
    "drivers/local/sqlite.py": {"name", "value", "self._version"},
    "drivers/mlflow/postgres_schema.py": {"draft", "location.schema"},
    "drivers/postgres/migrations.py": {"round(wait * 1000)"},
    "serving/sequences/sequence_store.py": {"_SCHEMA"},
}


#: texts of ours that are filled in by `format` and stand elsewhere: in a route, an operation, a driver, an argument
FILLED = {
    "console/pages/releases.py": {"text"},
    "features/flink/expressions.py": {"form", "real", "whole_form"},
    "flows/data/validate.py": {"reason"},
    "ports/plugins.py": {"place"},
    "server/client/http_api.py": {"operation.path"},
    "serving/endpoints/openapi.py": {"route.template"},
    "serving/models/graph_model.py": {"are"},
}


def test_format_strings_are_constant_texts():
    """A format string of a caller could read attributes of our objects: `{0.__class__}`."""
    faults = []
    for name, tree in trees().items():
        for call in calls(tree):
            if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("format", "format_map"):
                continue
            filled = call.func.value
            constant = filled.value if isinstance(filled, ast.Subscript) else filled
            text = ast.unparse(constant)
            ours = isinstance(constant, ast.Constant) or text.isupper() or text in FILLED.get(name, set())
            if not ours and text not in ("msgspec.json", "pl") and not text.startswith("sql.SQL("):
                faults.append(f"{name}:{call.lineno} {text}")
    assert faults == []


def test_secrets_come_from_the_generator_of_the_system():
    assert {name for name, tree in trees().items() if "random" in imports(tree)} == RANDOM
    drawn = {new_secret() for _ in range(1_000)}
    assert len(drawn) == 1_000
    assert {len(each) for each in drawn} == {43}, "256 bits in base64"


def test_scripts_insert_text_as_text():
    for name, text in SCRIPTS.items():
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|__proto__|\.prototype|setTimeout\(\"",
            text,
        )
        assert found == [], name


def test_scripts_store_nothing_but_the_theme():
    for name, text in SCRIPTS.items():
        assert not re.search("localStorage|sessionStorage|indexedDB|caches\\.", text), name
        assert all("theme=" in line for line in text.splitlines() if "document.cookie" in line), name
    assert any("document.cookie" in text for text in SCRIPTS.values())


def test_operations_that_write_are_no_reads():
    """What a link or a prefetch can send changes nothing: a GET has an action that only reads."""
    reads = [each for each in OPERATIONS if each.method == "GET"]
    assert len(reads) > 20
    assert [each.name for each in reads if ACTIONS[each.action].writes] == []
