"""What each command that reads imports: no engine that it does not need, as each costs up to seconds of CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest

from cumulant.cli.app import COMMANDS, load, run
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.release import store
from cumulant.flows.review.service import first_cases
from cumulant.project.file.loading import load as project_load
from cumulant.project.release_section import release_policy
from cumulant.release.decide import end_release, start
from cumulant.release.spec import ReleaseSpec
from cumulant.release.state import Board, Release

#: imported by no command that reads
ENGINES = {
    "mlflow",
    "pandas",
    "sklearn",
    "lightgbm",
    "matplotlib",
    "optuna",
    "onnxruntime",
    "sqlalchemy",
    "httpx",
    "jinja2",
    "cedarpy",  # where access is open
}
#: of those that read the journal and the registry alone
TABLES = ENGINES | {"polars", "pyarrow", "scipy"}
#: commands that read, with their arguments, by what they must not import
READS = {
    **dict.fromkeys(
        (
            "doctor",
            "ps",
            "slo show",
            "slo rules",
            "runs list",
            "runs show latest",
            "jobs list",
            "jobs show NONE",
            "jobs follow NONE",
            "jobs cancel NONE",
            "events list",
            "events verify",
            "models list",
            "models show shop",
            "models compare shop/1 shop/1",
            "lineage shop",
            "access roles",
            "access check ada runs.show",
            "access explain ada",
            "access policies",
            "token list",
            "session list",
            "alerts list",
            "alerts show NONE",
            "review list",
            "data clean",
            "data cost",
            "data lifecycle",
            "ingest status",
            "report --out page.md",
        ),
        TABLES | {"numpy"},
    ),
    "report --out page.html": TABLES - {"jinja2"} | {"numpy"},
    **dict.fromkeys(("labels list", "labels show NONE", "labels report"), ENGINES | {"pyarrow", "numpy", "scipy"}),
    # the project's features file imports polars
    **dict.fromkeys(("features show", "features sql"), ENGINES | {"numpy", "pyarrow", "scipy"}),
    **dict.fromkeys(("features status", "features freshness"), TABLES | {"numpy"}),
    # pyarrow's functions over columns take as long to import as the rest of it
    **dict.fromkeys(
        ("predictions list", "predictions show NONE", "predictions gaps"),
        TABLES - {"pyarrow"} | {"pyarrow.compute"},
    ),
    "plan": ENGINES,
    "release plan --requests 200/s": ENGINES | {"polars", "scipy"},
    # the one source of the project
    **dict.fromkeys(("data show", "data quarantine"), ENGINES | {"pyarrow", "numpy", "scipy"}),
    # rows that were checked before are not looked at again
    "plan --json": ENGINES | {"numpy", "pyarrow", "scipy"},
}
#: command lines over a log, labels, waiting cases and a release that ended, where CASE is one of them, by what they must not import
LOGGED = {
    **dict.fromkeys(("labels list", "labels show r3", "labels report"), ENGINES | {"pyarrow", "numpy", "scipy"}),
    # rows that were checked before are not looked at again, and the project's features file imports no engine
    **dict.fromkeys(("features show", "plan --json"), TABLES | {"numpy"}),
    # labels that were counted before are not counted again
    "labels report --json": TABLES | {"numpy"},
    **dict.fromkeys(
        ("predictions list", "predictions show r3", "review show CASE"), TABLES - {"pyarrow"} | {"pyarrow.compute"}
    ),
    "predictions gaps": TABLES - {"pyarrow"} | {"pyarrow.compute", "numpy.ma"},
    **dict.fromkeys(("release history", "release status", "release why"), TABLES | {"numpy"}),
    # decides, makes a label of it and joins it with the log
    "review decide CASE 1": ENGINES | {"scipy"},
    "review report": TABLES - {"pyarrow", "scipy"} | {"pyarrow.compute"},
    # figures of the same cases are not made again
    "review report --json": TABLES | {"numpy"},
}
#: commands that write, wait, compute over rows, or answer from a model
OTHERS = {
    "features backfill",
    "features verify",
    "login",
    "token create",
    "token revoke",
    "session link",
    "session revoke",
    "demo",
    "demo-fraud",
    "new",
    "train",
    "evaluate",
    "package",
    "predict",
    "serve",
    "rollback",
    "up",
    "down",
    "replay",
    "tick",
    "worker",
    "subjects find",
    "subjects erase",
    "subjects admit",
    "backup",
    "restore",
    "data validate",
    "data infer",
    "ingest run",
    "ingest apply",
    "ingest refused",
    "ingest late",
    "features get",
    "features start-job",
    "features jobs",
    "features stop-job",
    "features import-feast",
    "features materialize",
    "features forget",
    "models tag",
    "models alias",
    "models reproduce",
    "release start",
    "release watch",
    "release pause",
    "release resume",
    "release promote",
    "release abort",
    "release override-slo",
    "release approve",
    "release simulate",
    "alerts ack",
    "alerts silence",
    "alerts test",
    "alerts retry",
    "alerts drop",
    "monitor watch",
    "monitor backtest",
    "monitor run",
    "events follow",
    "events checkpoint",
    "api",
    "events export",
    "labels ingest",
    "labels import-predictions",
    "review fill",
    "review next",
    "review skip",
    "review escalate",
    "review note",
    "review assign",
    "review export",
    "review import",
}
PROGRAM = """
import json, os, sys
from cumulant.cli.app import run
for lines in json.loads(sys.argv[1]):
    if os.fork() == 0:
        out, quiet = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        for words in lines:
            before = set(sys.modules)
            code = run(words.split())
            os.write(out, (json.dumps([words, code, sorted(sys.modules.keys() - before)]) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def imports(trained: Path) -> dict[str, tuple[int, set[str]]]:
    groups = [["plan"], *processes_of(READS)]  # the first one imports the packages of the trainers, once
    return imported(groups, trained)


def processes_of(bounds: dict[str, set[str]]) -> list[list[str]]:
    """Command lines that run in one process each time: neighbours that must not import the same modules.

    What one of them imports that it must not is told of that one, as it is in no process of theirs before.
    """
    return [list(lines) for _, lines in groupby(bounds, key=bounds.__getitem__)]


def imported(groups: list[list[str]], project: Path) -> dict[str, tuple[int, set[str]]]:
    """Command line -> its exit code and what it imported, each group in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(groups)],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
        timeout=400,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {words: (code, set(modules)) for words, code, modules in found}  # of a line that is repeated, the last


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, set[str]]]:
    """As `imports`, on a project with predictions, labels, cases that wait for a reviewer, and a release that ended."""
    folder, at = tmp_path_factory.mktemp("logged"), datetime.now(UTC) - timedelta(hours=1)
    rows = [f"r{number},{at.isoformat()},{number % 2},0.{number:02d},{number}" for number in range(20)]
    (folder / "old.csv").write_text("\n".join(["id,at,said,p,pages", *rows, ""]))
    (folder / "visits.csv").write_text("pages,bought\n" + "".join(f"{row % 30},{row % 2}\n" for row in range(200)))
    (folder / "labels.csv").write_text("id,label\n" + "".join(f"r{row},{row % 2}\n" for row in range(10)))
    project = folder / "shop"
    mapped = ["--map", "id=id,time=at,prediction=said,score=p"]
    assert (
        run(["new", "shop", "--from", str(folder / "visits.csv"), "--target", "bought", "--project", str(folder)]) == 0
    )
    with (project / "cumulant.yaml").open("a") as stream:
        stream.write("monitoring: {review: {budget: 6/day, sample: 100%, second: 0%}}\n")
    for words in (
        ["labels", "import-predictions", str(folder / "old.csv"), *mapped],
        ["labels", "ingest", str(folder / "labels.csv")],
        ["review", "fill"],
        ["plan"],
    ):
        assert run([*words, "--project", str(project)]) == 0
    with project_load(project) as opened:
        case = first_cases(opened, principal=opened.principal())[0][0].id
        with opened.journal().transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, aborted_release("shop"), expect=0)
    groups = [[line.replace("CASE", case) for line in lines] for lines in processes_of(LOGGED)]
    found = imported(groups, project)
    return {words.replace(case, "CASE"): told for words, told in found.items()}


def aborted_release(model: str) -> Release:
    """A release that was ended in its first step."""
    spec, url = release_policy(ReleaseSpec()), ("http://127.0.0.1:1",)
    champion, candidate = (
        Arm(name="champion", version="1", endpoints=url),
        Arm(name="candidate", version="2", endpoints=url),
    )
    board = Board(metric="errors", unit="%", margin=0.005, harm_bar=4.5, fine_bar=3.0)
    now = datetime.now(UTC)
    begun = Release(
        id="r1",
        model=model,
        champion=champion,
        candidate=candidate,
        policy=spec,
        boards={"errors": board},
        begun=now,
    )
    return end_release(start(begun), "rolled_back", "ended by ada", at=now)


@pytest.mark.slow
@pytest.mark.parametrize("words", LOGGED)
def test_a_command_over_a_log_imports_no_engine(words: str, logged: dict[str, tuple[int, set[str]]]) -> None:
    code, modules = logged[words]
    assert (code, sorted(modules & LOGGED[words])) == (0, [])


def test_the_imports_of_every_command_are_bounded_or_it_is_listed() -> None:
    lines = [words.split() for words in (*READS, *LOGGED)]
    known = {" ".join(words[:2]) if words[0] in GROUPS else words[0] for words in lines}
    assert known | OTHERS == COMMAND_LINES
    assert not known & OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("words", READS)
def test_a_command_that_reads_imports_no_engine(words: str, imports: dict[str, tuple[int, set[str]]]) -> None:
    code, modules = imports[words]
    assert code in (0, 2), words  # 2: the project has no such alert, release or prediction
    assert sorted(modules & READS[words]) == []


GROUPS = {name for name in COMMANDS if hasattr(load(name), "commands")}
COMMAND_LINES = {
    line
    for name in COMMANDS
    for line in ([f"{name} {command}" for command in load(name).commands] if name in GROUPS else [name])
}
