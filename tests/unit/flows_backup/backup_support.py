"""A small project, its backup, and what is looked at in a restored one."""

from __future__ import annotations

import os

from backup_writers import Noted

from cumulant.core.errors import StorageError
from cumulant.core.events import Actor
from cumulant.flows.backup.backup import back_up
from cumulant.project.file.loading import load

SPEC = "version: 1\nmodel: {name: m}\ndata:\n  a: {path: data/*.csv}\n"


def made(folder):
    (folder / "data").mkdir(parents=True)
    (folder / "cumulant.yaml").write_text(SPEC)
    (folder / "features.py").write_text("x = 1\n")
    (folder / "data" / "a.csv").write_text("x,y\n1,2\n")
    (folder / "note.txt").write_text("nothing that a project needs")
    with load(folder) as project:
        project.salt()
        model = folder / "model.txt"
        model.write_bytes(os.urandom(100_000))
        project.objects().put("servables/one", model)
        for place, content in {
            "secrets/token": "hidden-1",
            "gateway/secret": "hidden-2",
            "stack/token": "hidden-3",
        }.items():
            (project.state / place).parent.mkdir(exist_ok=True)
            (project.state / place).write_text(content)
        noted(project, 0)
    return folder


def noted(project, number):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(Noted(number=number))


def backup(root, target, **more):
    with load(root) as project:
        return back_up(project, target, principal=project.principal(), log_seconds=0.0, **more)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forked(arm, work):
    """The exit status of a child that does `work`: 0, 3 for a StorageError, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            arm()
            work()
            code = 0
        except StorageError:
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
