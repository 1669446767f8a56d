"""An image of a servable: built by buildah on a bare Debian with Python, run by podman with a read-only root."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress

import lightgbm
import numpy as np
import pytest

pytestmark = [pytest.mark.live, pytest.mark.slow]

TOKEN = "a-token-of-the-test"
#: how podman starts where the host's cgroups are not its own to divide
RUNNERS = (
    ["podman", "run", "--cgroups=disabled"],
    ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run"],
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The environment of the tools: no namespaces of their own while building."""
    for tool in ("buildah", "podman"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {tool}")
    path = tmp_path_factory.mktemp("settings") / "containers.conf"
    path.write_text('[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\n')
    return os.environ | {"BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(path), "CUMULANT_TOKEN": TOKEN}


@pytest.fixture(scope="module")
def base(settings, tmp_path_factory):
    """A base image: CUMULANT_TEST_BASE names one, else Debian's packages make one."""
    if given := os.environ.get("CUMULANT_TEST_BASE"):
        yield given
        return
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed and CUMULANT_TEST_BASE names no image: apt-get install mmdebstrap")
    archive = tmp_path_factory.mktemp("base") / "base.tar"
    packages = "--include=python3-minimal,python3-venv,ca-certificates"
    done = subprocess.run(
        ["mmdebstrap", "--variant=minbase", packages, "bookworm", str(archive)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"mmdebstrap may not work here: {done.stderr.strip()[-300:]}")
    name = f"localhost/cumulant-test-base-{os.getpid()}"
    container = ran(["buildah", "from", "scratch"], settings, "buildah may not work here").strip()
    ran(["buildah", "add", container, str(archive), "/"], settings)
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    if os.path.exists(bundle):  # the packages come through whatever this machine trusts
        ran(["buildah", "add", container, bundle, bundle], settings)
        ran(["buildah", "config", "--env", f"PIP_CERT={bundle}", container], settings)
    ran(["buildah", "commit", "--rm", container, name], settings)
    yield name
    subprocess.run(["buildah", "rmi", "--force", name], env=settings, capture_output=True, check=False)


def ran(command, settings, skip=None):
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and skip:
        pytest.skip(f"{skip}: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def image(base, settings, tmp_path_factory):
    """The image by the command, and the document that the command gave."""
    folder = tmp_path_factory.mktemp("image")
    matrix = np.random.default_rng(0).normal(size=(400, 3))
    data = lightgbm.Dataset(matrix, (matrix[:, 0] > 0).astype(int), feature_name=["a", "b", "c"])
    lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 5).save_model(folder / "late.txt")
    name = f"localhost/cumulant-test-{os.getpid()}"
    command = [sys.executable, "-m", "cumulant.cli", "package", str(folder / "late.txt"), "--image", name]
    command += ["--base", base, "--tool", "buildah", "--dockerfile", str(folder / "context"), "--json"]
    yield json.loads(ran(command, settings))
    subprocess.run(["buildah", "rmi", "--force", name], env=settings, capture_output=True, check=False)


@pytest.fixture(scope="module")
def runner(image, settings):
    """The words that run a container here."""
    faults = []
    for words in RUNNERS:
        command = [*words, "--rm", "--network=host", "--entrypoint", "/bin/true", image["image"]]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            return [*words, "--rm", "--network=host", "--read-only"]
        faults.append(done.stderr.strip()[-200:])
    pytest.skip(f"podman may not run containers here: {'; '.join(faults)}")


def get(url, body=None, token=None):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data=body and json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def server(runner, settings, image):
    """A running container: its process, and where it answers. The image's own port must be free."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8080)) == 0:
            pytest.skip("port 8080 is taken on this machine")
    command = [*runner, "--env", "CUMULANT_TOKEN", image["image"]]
    process = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = "http://127.0.0.1:8080"
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                if get(f"{url}/v2/health/ready")[0] == 200:
                    break
            time.sleep(0.1)
        assert process.poll() is None, process.stderr.read()[-2000:]
        yield process, url
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_the_image_serves_with_a_token_on_a_read_only_root_and_ends_on_sigterm(server):
    process, url = server
    assert get(f"{url}/v2/health/live")[0] == 200  # probes need no token
    row = {"a": 1.0, "b": 0.0, "c": 0.0}
    assert get(f"{url}/v1/models/late/predict", row)[0] == 401
    status, body = get(f"{url}/v1/models/late/predict", row, TOKEN)
    assert status == 200, body
    assert json.loads(body)["probability"] > 0.5
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_without_a_token_it_refuses_to_start(runner, settings, image):
    done = subprocess.run(
        [*runner, image["image"]], env=settings, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "not authenticated" in done.stderr


LOOK = """
import importlib.util, json, os, shutil, sys
def writes(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
import pyarrow.parquet, onnxruntime, grpc, cumulant.serving.log
print(json.dumps({
    "user": os.getuid(),
    "writes": [one for one in ("/x", "/app/x", "/model/x", "/usr/x", "/tmp/x") if writes(one)],
    "tools": [one for one in ("pip", "pip3", "gcc", "cc", "make", "perl") if shutil.which(one)],
    "modules": [one for one in ("pip", "setuptools", "ensurepip", "pandas", "polars", "mlflow", "onnx", "lightgbm")
                if importlib.util.find_spec(one)],
    "model": sorted(os.listdir("/model")),
}))
"""


def test_nothing_is_inside_but_what_serves(runner, settings, image):
    command = [*runner, "--entrypoint", "python3", image["image"], "-c", LOOK]
    found = json.loads(ran(command, settings))
    assert found == {
        "user": 10001,
        "writes": ["/tmp/x"],
        "tools": [],
        "modules": [],
        "model": ["model.onnx", "servable.json"],
    }


def test_the_image_says_what_it_is(settings, image):
    (found,) = json.loads(ran(["podman", "image", "inspect", image["image"]], settings))
    labels, config = found["Labels"], found["Config"]
    assert labels["org.opencontainers.image.title"] == labels["cumulant.model.name"] == "late"
    assert len(labels["cumulant.model.sha256"]) == 64
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert found["Size"] < 600 * 2**20
    assert found["Id"].removeprefix("sha256:") == image["image_id"].removeprefix("sha256:")
