"""What holds for every test."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from itertools import accumulate
from pathlib import Path

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# A test process that has spoken gRPC forks children of its own later: gRPC's handlers would write into their logs
# between fork and exec. Read when gRPC is first imported, which no test module may do before this file.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Where the environment keeps no compiled modules, each process of a test would compile them anew, and each process of
# pytest would rewrite the assertions of all tests.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False

# PySpark, where it is installed and MLflow imports it, takes a process for one of its own tests and ends it where the
# main module has no name, as in a worker of xdist. Multiprocessing imports no module of such a name.
if (main_module := sys.modules["__main__"]).__spec__ is None:
    main_module.__spec__ = ModuleSpec("pytest.__main__", None)

# Tests run beside each other: threads that spin while they wait keep the processors from those that compute. OpenMP's
# threads stay as many as they are and spin for a short time, a tenth of what commands set; products of matrices are
# small here.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What a server keeps for its user is no part of the home of whoever runs the tests.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / "cumulant-e2e-cache")

# On a busy machine an example may take any time, and so may making one.
settings.register_profile("tests", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Hypothesis would look for values to try in the sources of the package, which in a new checkout takes each process of
# the suite five seconds; and which values a test tries would depend on what its process has imported.
providers.is_local_module_file = lambda _: False  # type: ignore[attr-defined]

# httpx waits for 5 s where a call names no timeout; a server that starts a process to answer may take longer.
for phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, phase, 30.0)


#: names of the test files that take longest, in this order. They start first, so that no worker runs one of them alone
#: at the end; a file that is missing here or in a wrong place costs only time.
LONGEST = (
    "test_live_image",
    "test_live_machines",
    "test_e2e_stack",
    "test_live_console_stack",
    "test_live_gateways",
    "test_e2e_flights",
    "test_e2e_watch",
    "test_e2e_watch_recovery",
    "test_live_flink",
    "test_e2e_release_faults",
    "test_data_large_files",
    "test_data_packs",
    "test_live_valkey_online",
    "test_live_postgres",
    "test_e2e_kinds",
    "test_server_commands",
    "test_faults_fleet",
    "test_wrong_code",
    "test_e2e_batch",
    "test_e2e_recovery",
    "test_runtime_added_rows",
    "test_e2e_compute",
    "test_e2e_release",
    "test_e2e_hosts",
    "test_e2e_demo_fraud",
    "test_conformance_envoy",
    "test_wrong_sources",
    "test_features_conformance",
    "test_live_envoy",
    "test_live_postgres_project",
    "test_server_schemathesis",
    "test_live_worker",
    "test_e2e_watch_kinds",
    "test_e2e_restart",
    "test_live_kafka",
    "test_server_writes",
    "test_faults_processes",
    "test_data_repeats",
    "test_training_search",
    "test_live_clouds",
    "test_live_objectstore",
    "test_watching_days",
)
#: objects more than before, and collections of those, after which garbage is collected: with Python's own numbers, of which
#: the first is 700, that is a tenth of the processor time of tests that compute in Python
GARBAGE = 20_000, 20, 20
#: as many times as another slow file one of these takes
_LENGTH = 4


#: what selects the fast tests and all others, as tools/run_tests.py and the Makefile write it
FAST, OTHERS = "not slow and not live", "slow or live"
_MARK = re.compile(r"pytest\.mark\.(?:slow|live)\b")
_MARK_OF_MODULE = re.compile(r"^pytestmark = \[?pytest\.mark\.(?:slow|live)\b", re.MULTILINE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files; with --no-loadscope-reorder, xdist assigns them in this order.

    Slow files outside of `unit` mostly wait, and the others compute: each worker gets some of both all the time, so that
    the processors are never without work. The longest files come first, and the last tenth is of short ones.
    """
    counts = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("live")}
    places = _places(counts, {path for path in slow if "unit" not in path.parts})
    items.sort(key=lambda item: (places[item.path], str(item.path)))


def _places(counts: Mapping[Path, int], slow: Collection[Path]) -> dict[Path, float]:
    """Where each file comes, from 0 to 1, by the number of its tests and whether it is among those that wait."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    waiting = sorted(
        (path for path in counts if path in slow or path.stem in rank),
        key=lambda path: (rank.get(path.stem, len(rank)), -counts[path], str(path)),
    )
    computing = sorted(counts.keys() - set(waiting), key=lambda path: (-counts[path], str(path)))
    end = 0.9 if slow else 1e-6  # of the fast tests alone, the few long files are done first
    lengths = [_LENGTH if path.stem in rank else 1 for path in waiting]
    return _spread(waiting, lengths, end) | _spread(computing, [counts[path] for path in computing], 1.0)


def _spread(paths: Sequence[Path], lengths: Sequence[int], end: float) -> dict[Path, float]:
    """Each file where those before it end, the last one at `end`."""
    total = sum(lengths)
    return {path: end * before / total for path, before in zip(paths, accumulate(lengths, initial=0), strict=False)}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules out of which `-m` would deselect every test: importing all of them takes each process 10 seconds."""
    return None if _may_be_selected(collection_path, str(config.option.markexpr)) else True


def _may_be_selected(path: Path, expression: str) -> bool:
    if expression not in (FAST, OTHERS) or not path.match("test_*.py"):
        return True
    text = path.read_text(encoding="utf-8")
    return _MARK_OF_MODULE.search(text) is None if expression == FAST else _MARK.search(text) is not None


def pytest_xdist_auto_num_workers() -> int:
    """Workers of `-n auto`: more than processors, as tests also wait for servers, disks and clocks.

    A worker takes up to 0.8 GB, and what its test starts as much again.
    """
    given = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", "")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdecimal() else min(processors + min(processors + 1, 4), max(2, _memory() // 2**31))


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect with the garbage collector off: what is made here lives as long as the process."""
    gc.disable()
    _import_own_part(session.config)
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        gc.enable()


def _import_own_part(config: pytest.Config) -> None:
    """Import each nth test module before a worker of n imports all: rewritten assertions are kept as files, and where
    none are kept yet, all workers would rewrite all modules at the same moment.
    """
    given: dict[str, object] = getattr(config, "workerinput", {})
    if not given:
        return
    number, workers = int(str(given["workerid"]).removeprefix("gw")), int(str(given["workercount"]))
    folders = [Path(argument) for argument in config.args if Path(argument).is_dir()]
    tests = {path for folder in folders for path in folder.absolute().rglob("test_*.py")}
    modules = sorted(path for path in tests if _may_be_selected(path, str(config.option.markexpr)))
    for path in modules[number::workers]:
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        with contextlib.suppress(Exception, pytest.skip.Exception):  # collecting imports it again, and reports
            importlib.import_module(path.stem)
