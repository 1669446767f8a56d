"""Processes that act again and again until they are killed: `python acting_process.py PROJECT KILLS SEED`.

An action appends a line to a file of its process, as something outside of the journal that others see, and is then
acknowledged to the process that kills it at a random moment. Prints, as JSON, what each one acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from cumulant.flows.ledger.actions import verb
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

#: processes at once, and seconds after the first acknowledged action until the kill, at most
AT_ONCE, MOST = 4, 0.05


@verb("model.tag", of="name")
def act(project, name, file, *, principal):
    """Append `name` to the file of actions, durably."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{name}\n".encode())
    os.fsync(handle)
    os.close(handle)


def act_until_killed(folder, acknowledge):
    """Act under a new name each time."""
    number, ada = 0, Principal("user:ada", via="cli")
    with load(folder) as project:
        while True:
            name = f"model-{os.getpid()}-{number}"
            act(project, name, folder / f"acted-{os.getpid()}", principal=ada)
            os.write(acknowledge, f"{name}\n".encode())
            number += 1


def start(folder):
    """A new process that acts; its id, and a file of what it acknowledges."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            act_until_killed(folder, write)
        finally:
            os._exit(1)  # an error: the parent expects a kill
    os.close(write)
    return pid, os.fdopen(read)


def kill(pid, acknowledged, pause):
    """What the process had acknowledged when it was killed, that long after its first action."""
    first = acknowledged.readline()
    time.sleep(pause)
    os.kill(pid, signal.SIGKILL)
    with acknowledged:
        rest = acknowledged.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it ended before it was killed"
    return [name for name in (first + rest).split("\n") if name]


def main(folder, kills, seed):
    draw, names = random.Random(seed), []
    for _ in range(0, kills, AT_ONCE):
        running = [start(folder) for _ in range(AT_ONCE)]
        names += [kill(pid, acknowledged, draw.uniform(0, MOST)) for pid, acknowledged in running]
    sys.stdout.write(json.dumps(names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
