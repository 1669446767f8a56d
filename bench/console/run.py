"""Pages of the console with much in them, against the same pages of an empty project.

`python bench/console/run.py [--models 1000] [--events 100000] [--cases 10000] [--projects 1000] [--views 3000]`

`cumulant api` is started on projects with real SQLite journals (`fill.py`) and answers over HTTP to one signed-in client.
Each page is read in turn with the empty one, so that a busy machine disturbs both alike. Printed are medians of the wall
time, the processor time of the server a page, and their ratios; and what the server's memory grows by over many views.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from fill import make_empty, make_large, make_small

PAGES = ("events", "models", "releases", "review", "data", "runs", "")
_ROUNDS, _WARM = 30, 5
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class ServerProcess(NamedTuple):
    """`cumulant api` and a client that is signed in."""

    pid: int
    client: httpx.Client

    def cpu(self) -> float:
        """Seconds of the processor up to now, of all its threads, ended ones too."""
        return time.clock_gettime((~self.pid << 3) | 2)  # the clock of another process, see clock_getcpuclockid(3)

    def settle(self) -> None:
        """Wait until the server has done what it does after its start."""
        before = -1.0
        while self.cpu() - before > 0.02:
            before = self.cpu()
            time.sleep(1)

    def memory(self) -> float:
        """Resident MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_SIZE / 2**20

    def view(self, path: str) -> float:
        """Seconds until the page has come."""
        begun = time.perf_counter()
        response = self.client.get(path)
        assert response.status_code == 200, (path, response.status_code, response.text[:500])
        return time.perf_counter() - begun


@contextmanager
def server(folders: list[Path]) -> Iterator[ServerProcess]:
    further = [argument for folder in folders[1:] for argument in ("--with", str(folder))]
    command = [sys.executable, "-m", "cumulant.cli", "api", "--project", str(folders[0]), "--json"]
    process = subprocess.Popen(
        [*command, "--http", "127.0.0.1:0", *further], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        opened = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        with httpx.Client(base_url=opened["url"], timeout=120, follow_redirects=True) as client:
            assert client.get(opened["login"], follow_redirects=False).status_code == 303
            assert client.get("/v1").status_code == 200
            yield ServerProcess(process.pid, client)
    finally:
        process.terminate()
        process.wait(60)


def compare(served: ServerProcess, pages: Mapping[str, tuple[str, str]], rounds: int) -> None:
    """By name: a full page and the empty one."""
    print(
        "| page | wall ms | empty | ratio | CPU ms | empty | ratio | first view, CPU ms | KB |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, paths in pages.items():
        before = served.cpu()
        served.view(paths[0])
        first = served.cpu() - before
        for _ in range(_WARM):
            for path in paths:
                served.view(path)
        wall: list[list[float]] = [[], []]
        cpu: list[list[float]] = [[], []]
        for _ in range(rounds):
            for place, path in enumerate(paths):
                before = served.cpu()
                wall[place] += [served.view(path) for _ in range(5)]
                cpu[place].append((served.cpu() - before) / 5)
        full, empty = (1e3 * statistics.median(times) for times in wall)
        spent, least = (1e3 * statistics.median(times) for times in cpu)
        size = len(served.client.get(paths[0]).content) / 1024
        figures = f"{full:.1f} | {empty:.1f} | {full / empty:.2f} | {spent:.1f} | {least:.1f} | {spent / least:.2f}"
        print(f"| {name} | {figures} | {1e3 * first:.0f} | {size:.0f} |", flush=True)


def measure_memory(served: ServerProcess, paths: list[str], views: int) -> None:
    for path in paths * 20:
        served.view(path)
    begin = served.memory()
    marks = []
    for number in range(views):
        served.view(paths[number % len(paths)])
        if (number + 1) % (views // 6 or 1) == 0:
            marks.append(f"{served.memory() - begin:+.1f}")
    print(f"\nmemory: {begin:.0f} MiB after the first views; over {views:,} more: {', '.join(marks)} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("models", 1_000), ("events", 100_000), ("cases", 10_000), ("projects", 1_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--views", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--folder", type=Path, help="Where the projects are, or are written; default: a temporary one.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="console-") as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "large").exists():
            begun = time.monotonic()
            make_large(folder / "large", models=options.models, events=options.events, cases=options.cases)
            make_empty(folder / "empty")
            print(f"filled in {time.monotonic() - begun:.0f} s")
        print(f"{options.models:,} model versions, {options.events:,} events, {options.cases:,} cases")
        with server([folder / "large", folder / "empty"]) as served:
            pairs = {page or "project": (f"/projects/large/{page}", f"/projects/empty/{page}") for page in PAGES}
            pairs = {name: tuple(path.rstrip("/") for path in paths) for name, paths in pairs.items()}
            pairs["events of a kind"] = tuple(f"{path}?kind=data." for path in pairs["events"])
            pairs["all models"] = ("/projects/large/models/all", "/projects/empty/models/all")
            served.settle()
            compare(served, pairs, options.rounds)
            measure_memory(served, [paths[0] for paths in pairs.values()], options.views)
        if options.projects:
            measure_overview(folder, options.projects, options.rounds)


def measure_overview(folder: Path, count: int, rounds: int) -> None:
    folders = [folder / f"many/model-{number:04d}" for number in range(count)]
    for each in folders:
        if not each.exists():
            make_small(each, each.name)
    few = folder / "few"
    if not few.exists():
        make_empty(few, "few")
    with server([few]) as served:
        served.settle()
        alone = _overview("one project", served, rounds)
    with server(folders) as served:
        before = served.cpu()
        first = served.view("/")
        print(f"first view: {served.cpu() - before:.2f} s of CPU")
        print(f"\noverview of {count:,} projects: {1e3 * first:.0f} ms for the first view")
        served.settle()
        spent = _overview(f"{count:,} projects", served, rounds)
        print(f"ratio of CPU {spent / alone:.2f}, {served.memory():.0f} MiB")


def _overview(name: str, served: ServerProcess, rounds: int) -> float:
    served.view("/")
    before = served.cpu()
    times = [served.view("/") for _ in range(5 * rounds)]
    spent = (served.cpu() - before) / len(times)
    ordered = sorted(1e3 * each for each in times)
    print(f"{name}: median {statistics.median(ordered):.1f} ms, slowest {ordered[-1]:.0f} ms, CPU {1e3 * spent:.1f} ms")
    return spent


if __name__ == "__main__":
    main()
