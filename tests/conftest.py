"""What holds for every test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

# A test process that has spoken gRPC forks children of its own later: gRPC's handlers would write into their logs
# between fork and exec. Read when gRPC is first imported, which no test module may do before this file.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Where the environment keeps no compiled modules, each process of a test would compile them anew.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / "cumulant-e2e-compiled"))

# Tests run beside each other: threads that wait for each other in a loop keep the processors from those that compute.
# OpenMP's threads stay as many as they are, and sleep soon; products of matrices are small here.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What a server keeps for its user is no part of the home of whoever runs the tests.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / "cumulant-e2e-cache")

# On a busy machine an example may take any time, and so may making one.
settings.register_profile("tests", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_xdist_auto_num_workers() -> int:
    """Workers of `-n auto`: more than processors, as tests also wait for servers, disks and clocks."""
    given = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", "")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdecimal() else processors + min(processors, 4)
