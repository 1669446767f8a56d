"""What a project keeps in a folder of one machine is of that machine alone: all else is behind a port.

A module that uses the state folder is listed here with what it keeps there. One that keeps what other machines need
belongs behind a port instead: `journal`, `tables`, `objects`, `log` or `online`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cumulant

ROOT = Path(cumulant.__file__).parent

PROCESSES = "processes of this machine: their sockets, keys, logs, and what they are to run"
COPIES = "copies that are made again from the stores"
SCRATCH = "files that end with their command"

HOST_LOCAL = {
    "flows/data/memory_budget.py": SCRATCH,
    "flows/registry/lineage.py": SCRATCH,
    "flows/monitoring/result_cache.py": COPIES,
    "flows/registry/version_servable.py": COPIES,
    "flows/serving/servable_copies.py": COPIES,
    "flows/serving/caller_tokens.py": PROCESSES,
    "flows/serving/serve.py": "notes of its servers, and rows that wait for their upload",
    "flows/training/search_step.py": COPIES + ": trials, whose copies are objects where the store is shared",
    "flows/worker/run_worker.py": COPIES + ": the code of commands",
    "flows/ledger/code_bundle.py": "names the folder, which no bundle holds",
    "flows/maintenance/cleanup.py": "removes what this machine alone has",
    "flows/maintenance/unneeded_files.py": "finds what this machine alone has",
    "flows/serving/stored_keys.py": "reads what servers of this machine have noted",
    "flows/features/stored_tables.py": "reads what servers of this machine have noted, beside what all machines share",
    "flows/features/online_tables.py": "reads what servers of this machine have noted, beside what all machines share",
    "flows/outcomes/outcome_logs.py": "files of an earlier version, which move to the logs",
    "flows/backup/backup.py": "copies the folder of this machine",
    "flows/backup/backup_files.py": "copies the folder of this machine",
    "flows/replay/replay.py": "where the requests that this machine sends have got to",
    "server/streaming/uploads.py": SCRATCH,
    "api/outcomes.py": "where the requests that this machine sends have got to",
    "flows/deployment/copy.py": "the copy by which a rollback needs no journal",
    "flows/release/rollback.py": "the copy by which a rollback needs no journal",
    "flows/deployment/deployment.py": PROCESSES,
    "flows/deployment/follow.py": PROCESSES,
    "flows/deployment/host_agent.py": PROCESSES,
    "flows/deployment/host_lifecycle.py": PROCESSES,
    "flows/deployment/versions.py": PROCESSES,
    "flows/identities/api_address.py": PROCESSES,
    "flows/observe/gateway_requests.py": COPIES + ": counts of the requests in the log",
    "flows/observe/process_metrics.py": PROCESSES,
    "flows/observe/programs.py": PROCESSES,
    "flows/observe/scrape_targets.py": PROCESSES,
    "flows/overview/project_overview.py": PROCESSES,
    "flows/registry/models.py": PROCESSES,
    "flows/release/__main__.py": PROCESSES,
    "flows/release/controller_process.py": PROCESSES,
    "flows/stack/folder_claim.py": PROCESSES,
    "flows/stack/lifecycle.py": PROCESSES,
    "flows/stack/repair.py": PROCESSES,
    "flows/stack/restart.py": PROCESSES,
    "flows/stack/served_versions.py": PROCESSES,
    "flows/stack/server_commands.py": PROCESSES,
    "flows/stack/stack_processes.py": PROCESSES,
    "flows/traffic/__main__.py": PROCESSES,
    "api/stack.py": PROCESSES,
    "cli/serving/up.py": PROCESSES,
    "cli/project/doctor.py": "checks who can read the folder",
}
#: names under which a project is known; the second test finds others
NAMES = {"project", "_project", "loaded", "_loaded", "opened"}
#: what names the folder without a project
FOLDER_NAMES = {"STATE", "state_folder"}


def modules(*words: str) -> Iterator[tuple[str, ast.Module]]:
    """Those with one of the words, but for the package that makes the folder."""
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words) and not path.is_relative_to(ROOT / "project"):
            yield path.relative_to(ROOT).as_posix(), ast.parse(text)


def last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def uses_folder(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "state" and last_name(node.value) in NAMES:
            return True
        if isinstance(node, ast.ImportFrom) and FOLDER_NAMES & {alias.name for alias in node.names}:
            return True
    return False


def test_only_what_is_of_one_machine_rests_on_its_state_folder():
    assert {name for name, tree in modules(".state", *FOLDER_NAMES) if uses_folder(tree)} == set(HOST_LOCAL)


def project_names(tree: ast.Module) -> Iterator[str]:
    """The names under which a module holds a `Project`: parameters, attributes, and what `load` opens."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name | ast.Constant | ast.BinOp):
            if ast.unparse(node.annotation).strip("'\"").removesuffix(" | None") == "Project":
                yield node.arg
        elif isinstance(node, ast.withitem) and isinstance(node.context_expr, ast.Call):
            if node.optional_vars is not None and last_name(node.context_expr.func) == "load":
                yield last_name(node.optional_vars)
        elif isinstance(node, ast.Assign):
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            target = node.targets[0]
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (
                last_name(one)
                for one, value in zip(targets, values, strict=False)
                if last_name(value) in NAMES - {"opened"}
            )


def test_projects_are_known_by_these_names():
    # In `api` and `demo` a `Project` is the notebook's, which holds the loaded one as `_loaded`.
    given = modules("Project", "load", *NAMES)
    own = {name: set(project_names(tree)) for name, tree in given if not name.startswith(("api/", "demo/"))}
    assert {name: given - NAMES for name, given in own.items() if given - NAMES} == {}
