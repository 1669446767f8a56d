"""Trial reads of files by native libraries in a child process: a malformed file can crash or hang the process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from cumulant.core.errors import DataError, MissingPartError

SECONDS = 120
#: one thread is enough for two rows, and many would wait for each other on a busy machine
_START = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"
from cumulant.core.system.memory import bounded_memory
bound = bounded_memory()
bound.__enter__()
"""
#: importing what a tree library can do without takes four fifths of the time of a child
_WITHOUT_FRAMES = """
sys.modules.update(dict.fromkeys(("matplotlib", "pandas", "sklearn")))
"""
#: what a child writes when its library is imported
_IMPORTED = b"imported"
#: messages of the libraries where memory ends
_NO_MEMORY = (b"bad_alloc", b"MemoryError", b"Failed to allocate memory", b"bad allocation")
_LIGHTGBM = """
import sys, lightgbm, numpy
os.write(1, b"imported")
model = lightgbm.Booster(model_file=sys.argv[1])
model.dump_model()
model.predict(numpy.zeros((2, model.num_feature())), num_threads=1)
"""
_XGBOOST = """
import sys, xgboost, numpy
os.write(1, b"imported")
model = xgboost.Booster(params={"nthread": 1})
model.load_model(bytearray(open(sys.argv[1], "rb").read()))
data = xgboost.DMatrix(numpy.zeros((2, model.num_features())), nthread=1)
model.predict(data, validate_features=False)
"""
_ONNXRUNTIME = """
import sys, onnxruntime
os.write(1, b"imported")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
_CODES = {"lightgbm": _LIGHTGBM, "onnxruntime": _ONNXRUNTIME, "xgboost": _XGBOOST}


def try_reading(package: str, path: Path) -> None:
    """Let the library read the file, and a tree library answer with it, in a child process.

    Raises:
        DataError: that ended the process, took more than two minutes, or more than four fifths of the machine's memory.
        MissingPartError: the library cannot be imported there, so that nothing was tried.
    """
    done = _run(_START + _WITHOUT_FRAMES + _CODES[package], package, path)
    if _has_raised(done):  # perhaps for want of the packages that were left out
        done = _run(_START + _CODES[package], package, path)
    if _has_no_memory(done):
        hint = "it may need more memory than there is: save a smaller model, or package it on a larger machine"
        raise DataError(f"{package} has too little memory to read {path}", subject=str(path), hint=hint)
    if _is_ended_by_a_signal(done):
        killed = done.returncode == -signal.SIGKILL
        hint = "it may need more memory than there is" if killed else "the file is malformed: save the model again"
        raise DataError(f"{package} crashes when it reads {path}", subject=str(path), hint=hint)
    if _IMPORTED not in done.stdout:
        reason = (done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MissingPartError(
            f"{package} cannot be imported to try {path}: {reason}", subject=package, hint=f"install {package} again"
        )


def _run(code: str, package: str, path: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the code without the current folder among the modules' places: the file's folder may have any content."""
    command = [sys.executable, "-P", "-c", code, str(path.resolve())]
    try:
        return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        hint = "save the model again; a graph may call its functions too often"
        raise DataError(
            f"{package} was not ready with {path} within {SECONDS} s", subject=str(path), hint=hint
        ) from None


def _has_no_memory(done: subprocess.CompletedProcess[bytes]) -> bool:
    return done.returncode != 0 and any(message in done.stderr for message in _NO_MEMORY)


def _is_ended_by_a_signal(done: subprocess.CompletedProcess[bytes]) -> bool:
    return done.returncode < 0 or done.returncode > 128


def _has_raised(done: subprocess.CompletedProcess[bytes]) -> bool:
    """Whether it ended with an error of Python's; one of a library that was imported is met again, in words."""
    return done.returncode != 0 and not _has_no_memory(done) and not _is_ended_by_a_signal(done)
