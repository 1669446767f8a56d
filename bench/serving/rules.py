"""What checking the data contract's rules costs a request: one model without rules, with some, and with one a field.

    PYTHONPATH=src python bench/serving/rules.py

The models answer in turns, in one process: a row of 30 columns as JSON through the whole application, microseconds.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import rows
from model import booster

from cumulant.core.servable import FieldRule
from cumulant.servable.folder import load_servable, write_sealed
from cumulant.serving.app import ServingApplication
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.models.model import ModelSet, open_model

_REQUESTS, _ROUNDS, _BLOCK = 2000, 40, 500
_NAMES = [f"x{number}" for number in range(28)]
RULES = {"none": 0, "4 rules": 4, "28 rules": 28}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        found = asyncio.run(_measure(_folders(Path(place))))
    base = np.concatenate(found["none"])
    for name, blocks in found.items():
        times = np.concatenate(blocks)
        p50, p99 = np.percentile(times, (50, 99))
        sys.stdout.write(
            f"{name:>9}: p50 {p50:.1f} µs, p99 {p99:.1f} µs, {1e6 / times.mean():,.0f} requests/s, "
            f"p50 {p50 - np.median(base):+.1f} µs\n"
        )


def _folders(place: Path) -> dict[str, Path]:
    _, plain, _ = rows.make(place, booster(trees=100).model_to_string())
    found = {}
    for name, count in RULES.items():
        found[name] = folder = place / f"with-{count}"
        shutil.copytree(plain, folder)
        rules = {one: FieldRule(required=True, min=-100, max=100.0) for one in _NAMES[:count]}
        write_sealed(folder, msgspec.structs.replace(load_servable(folder), rules=rules))
    return found


async def _measure(folders: dict[str, Path]) -> dict[str, list[np.ndarray]]:
    apps = {name: ServingApplication(ModelSet([open_model(folder)])) for name, folder in folders.items()}
    bodies = [one.partition(b"\r\n\r\n")[2] for one in rows.requests(_REQUESTS)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in apps}
    for number in range(_ROUNDS):
        for name, app in apps.items():
            begin = number * _BLOCK % _REQUESTS
            block = [await _one(app, body) for body in bodies[begin : begin + _BLOCK]]
            if number:  # the first warms up
                found[name].append(np.array(block))
    return found


async def _one(app: ServingApplication, body: bytes) -> float:
    request = Request("POST", b"/v1/models/rows/predict", {b"host": b"127.0.0.1"}, body, received=time.perf_counter())
    begin = time.perf_counter()
    answer = app(request)
    response = answer if isinstance(answer, Response) else await answer
    taken = (time.perf_counter() - begin) * 1e6
    assert response.status == 200, response.body
    return taken


if __name__ == "__main__":
    main()
