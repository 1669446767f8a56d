"""One case through the real command, and what was wrong with what it did."""

from __future__ import annotations

import io
import os
import re
import resource
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hostile.case import Case

MIB = 1 << 20
#: more resident memory than this, in the process or in one that it started, is a violation
MOST_MEMORY = 1024 * MIB
#: codes of exit by which a command refuses: 4 is what trying again does not help against
REFUSALS = (1, 2, 3, 4)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")


def judged(case: Case, root: Path) -> dict[str, Any]:
    """Run a case below the empty folder `root`; `faults` lists what was wrong."""
    source, out, before = _prepared(case, root)
    os.environ["CANARY"] = str(root / "canary")
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins here
    began, used = time.perf_counter(), os.times()
    code, text = _run(case, source, out)
    spent = os.times()
    result = {
        "case": case.name,
        "code": code,
        "words": text.strip()[:300],
        "seconds": round(time.perf_counter() - began, 2),
        "processor": round(sum(spent[:4]) - sum(used[:4]), 2),
        "memory": _peak() // MIB,
    }
    return result | {
        "faults": [*_faults(case, code, text), *_left(root, out, before, code), *_wrong(case, source, out, code)]
    }


def _prepared(case: Case, root: Path) -> tuple[Path, Path, dict[str, Any]]:
    for name in ("in", "tmp", "here"):
        (root / name).mkdir(parents=True)
    import tempfile

    tempfile.tempdir = os.environ["TMPDIR"] = str(root / "tmp")
    os.chdir(root / "here")
    source = case.write(root / "in")
    return source, root / "out", _tree(root)


def _run(case: Case, source: Path, out: Path) -> tuple[int, str]:
    text = io.StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        if case.command == "trial":
            return _tried(source), text.getvalue()
        from cumulant.cli.app import run

        words = [one.replace("{folder}", str(source.parent)) for one in case.words]
        place = [str(out)] if case.command == "restore" else ["--out", str(out)]
        return run([case.command, str(source), *place, *words]), text.getvalue()


def _tried(folder: Path) -> int:
    """As a server tries a model before it loads it."""
    from cumulant.core.errors import CumulantError
    from cumulant.serving.settings import Settings
    from cumulant.serving.workers.load_check import LoadCheck

    try:
        LoadCheck(Settings(folders=(str(folder),)), seconds=60).versions("m")
    except CumulantError as error:
        print(error.message, error.hint or "")
        return 2
    return 0


def _peak() -> int:
    """Of this process since the case began; of every process that it ever started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def _faults(case: Case, code: int, text: str) -> list[str]:
    found = []
    if code not in (0, *REFUSALS):
        found.append(f"exit code {code}")
    if code == 0 and not case.mutated:
        found.append("accepted")
    if code and not text.strip():
        found.append("refused without a word")
    if "Traceback" in text or "unexpected in" in text or "Exception ignored" in text:
        found.append("an error that nobody expected")
    if case.command != "trial" and _CONTROL.search(text):
        found.append("control characters in the output")
    if len(text) > 20_000:
        found.append(f"{len(text):,} characters of output")
    if _peak() > MOST_MEMORY:
        found.append(f"{_peak() // MIB:,} MiB of memory")
    return found


def _tree(root: Path) -> dict[str, Any]:
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        found[str(path)] = None if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


def _left(root: Path, out: Path, before: dict[str, Any], code: int) -> list[str]:
    after = {path: value for path, value in _tree(root).items() if code or not Path(path).is_relative_to(out)}
    found = ["its code ran"] if (root / "canary").exists() else []
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path, 0) != after.get(path, 0))
    return [*found, *(f"left or changed {path}"[:200] for path in changed[:3])]


def _wrong(case: Case, source: Path, out: Path, code: int) -> list[str]:
    """An accepted model answers as the library that made it."""
    if code or case.command != "package":
        return []
    from cumulant.servable.engine import Engine

    engine = Engine(out / "model.onnx")
    if len(engine.inputs) != 1:
        return []
    rows = np.random.default_rng(3).normal(size=(5, 3))
    try:
        expected = _original(source, rows)
    except Exception as error:  # what a library raises where it cannot answer
        expected = error
    try:
        answers = engine.run(
            {engine.inputs[0].name: rows.astype(np.float32 if engine.inputs[0].datatype == "FP32" else np.float64)}
        )
    except Exception as error:
        return [] if isinstance(expected, Exception) else [f"accepted, and cannot answer: {error}"[:200]]
    if isinstance(expected, Exception):
        return [f"accepted, and the original cannot answer: {expected}"[:200]]
    found = answers[-1]
    if found.dtype.kind not in "fiub":
        return []
    same = np.size(found) == np.size(expected) and np.allclose(
        np.ravel(found), np.ravel(expected), atol=1e-5, rtol=1e-5, equal_nan=True
    )
    return [] if same else [f"accepted with other answers: {np.ravel(found)[:3]} for {np.ravel(expected)[:3]}"]


def _original(source: Path, rows: np.ndarray) -> Any:
    if source.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})[-1]
    if source.suffix == ".txt":
        import lightgbm

        return lightgbm.Booster(model_file=str(source)).predict(rows, num_threads=1)
    import xgboost

    booster = xgboost.Booster(params={"nthread": 1})
    booster.load_model(bytearray(source.read_bytes()))
    with suppress(ValueError):
        booster.feature_names = booster.feature_types = None
    return booster.predict(xgboost.DMatrix(rows))
