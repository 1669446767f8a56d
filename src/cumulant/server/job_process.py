"""The process of a job: `python -m cumulant.server.job_process`, which a server starts.

It reads a `JobRequest` from standard input and writes a `JobMessage` a line to standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.errors import CumulantError, DataError, OutOfMemoryError, is_interrupt
from cumulant.core.system.memory import bounded_memory
from cumulant.project.file.loading import project_of_layers
from cumulant.project.project import Project
from cumulant.project.redaction import redaction_of
from cumulant.server.handler import encode
from cumulant.server.jobs import JobMessage, JobRequest, decode_request
from cumulant.server.operation import ApiCall
from cumulant.server.operation_list import OPERATIONS


def main() -> None:
    request = decode_request(sys.stdin.buffer.read())
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no message
    signal.signal(signal.SIGTERM, _interrupt)

    def write(message: JobMessage) -> None:
        output.write(encode(message) + b"\n")

    def report(text: str, share: float | None = None) -> None:
        write(JobMessage(step=text, share=share))

    with nullcontext() if request.memory is None else bounded_memory(request.memory):
        message = _run(request, report)
    write(message)


def _run(request: JobRequest, report: Any) -> JobMessage:
    operation = next(each for each in OPERATIONS if each.name == request.operation)
    with accepted_project(request) as project:
        call = ApiCall(project, request.principal, operation.action, progress=report)
        arguments = msgspec.json.decode(request.arguments)
        if operation.uploads:
            arguments["upload"] = Path(arguments["upload"])
        for name in ("query", "body"):
            if name in arguments:
                arguments[name] = msgspec.convert(arguments[name], operation.types[name])
        try:
            return JobMessage(ended=True, result=msgspec.Raw(encode(operation.run(call, **arguments))))
        except CumulantError as error:
            if operation.uploads:  # the caller's file, and the folder is the server's
                folder = f"{arguments['upload'].parent}/"
                error = error.reworded(lambda text: text.replace(folder, ""))
            return JobMessage(ended=True, error=error.reworded(redaction_of(project)).as_dict())
        except MemoryError:
            hint = "divide what it reads, or run the command on the server's machine"
            kind = DataError if operation.uploads else OutOfMemoryError  # a file that the caller sends is smaller
            return JobMessage(ended=True, error=kind("it takes more memory than it may", hint=hint).as_dict())
        except BaseException as error:  # noqa: BLE001 - the edge of a process
            if is_interrupt(error):
                return JobMessage(ended=True, error={"code": "interrupted", "error": "cancelled", "retryable": True})
            sys.excepthook(type(error), error, error.__traceback__)
            return JobMessage(
                ended=True, error={"code": "unexpected", "error": type(error).__name__, "retryable": False}
            )


def accepted_project(request: JobRequest) -> Project:
    """The project as its server has taken it: its files may have changed since in what the server has refused."""
    return project_of_layers(Path(request.folder), request.layers, environment=request.environment, via="http")


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
