"""Commands that work on the project's machine alone: why, and what to do instead of `--server`."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.core.errors import UsageError

#: the variable that stands for `--server`
SERVER = "CUMULANT_SERVER"
_FILES = "it reads or writes files of this machine"
_FOREGROUND = "it runs processes on this machine"
_ALONE = "it needs no project"
_THERE = "run it on the server's machine"
_PLAIN = "run it without --server"

#: by command: the reason, and what to do instead
REASONS: Mapping[str, tuple[str, str]] = {
    "demo": (_ALONE, _PLAIN),
    "demo-fraud": (_ALONE, _PLAIN),
    "new": (_ALONE, _PLAIN),
    "doctor": ("it checks this machine", _THERE),
    "data infer": (_ALONE, _PLAIN),
    "features import-feast": (_ALONE, _PLAIN),
    "data cost": ("it lists the stores from this machine", _THERE),
    "data lifecycle": ("it writes rules for files of this machine", _THERE),
    "package": ("it reads a model's file of this machine", "package here, and register the version there"),
    "predict": (_FILES, "`cumulant predict --url URL` calls a server of models; `project.predict(rows)` in Python"),
    "serve": (_FOREGROUND, "run it on the machine that serves"),
    "up": (_FOREGROUND, "run it on the machine that serves"),
    "down": (_FOREGROUND, "run it on the machine that serves"),
    "api": (_FOREGROUND, "run it on the machine of the projects"),
    "worker": (_FOREGROUND, "run it on each machine that runs steps"),
    "replay": (_FOREGROUND, "run it on the machine that serves"),
    "ingest run": (_FOREGROUND, "run it on a machine of the project"),
    "ingest status": ("it asks the broker from this machine", _THERE),
    "ingest refused": (_FILES, _THERE),
    "ingest late": (_FILES, _THERE),
    "ingest apply": (_FOREGROUND, "run it on a machine of the project"),
    "backup": ("its archive has all rows and the salt of hashed values, and stays with the project", _THERE),
    "restore": ("it makes a project on this machine", _THERE),
    "release simulate": ("it computes on this machine", _PLAIN),
    "monitor watch": (_FOREGROUND, "`cumulant.connect(URL).monitoring.run()` in Python evaluates once"),
    "monitor run": ("it compares files of this machine", _PLAIN),
    "session link": ("a link signs in on the server's machine", "run it there"),
    "events verify": (
        "it compares the chain with checkpoints and keys of the project's machine",
        "GET /v1/projects/NAME/events/verification verifies the chain alone",
    ),
    "review export": (_FILES, "`cumulant review list --json` has the cases"),
    "review import": (_FILES, _THERE),
}


def check_server(command_path: str, environment: str, *, takes: bool) -> None:
    """Raise UsageError where a command does not take `--server`, or is given an environment beside it."""
    name = command_path.partition(" ")[2]
    if not takes:
        reason, instead = REASONS[name]
        raise UsageError(
            f"`cumulant {name}` does not take --server: {reason}",
            subject="--server",
            hint=f"{instead}; where {SERVER} is set, --server '' ignores it",
        )
    if environment != "local":
        raise UsageError(
            "the server has its projects in environments of their own",
            subject="--env",
            hint="leave --env out; the address of the server says which it is",
        )
