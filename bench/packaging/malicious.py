"""Malicious and broken model files through `package`, a server's trial and `restore`: each is refused with a message.

    nice -n 10 python bench/packaging/malicious.py [--every 1] [--only WORDS] [--processes 2] [--list]

The files are made the same way each time. Each goes through the real command in a process that is ended where it takes
longer than `--limit` seconds. A file that was changed by chance may still be a sound model: then its answers are compared with
those of the library that made it. Prints every violation (an unexpected error, code that ran, a file left behind or
changed, control characters in the output, more than 1 GiB of memory) and the counts; exit code 1 where there is one. A run
of a graph may take 5 s here and not 60, and reading it 40 s and not 120, so that loops without an end cost less.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from hostile import graphs, pickles, places, trees
from hostile.case import Case

#: MiB of memory after which a process is started again
_FRESH = 500
#: addresses of a process: a bound on what a file could do to the machine that this runs on
_ADDRESSES = 6 << 30
_SERVED = ("run: ", "answers: ", "operator ", "graph: ", "initializer: ", "ONNX with bits changed")


def all_cases() -> list[Case]:
    served = places.served(one for one in graphs.cases() if one.name.startswith(_SERVED))
    found = list(chain(pickles.cases(), graphs.cases(), trees.cases(), places.cases(), served))
    assert len({one.name for one in found}) == len(found), [
        n for n, c in Counter(one.name for one in found).items() if c > 1
    ]
    return found


def work(root: Path) -> None:
    """Take the numbers of cases from standard input, answer with lines of JSON."""
    from hostile.judging import judged

    import cumulant.packaging.convert.trial_run as trial
    import cumulant.servable.bounded_run as bounded

    bounded.BASE_SECONDS, trial.SECONDS = 5.0, 40
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    answers, cases = os.fdopen(os.dup(1), "w"), all_cases()
    for line in sys.stdin:
        case, place = cases[int(line)], root / line.strip()
        result = judged(case, place)
        os.chdir(root)
        subprocess.run(["chmod", "-R", "u+rwx", str(place)], check=False, capture_output=True)
        shutil.rmtree(place, ignore_errors=True)
        answers.write(json.dumps(result) + "\n")
        answers.flush()


class Worker:
    """A process that runs cases one after the other; started again where one ended it."""

    def __init__(self, root: Path, limit: float) -> None:
        self._root, self._limit = root, limit
        self._process: subprocess.Popen[str] | None = None

    def run(self, number: int, case: Case) -> dict[str, Any]:
        if self._process is None:
            line = [sys.executable, __file__, "--worker", str(self._root)]
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        process, began = self._process, time.perf_counter()
        timer = threading.Timer(self._limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        timer.cancel()
        if line:
            result = json.loads(line)
            if result["memory"] > _FRESH:  # what it starts would count with its own peak
                self.close()
            return result
        seconds = time.perf_counter() - began
        error = process.communicate()[1][-600:]
        self._process = None
        fault = (
            f"no end in {self._limit:g} s"
            if seconds >= self._limit
            else f"ended the process with {process.returncode}: {error}"
        )
        return {
            "case": case.name,
            "code": None,
            "words": "",
            "seconds": round(seconds, 2),
            "processor": 0.0,
            "memory": 0,
            "faults": [fault],
        }

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def run_all(chosen: list[tuple[int, Case]], processes: int, limit: float) -> list[dict[str, Any]]:
    waiting: queue.SimpleQueue[tuple[int, Case]] = queue.SimpleQueue()
    for one in chosen:
        waiting.put(one)
    results: list[dict[str, Any]] = []

    def serve(worker: Worker) -> None:
        while True:
            try:
                number, case = waiting.get_nowait()
            except queue.Empty:
                return worker.close()
            results.append(worker.run(number, case))
            for fault in results[-1]["faults"]:
                print(f"VIOLATION {case.name}: {fault} | {results[-1]['words'][:160]!a}", flush=True)

    with tempfile.TemporaryDirectory() as root:
        threads = [threading.Thread(target=serve, args=(Worker(Path(root), limit),)) for _ in range(processes)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    return results


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="run one case of so many")
    parser.add_argument("--only", default="", help="run cases with these words in their name")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=180, help="seconds for one file")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path, help="write every result to this file, a line of JSON each")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    chosen = [one for one in enumerate(all_cases()) if options.only in one[1].name][:: options.every]
    if options.list:
        print("\n".join(f"{number} {case.command} {case.name!a}" for number, case in chosen))
        return 0
    results = run_all(chosen, options.processes, options.limit)
    if options.out:
        options.out.write_text("".join(json.dumps(one) + "\n" for one in results))
    codes = Counter(one["code"] for one in results)
    bad = sum(bool(one["faults"]) for one in results)
    print(
        f"{len(results)} files: {codes[0]} accepted, {sum(codes[n] for n in (1, 2, 3, 4))} refused, {bad} with a violation"
    )
    slow, large = (max(one[key] for one in results) for key in ("seconds", "memory"))
    print(f"slowest {slow:g} s; processor {sum(one['processor'] for one in results):.0f} s; largest peak {large} MiB")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
