"""The program: it starts with nothing but its own parts, answers, drains, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from serving_models import ROW, SALT, WINDOWED, fill_state, flights, servable, windowed_model

from cumulant.core.errors import UsageError
from cumulant.serving.workers.server import bind, split_address

BLOCKED = {
    "fastapi",
    "httpx",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "onnx",
    "optuna",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "rich",
    "ruamel",
    "scipy",
    "skl2onnx",
    "sklearn",
    "starlette",
    "typer",
    "yaml",
}
WALLED = f"""
    import runpy, sys

    class Wall:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {BLOCKED!r} or name.startswith(("cumulant.project", "cumulant.flows")):
                raise ImportError(f"{{name}} is not here")

    sys.meta_path.insert(0, Wall())
    sys.argv = ["serving", *sys.argv[1:]]
    runpy.run_module("cumulant.serving", run_name="__main__")
"""
PREDICT = "/v1/models/flight-late/predict"


@contextmanager
def program(*arguments):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WALLED), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def run(*arguments):
    command = [sys.executable, "-m", "cumulant.serving", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("program") / "servable")


def test_a_server_without_the_rest_of_the_world(folder, tmp_path):
    ready_file = tmp_path / "ready.json"
    with program(folder, "--http", "127.0.0.1:0", "--ready-file", ready_file) as (process, ready):
        assert ready == json.loads(ready_file.read_text())
        assert ready["models"] == [["flight-late", "1"]]
        assert ready["pid"] == process.pid
        with httpx.Client(base_url=ready["url"]) as client:
            assert client.post(PREDICT, json=ROW).json()["prediction"] in {True, False}
            # One connection outlives every kind of refusal.
            for content, status in ((b"{", 400), (b"x" * 9_000_000, 413), (b"{}", 400)):
                assert client.post(PREDICT, content=content).status_code == status
            assert client.post("/v1/models/other/predict", json=ROW).status_code == 404
            assert client.post(PREDICT, json=[ROW] * 1000).status_code == 200
            assert client.head("/v2/health/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


def test_a_claimed_gigabyte_is_refused_at_once(folder):
    with program(folder, "--http", "127.0.0.1:0", "--body-limit", "1MiB") as (_, ready):
        host, port = ready["url"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"not http at all\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")
        assert httpx.get(f"{ready['url']}/v2/health/live").status_code == 200


def test_requests_that_were_accepted_are_answered_while_it_drains(folder):
    with program(folder, "--http", "127.0.0.1:0") as (process, ready):
        host, port = ready["url"].removeprefix("http://").split(":")
        body = json.dumps(ROW).encode()
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            connection.sendall(head + body[:10])
            httpx.get(f"{ready['url']}/v2/health/live")  # by now the first request's head was read
            process.send_signal(signal.SIGTERM)
            later = threading.Timer(0.3, connection.sendall, (body[10:],))
            later.start()
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            later.join()
        assert process.wait(timeout=60) == 0


def test_stored_features_are_added_and_their_age_is_told(tmp_path):
    from cumulant.drivers.local.online import SqliteOnline
    from cumulant.features.offline.offline import compute

    history = flights(300)
    url = f"sqlite://{tmp_path / 'online.db'}"
    store = SqliteOnline(url)
    fill_state(store, WINDOWED, {"flights": history.lazy()}, table="flight-late-state")
    store.close()
    model = windowed_model()
    expected = model.predict_frame(compute(WINDOWED, {"flights": history.lazy()}))
    features = {"hour": [1, 2], "late_1d": [0.5, None]}
    folder = servable(tmp_path / "servable", plan=WINDOWED, model=model, sample=features)
    rows = [
        {
            "distance": row["distance"],
            "sched_dep": row["sched_dep"].isoformat(),
            "carrier": row["carrier"],
            "tail": row["tail"],
        }
        for row in history.iter_rows(named=True)
    ]
    place = install_driver(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place))
        patch.setenv("CUMULANT_SALT", SALT.decode())
        with program(folder, "--http", "127.0.0.1:0", "--online", f"testlite{url.removeprefix('sqlite')}") as (
            _,
            ready,
        ):
            answers = httpx.post(ready["url"] + PREDICT, json=rows, timeout=30).json()["predictions"]
    assert max(abs(a["probability"] - e) for a, e in zip(answers, expected, strict=True)) < 1e-12
    ages = [answer.get("state_age") for answer in answers]
    assert ages[0] is None
    assert ages[-1] is None  # its carrier is unknown
    assert 0 <= ages[-2] <= 3600


def install_driver(tmp_path):
    """A package of somebody else whose entry point is a driver: the door by which every driver comes in."""
    place = tmp_path / "site"
    info = place / "testlite-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: testlite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cumulant.drivers]\ntestlite = cumulant.drivers.local.driver:sqlite\n")
    return place


def test_what_is_wrong_is_said_in_one_line(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(folder, "--http", f"127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"error: 127.0.0.1:{port} is already in use; stop what listens there")
    assert done.stderr.count("\n") == 1
    for arguments, code, words in (
        ((tmp_path / "none",), 2, "holds no servable"),
        ((folder, "--http", "0.0.0.0:0"), 2, "--insecure"),
        ((folder, "--http", "8080"), 2, "HOST:PORT"),
        ((folder, "--http", "127.0.0.1:0", "--online", "nosuch://x"), 2, 'no driver for "nosuch://" is installed'),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1)
        assert words in done.stderr


def test_a_servable_that_was_altered_is_not_served(tmp_path):
    out = servable(tmp_path / "servable")
    with (out / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    done = run(out, "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert "altered" in done.stderr


def test_a_model_with_stored_features_needs_a_store(tmp_path):
    features = {"hour": [1], "late_1d": [0.5]}
    out = servable(tmp_path / "servable", plan=WINDOWED, model=windowed_model(), sample=features)
    done = run(out, "--http", "127.0.0.1:0")
    assert (done.returncode, "--online" in done.stderr) == (2, True)


def test_help_needs_no_engine():
    code = "import sys; from cumulant.serving.__main__ import _parser; _parser().format_help(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert run("--help").returncode == 0


def test_addresses():
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:0") == ("::1", 0)
    for text in ("", "80", ":80", "host:", "host:x", "host:70000"):
        with pytest.raises(UsageError):
            split_address(text)
    with pytest.raises(UsageError, match="from other machines"):
        bind("192.0.2.1", 0)
    with bind("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
    with bind("0.0.0.0", 0, insecure=True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with pytest.raises(UsageError, match="no address"):
        bind("no such host", 0, insecure=True)


def test_serve_in_a_thread_of_a_notebook_s_process(folder):
    """Without signals: the caller's handlers stay, and the server ends with its process."""
    code = f"""
        import threading, queue, httpx
        from cumulant.serving.workers.server import serve
        heard = queue.Queue()
        thread = threading.Thread(target=serve, args=([{str(folder)!r}], "127.0.0.1", 0), daemon=True,
                                  kwargs={{"announce": heard.put}})
        thread.start()
        print(httpx.get(heard.get(timeout=20).url + "/v2/health/ready").json())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "{'ready': True}", done.stderr


def test_the_process_leaves_nothing_behind(folder):
    with program(folder, "--http", "127.0.0.1:0") as (process, ready):
        port = int(ready["url"].rpartition(":")[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                break
    else:
        pytest.fail("the port still answers")
    assert not os.path.exists(f"/proc/{process.pid}/fd")
