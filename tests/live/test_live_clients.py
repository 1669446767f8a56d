"""The clients that users of the Open Inference Protocol have, unmodified, against two workers of a real server."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "unit" / "serving"))

from serving_models import servable  # noqa: E402
from tensor_models import write_double, write_mixed, write_scores, write_sums  # noqa: E402

from cumulant.core.servable import Reasons  # noqa: E402

pytestmark = pytest.mark.live

TOKEN = "a-token-of-the-test"
CHECKS = {
    "triton_checks.py": (
        "triton_over_grpc",
        "triton_async_and_streams",
        "triton_aio",
        "triton_over_http",
        "triton_control",
        "triton_sequences",
        "triton_classes",
        "triton_shared_memory",
    ),
    "kserve_checks.py": ("kserve_over_grpc", "kserve_over_http"),
}


def clients():
    """A Python that has the clients: they pin an older protobuf, so they have an environment of their own."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        python = Path(folder) / "python"
        if python.exists() and _has_clients(python):
            return python
    return None


def _has_clients(python):
    look = "import importlib.util as u, sys; sys.exit(not (u.find_spec('tritonclient') and u.find_spec('kserve')))"
    return subprocess.run([python, "-c", look], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    late = servable(root / "flight-late", reasons=Reasons(reference={"distance": 800.0, "hour": 9.0, "carrier": "AA"}))
    folders = [
        write_mixed(root / "mixed"),
        write_double(root / "double"),
        late,
        write_sums(root / "sums"),
        write_scores(root / "scores"),
    ]
    options = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--workers", "2", "--model-control", "explicit"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cumulant.serving", *map(str, folders), *options, "--queue", "5s"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUMULANT_TOKEN": TOKEN},
    )
    try:
        yield json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def said(server):
    python = clients()
    if python is None:
        pytest.skip(
            "no tritonclient and kserve: python -m venv .engines && "
            '.engines/bin/pip install "tritonclient[all]" kserve, and put .engines/bin on PATH'
        )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    address = server["url"].removeprefix("http://"), server["grpc"], TOKEN
    return {
        script: subprocess.run(
            [python, HERE / script, *address], capture_output=True, text=True, timeout=300, check=False, env=environment
        )
        for script in CHECKS
    }


@pytest.mark.parametrize(("script", "check"), [(script, check) for script in CHECKS for check in CHECKS[script]])
def test_an_unmodified_client_works(said, script, check):
    assert check in said[script].stdout.split(), said[script].stderr[-3000:]
