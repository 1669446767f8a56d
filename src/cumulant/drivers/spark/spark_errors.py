"""The errors of Spark's client as those of the port."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    MissingPartError,
    OutOfMemoryError,
    StepFailedError,
    error_from,
)
from cumulant.drivers.spark.worker import ERROR, install_hint, packages

#: of the connection, or of a session that the server does not have any more
_AWAY = re.compile(r"StatusCode\.UNAVAILABLE|RETRIES_EXCEEDED|INVALID_HANDLE\.SESSION_\w+")
_MISSING = re.compile(
    r"No module named '([\w.]+)'|cannot import name '\w+' from '([\w.]+)'|attribute '\w+' on <module '([\w.]+)'"
)
_OTHER_PYTHON = re.compile(r"has different version: ([\d.]+) than that in driver: ([\d.]+)")
#: of Python: the end of a stream from elsewhere (EOFException), or memory of Java (OutOfMemoryError), is another error
_CRASHED = re.compile(r"Python worker exited unexpectedly|\bMemoryError\b|EOFException(?=[\s\S]*PythonRunner)")
#: of the message of an error, which may be followed by a plan
_SHOWN = 300


@contextmanager
def spark_errors(away: Callable[[], EngineUnavailableError]) -> Iterator[None]:
    from grpc import RpcError
    from pyspark.errors import PySparkException

    try:
        yield
    except RpcError as error:
        raise away() from error
    except PySparkException as error:
        text = str(error)
        if is_away(text):
            raise away() from error
        raise read_error(text) from error


def is_away(text: str) -> bool:
    """Whether a text of Spark's client means that the server does not answer, or has begun anew."""
    return _ours(text) is None and _AWAY.search(text) is not None


def read_error(text: str) -> CumulantError:
    """The error that a text of Spark means."""
    if (ours := _ours(text)) is not None:
        return ours
    if match := _OTHER_PYTHON.search(text):
        return MissingPartError(
            f"Spark's workers have Python {match[1]}, and this process has Python {match[2]}",
            subject="history",
            hint=f"let PYSPARK_PYTHON of Spark's server name a Python {match[2]}; {install_hint(packages())}",
        )
    if match := _MISSING.search(text):
        missing = (match[1] or match[2] or match[3]).partition(".")[0]
        other = ", or has another version of it" if missing == "cumulant" else ""
        return MissingPartError(
            f"the Python of Spark's workers lacks {missing}{other}", subject="history", hint=install_hint(packages())
        )
    if _CRASHED.search(text):
        return OutOfMemoryError(
            "a Python worker of Spark ended before its work did",
            subject="history",
            hint="it may have lacked memory, which grows with the rows of the heaviest key: give Spark's executors more"
            " beside their Java heap (spark.executor.memoryOverhead), or leave that key out in `prepare`",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return StepFailedError(f"Spark failed: {_reason(lines)[:_SHOWN]}", subject="history", hint="see Spark's own log")


def _ours(text: str) -> CumulantError | None:
    """The error of this program that a worker wrote into a text, whatever follows it there."""
    _, begin, rest = text.partition(ERROR)
    try:
        document, _ = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    return error_from(document, StepFailedError) if begin and isinstance(document, dict) else None


def _reason(lines: list[str]) -> str:
    """The last line of a traceback of Python, else the first line."""
    begins = [place for place, line in enumerate(lines) if line.startswith("Traceback ")]
    if not begins:
        return lines[0] if lines else "no reason given"
    errors = [line for line in lines[begins[0] :] if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return errors[0] if errors else lines[0]
