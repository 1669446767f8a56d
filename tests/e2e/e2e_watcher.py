"""A process that looks at a served model or carries its training on, and is killed at a point of it.

`main(OUT, FOLDER, look|train, AT, POINT, FILE)` runs in a process of its own.

OUT: the file that has what it printed. AT: the moment of the look. POINT: `within:N` dies after the N-th write of the watch's rows and before it is committed,
`after:N` once it is; `waits` reads the row, says so, and goes on when FILE is there; `-` none of these. Prints what
became of it, or the error.
"""

import json
import os
import signal
import time
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path

from cumulant.core.errors import CumulantError
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.monitoring import evidence, persistence, retraining, run, state
from cumulant.project.file.loading import load

TRANSACTION = SqliteJournal.transaction


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(how: str, number: int) -> None:
    left = [number]

    def write(*words, **named):
        left[0] -= 1
        found = state.write(*words, **named)
        if left[0] == 0 and how == "within":
            die()
        return found

    @contextmanager
    def transaction(self, **named):
        with TRANSACTION(self, **named) as held:
            yield held
        if left[0] <= 0 and how == "after":
            die()

    persistence.write = retraining.write = write  # type: ignore[attr-defined]
    SqliteJournal.transaction = transaction


def behind(project, file: str) -> None:
    """From here on the rows are known as they are now, and others go first."""
    held = state.read_state(project.journal(), project.name)
    wanted = state.read_request(project.journal(), project.name)
    evidence.read_state = lambda *_: held  # type: ignore[attr-defined]
    evidence.read_request = retraining.read_request = lambda *_: wanted  # type: ignore[attr-defined]
    print("waits", flush=True)
    while not Path(file).exists():
        time.sleep(0.02)


def main(out: str, folder: str, what: str, at: str, where: str, file: str = "") -> None:
    with Path(out).open("w") as stream, redirect_stdout(stream):
        act(folder, what, at, where, file)


def act(folder: str, what: str, at: str, where: str, file: str) -> None:
    with load(Path(folder)) as project:
        who = project.principal()
        if where == "waits":
            behind(project, file)
        elif where != "-":
            how, _, number = where.partition(":")
            deadly(how, int(number))
        try:
            if what == "train":
                wanted = retraining.continue_retraining(project, principal=who)
                said = {"stage": wanted.stage, "said": wanted.message}
            else:
                seen = run.run_monitoring(project, principal=who, at=datetime.fromisoformat(at))
                said = {"fresh": seen.evaluation.fresh, "do": seen.action.do}
        except CumulantError as error:
            said = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    print(json.dumps(said))
