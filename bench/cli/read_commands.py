"""CPU of each read command: `python bench/cli/read_commands.py PROJECT [--only WORDS] [--repeat 3]`.

PROJECT is a project's folder with a registered model, predictions and labels (`make demo KEEP=1` leaves one). Each command
runs in a process of its own, as a user's does; the least of user and system seconds is printed, with the least wall time and
the heavy packages that the command imports: other work on the machine only adds. Ids that a command needs are taken from the lists of the project. Read commands
that wait (`events follow`, `release watch`, `monitor watch`) are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cumulant.project.file.loading import load

HEAVY = ("mlflow", "pandas", "sklearn", "lightgbm", "matplotlib", "pyarrow", "polars", "scipy", "numpy", "onnxruntime")
PROGRAM = """
import sys
from cumulant.cli.app import run
code = run(sys.argv[2:])
heavy = [name for name in {heavy!r} if name in sys.modules]
with open(sys.argv[1], "w") as out: out.write(" ".join(heavy))
sys.exit(code)
"""


class Usage(NamedTuple):
    """What one run of a command took: seconds, and the heavy packages that it imported."""

    cpu: float
    wall: float
    code: int
    heavy: str


def measured(project: Path, words: list[str], bytecode: str) -> Usage:
    """One run in a process of its own, with compiled modules in the folder `bytecode`, as an installed program has."""
    read, write = os.pipe()
    begun = time.perf_counter()
    program = [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), f"/dev/fd/{write}", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(
        program,
        cwd=project,
        env={**environment, "PYTHONPYCACHEPREFIX": bytecode},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[write],
    )
    os.close(write)
    with os.fdopen(read) as heavy:
        imported = heavy.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return Usage(used.ru_utime + used.ru_stime, time.perf_counter() - begun, child.returncode, imported)


def listed(project: Path, *words: str) -> Any:
    """The document that a command prints."""
    program = [sys.executable, "-m", "cumulant.cli", *words, "--json"]
    done = subprocess.run(program, cwd=project, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def commands(project: Path) -> Iterator[list[str]]:
    """Each read command, with ids of this project."""
    runs, versions = (
        listed(project, "runs", "list", "--flow", "train", "--last", "1"),
        listed(project, "models", "list"),
    )
    if not runs or not versions:
        sys.exit(f"{project}: no model was trained here; `make demo KEEP=1` leaves a project with all that is read")
    run = runs[0]["id"]
    model = f"{versions[0]['name']}@champion"
    labelled = listed(project, "labels", "list", "--limit", "1")
    predictions = listed(project, "predictions", "list", "--limit", "1")
    releases, cases = listed(project, "release", "history"), listed(project, "review", "list", "--status", "all")
    alerts = listed(project, "alerts", "list")["alerts"]
    yield from (["plan"], ["doctor"], ["ps"], ["runs", "list"], ["runs", "show", run])
    yield from (["events", "list"], ["events", "verify"], ["models", "list"], ["models", "show", model])
    if len(versions) > 1:
        yield ["models", "compare", *(f"{one['name']}/{one['version']}" for one in versions[:2])]
    yield from (["lineage", model], ["data", "clean"], ["features", "show"])
    with load(project) as opened:
        sources = list(opened.spec.data)
    yield from (["data", word, source] for source in sources for word in ("show", "quarantine"))
    yield from (["predictions", "list"], ["predictions", "gaps"], ["labels", "list"], ["labels", "report"])
    yield ["labels", "report", "--by", "week"]
    yield from (["predictions", "show", one["id"]] for one in predictions)
    yield from (["labels", "show", one["id"]] for one in labelled)
    yield from (
        ["alerts", "list"],
        ["review", "list"],
        ["review", "list", "--status", "all"],
        ["review", "report"],
        ["release", "history"],
    )
    yield from (["alerts", "show", one["id"]] for one in alerts[:1])
    yield from (["review", "show", one["id"]] for one in cases[:1])
    yield from (["release", "why", one["id"]] for one in releases[:1])
    yield from (["release", "status"], ["release", "plan"], ["report", "--out", "/tmp/read-report.html"])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("project", type=Path)
    asked.add_argument("--only", default="", help="commands that begin with these words")
    asked.add_argument("--repeat", type=int, default=3)
    asked.add_argument("--bytecode", default="", help="a folder for compiled modules that is kept")
    options = asked.parse_args()
    bytecode = options.bytecode or tempfile.mkdtemp(prefix="cumulant-bytecode-")
    print("| command | CPU s | wall s | code | heavy packages |\n|---|---|---|---|---|")
    for words in commands(options.project):
        if not " ".join(words).startswith(options.only):
            continue
        measured(options.project, words, bytecode)  # compiles what it imports
        runs = [measured(options.project, words, bytecode) for _ in range(options.repeat)]
        cpu, wall = (min(getattr(one, name) for one in runs) for name in ("cpu", "wall"))
        print(f"| `{' '.join(words)}` | {cpu:.2f} | {wall:.2f} | {runs[-1].code} | {runs[-1].heavy} |", flush=True)


if __name__ == "__main__":
    main()
