"""An image of a servable: built by buildah on a bare Debian with Python, run by podman with a read-only root."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress

import grpc
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
    folder = tmp_path_factory.mktemp("settings")
    path, storage = folder / "containers.conf", folder / "storage.conf"
    path.write_text('[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]\n')
    environment = {"BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(path), "CUMULANT_TOKEN": TOKEN}
    if "CUMULANT_TEST_BASE" not in os.environ:  # layers of this test stay among themselves
        roots = f'graphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
        storage.write_text(f'[storage]\ndriver = "overlay"\n{roots}')
        environment["CONTAINERS_STORAGE_CONF"] = str(storage)
    # the form that keeps HEALTHCHECK
    yield os.environ | environment | {"BUILDAH_FORMAT": "docker"}
    shutil.rmtree(folder / "images", ignore_errors=True)


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
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
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
    command += ["--options", "--grpc 0.0.0.0:8081 --log /log"]
    yield json.loads(ran(command, settings))
    subprocess.run(["buildah", "rmi", "--force", name], env=settings, capture_output=True, check=False)


@pytest.fixture(scope="module")
def runner(image, settings):
    """The words that run a container here."""
    faults = []
    for words in RUNNERS:
        command = [*words, "--rm", "--network=host", "--entrypoint", "python3", image["image"], "-c", "pass"]
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
def log(tmp_path):
    """A folder that the image's user may write."""
    folder = tmp_path / "log"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


#: of the container, so that it can be spoken of
NAME = f"cumulant-test-{os.getpid()}"


@pytest.fixture
def server(runner, settings, image, log):
    """A running container: its process, and where it answers. The image's own ports must be free."""
    for port in (8080, 8081):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} is taken on this machine")
    # What the command printed, with the words that let a container run here.
    program, verb, *words = shlex.split(image["run"])
    assert (program, verb) == ("podman", "run")
    command = [*runner, "--name", NAME, *words]
    process = subprocess.Popen(
        command, env=settings, cwd=log.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
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
        process.communicate(timeout=90)


def over_grpc(path):
    """The answer's bytes to an empty message."""
    with grpc.insecure_channel("127.0.0.1:8081") as channel:
        ask = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        return ask(b"", metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=10)


def test_the_image_serves_with_a_token_on_a_read_only_root_and_ends_on_sigterm(server, runner, settings, image, log):
    process, url = server
    assert get(f"{url}/v2/health/live")[0] == 200  # probes need no token
    row = {"a": 1.0, "b": 0.0, "c": 0.0}
    assert get(f"{url}/v1/models/late/predict", row)[0] == 401
    status, body = get(f"{url}/v1/models/late/predict", row, TOKEN)
    assert status == 200, body
    answer = json.loads(body)
    assert answer["probability"] > 0.5
    assert (
        over_grpc("/inference.GRPCInferenceService/ServerReady")
        == over_grpc("/grpc.health.v1.Health/Check")
        == b"\x08\x01"
    )
    (found,) = json.loads(ran(["podman", "image", "inspect", image["image"]], settings))
    assert ran([sys.executable, *found["Healthcheck"]["Test"][2:]], settings) == ""
    # Not to `podman run` itself, which loses a signal while it is still about to begin its health checks.
    ran([*runner[: runner.index("run")], "stop", "--time", "60", NAME], settings)
    process.communicate(timeout=90)
    assert process.returncode == 0, "it was killed, or failed"
    words = ["--volume", f"{log}:/log", "--entrypoint", "python3", image["image"], "-m", "cumulant.cli"]
    (told,) = json.loads(ran([*runner, *words, "predictions", "list", "--log", "/log", "--json"], settings))
    assert (told["id"], told["model"]) == (answer["request_id"], "late")


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
import pyarrow.parquet, onnxruntime, grpc, cumulant.serving.prediction_log
print(json.dumps({
    "user": os.getuid(),
    "writes": [one for one in ("/x", "/app/x", "/model/x", "/usr/x", "/tmp/x") if writes(one)],
    "tools": [one for one in ("pip", "pip3", "gcc", "cc", "make", "perl", "sh", "bash", "apt") if shutil.which(one)],
    "modules": [one for one in ("pip", "setuptools", "ensurepip", "pandas", "polars", "mlflow", "onnx", "lightgbm",
                            "numpy.f2py", "onnxruntime.transformers") if importlib.util.find_spec(one)],
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
    assert list(config["ExposedPorts"]) == ["8080/tcp", "8081/tcp"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["cumulant.servable.sha256"]) == 64
    assert found["Size"] < 300 * 10**6
    assert found["Id"].removeprefix("sha256:") == image["image_id"].removeprefix("sha256:")
