"""What may end a worker, or keep one from starting again, costs nobody else anything. Real processes, real signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import pytest
from serving_graphs import scale
from test_faults_processes import CONTENT, HEAD, address, within, workers
from test_serving_fleet import BODY, INFER, children, metric, serving

from cumulant.core.errors import EngineUnavailableError, IntegrityError, UsageError
from cumulant.serving import content_pins
from cumulant.serving.content_pins import copy_content, pin
from cumulant.serving.models.artifact_cache import artifact_folder
from cumulant.serving.models.control import open_pinned
from cumulant.serving.models.model import open_model
from cumulant.serving.prediction_log.storage.log_reader import recent_predictions
from cumulant.serving.settings import Settings
from cumulant.serving.workers import supervisor
from cumulant.serving.workers.event_loops import restore_signals
from cumulant.serving.workers.load_check import LoadCheck
from cumulant.serving.workers.worker import Worker
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow

LOAD = "/v2/repository/models/graph/load"
#: any process that reads a model beside a file `hostile` ends as if the engine had crashed
CRASH = """
import os, signal, sys, time

def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith("model.onnx"):
        if os.path.exists(os.path.join(os.path.dirname(str(arguments[0])), "hostile")):
            os.kill(os.getpid(), signal.SIGSEGV)
        if os.path.exists(os.path.join(os.path.dirname(str(arguments[0])), "endless")):
            time.sleep(60)

sys.addaudithook(look)
"""


@pytest.fixture
def hostile(tmp_path):
    """The environment in which models can be hostile."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(CRASH)
    paths = [str(tmp_path / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def repository(tmp_path):
    scale(tmp_path / "models" / "graph", 2.0)
    return tmp_path / "models"


def answers(url, times=16):
    """What is answered, each time on a connection of its own, so that every worker answers some."""
    return {httpx.post(url + INFER, json=BODY, timeout=20).json()["outputs"][1]["data"][0] for _ in range(times)}


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_that_crashes_its_process_is_refused_and_the_old_one_serves_on(repository, hostile, count):
    with serving(repository, "--workers", count, "--model-control", "explicit", env=hostile) as (process, ready):
        before = children(process)
        scale(repository / "graph", 3.0)
        (repository / "graph" / "hostile").touch()
        refused = httpx.post(ready["url"] + LOAD, timeout=60)
        assert refused.status_code == 400
        assert "SIGSEGV" in refused.json()["error"]
        assert (process.poll(), children(process)) == (None, before)
        assert answers(ready["url"]) == {12.0}
        (repository / "graph" / "hostile").unlink()
        assert httpx.post(ready["url"] + LOAD, timeout=60).status_code == 200
        assert answers(ready["url"]) == {18.0}


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_starts_without_the_model_that_crashes_its_process(repository, hostile, count):
    for name in ("a", "z"):
        scale(repository / name, name=name)
        (repository / name / "hostile").touch()
    with serving(repository, "--workers", count, env=hostile) as (process, ready):
        assert ready["models"] == [["graph", "1"]]
        assert answers(ready["url"]) == {12.0}
        if count > 1:
            assert metric(ready["url"], "cumulant_worker_starts_total") == count
        process.terminate()
        assert process.wait(timeout=60) == 0
        said = process.stderr.read()
    for name in ("a", "z"):
        assert f"{repository / name} cannot be loaded: the process that tried it was ended by SIGSEGV" in said


def test_nothing_is_served_where_every_model_crashes(tmp_path, hostile, monkeypatch):
    for name in ("a", "b"):
        scale(tmp_path / "models" / name, name=name)
        (tmp_path / "models" / name / "hostile").touch()
    monkeypatch.setenv("PYTHONPATH", hostile["PYTHONPATH"])
    with pytest.raises(Exception, match="SIGSEGV"):
        LoadCheck(Settings(folders=(str(tmp_path / "models"),))).check_all()


def test_models_that_do_not_get_ready_are_ended_each_at_its_limit(tmp_path, hostile, monkeypatch):
    for name in ("a", "b"):
        scale(tmp_path / "models" / name, name=name)
        (tmp_path / "models" / name / "endless").touch()
    monkeypatch.setenv("PYTHONPATH", hostile["PYTHONPATH"])
    trial = LoadCheck(Settings(folders=(str(tmp_path / "models"),)), seconds=1)
    with pytest.raises(UsageError, match=r"b cannot be loaded: .* was not ready within 1 s"):
        trial.check_all()
    assert trial.left_out.keys() == {str(tmp_path / "models" / "a")}


def half_written(folder):
    (folder / "servable.json").write_bytes((folder / "servable.json").read_bytes()[:40])


def corrupt(folder):
    (folder / "model.onnx").write_bytes(b"nothing")


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_starts_without_broken_servables_and_says_which(repository, count):
    for name, breaks in (("a", half_written), ("z", corrupt)):
        breaks(scale(repository / name, name=name))
    with serving(repository, "--workers", count, "--model-control", "explicit") as (process, ready):
        assert ready["models"] == [["graph", "1"]]
        assert answers(ready["url"]) == {12.0}
        listed = {one["name"]: one for one in httpx.post(ready["url"] + "/v2/repository/index").json()}
        assert [listed[name]["state"] for name in ("graph", "a", "z")] == ["READY", "UNAVAILABLE", "UNAVAILABLE"]
        assert "servable.json" in listed["a"]["reason"]
        assert "model.onnx" in listed["z"]["reason"]
        scale(repository / "z", name="z")
        assert httpx.post(ready["url"] + "/v2/repository/models/z/load", timeout=60).status_code == 200
        process.terminate()
        assert process.wait(timeout=60) == 0
        said = process.stderr.read().splitlines()
    for name in ("a", "z"):
        assert any(str(repository / name) in line and line.endswith("the server starts without it") for line in said)


def test_a_single_broken_servable_and_several_of_them_do_not_start(tmp_path):
    corrupt(scale(tmp_path / "models" / "a", name="a"))
    trial = LoadCheck(Settings(folders=(str(tmp_path / "models"),)))
    with pytest.raises(IntegrityError):
        Worker(Settings(folders=(str(tmp_path / "models"),)), pins=trial.check_all())
    half_written(scale(tmp_path / "models" / "b", name="b"))
    with pytest.raises(IntegrityError):
        trial.check_all()


def test_a_load_of_what_broke_while_it_is_served_says_what_is_wrong(repository):
    scale(repository / "folder", name="other")
    with serving(repository, "--model-control", "explicit") as (_, ready):
        for folder, name in (("graph", "graph"), ("folder", "other")):
            half_written(repository / folder)
            refused = httpx.post(ready["url"] + f"/v2/repository/models/{name}/load", timeout=60)
            assert (refused.status_code, "servable.json" in refused.json()["error"]) == (400, True)
        assert answers(ready["url"]) == {12.0}
        given = httpx.post(ready["url"] + LOAD, json={"parameters": {"config": "{}"}}, timeout=60)
        assert (given.status_code, "takes no parameters" in given.json()["error"]) == (400, True)


def written_over(folder, factor):
    """Another content in the very same files, as `cp` does it."""
    draft = scale(folder.parent.parent / "draft", factor)
    for name in ("model.onnx", "servable.json"):
        shutil.copyfile(draft / name, folder / name)


def removed(folder, _):
    shutil.rmtree(folder)


@pytest.mark.parametrize("change", [scale, written_over, removed])
def test_a_worker_that_starts_again_serves_what_the_others_do_whatever_the_disk_holds(repository, change):
    with serving(repository, "--workers", 2, "--model-control", "explicit") as (process, ready):
        for factor, served in ((3.0, 12.0), (4.0, 18.0)):
            change(repository / "graph", factor)
            victim = children(process)[0]
            os.kill(victim, signal.SIGKILL)
            within(60, lambda gone=victim: gone not in children(process) and workers(ready["url"]) == 2)
            for _ in range(2):  # whichever of the two is left
                assert answers(ready["url"]) == {served}
                time.sleep(0.5)
            assert metric(ready["url"], "cumulant_worker_starts_total") == (3 if served == 12.0 else 4)
            scale(repository / "graph", 3.0)
            assert httpx.post(ready["url"] + LOAD, timeout=60).status_code == 200
            assert answers(ready["url"]) == {18.0}


def test_content_that_was_not_kept_is_served_only_while_it_is_the_same(tmp_path):
    pinned = pin(scale(tmp_path / "graph", 2.0))
    open_pinned(pinned, open_model).close()
    scale(tmp_path / "graph", 3.0)
    with pytest.raises(IntegrityError, match="no longer holds the content that is served"):
        open_pinned(pinned, open_model)


def test_kept_content_that_was_damaged_is_kept_anew(tmp_path):
    folder, place = scale(tmp_path / "graph"), tmp_path / "kept"
    place.mkdir()
    kept = copy_content(pin(folder), place)
    with (kept.place / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    assert copy_content(pin(folder), place) == kept
    open_pinned(kept, open_model).close()
    assert [one.name for one in place.iterdir()] == [kept.digest]


def test_content_that_another_worker_has_just_kept_is_not_taken_away(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    wanted = pin(scale(tmp_path / "model"))
    link = content_pins._link

    def slowly(path, out):
        if not (tmp_path / "kept" / wanted.digest).exists():
            monkeypatch.setattr(content_pins, "_link", link)
            copy_content(wanted, tmp_path / "kept")
        link(path, out)

    monkeypatch.setattr(content_pins, "_link", slowly)
    place = tmp_path / "kept" / wanted.digest
    opened = []
    monkeypatch.setattr(content_pins, "check", lambda one: opened.append(place.stat().st_ino))
    assert copy_content(wanted, tmp_path / "kept").copy == str(place)
    assert len(opened) == 2
    assert len(set(opened)) == 1
    assert [one.name for one in (tmp_path / "kept").iterdir()] == [wanted.digest]


def test_workers_that_do_not_come_to_answer_are_told_of_in_words(tmp_path, hostile, monkeypatch):
    folder = scale(tmp_path / "model")
    (folder / "endless").touch()
    monkeypatch.setenv("PYTHONPATH", hostile["PYTHONPATH"])
    monkeypatch.setattr(supervisor, "_START_SECONDS", 1.0)
    monkeypatch.setattr(supervisor, "_FAREWELL_SECONDS", 0.1)
    settings = Settings(folders=(str(folder),), host="127.0.0.1", port=0, workers=2, drain=-5.0)
    with restore_signals(), pytest.raises(EngineUnavailableError, match="did not answer within 1 s"):
        asyncio.run(supervisor.WorkerSupervisor(settings, [pin(folder)]).run(lambda _: None))


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_kept_is_not_taken_from_outside_the_repository(tmp_path, count):
    folder, outside = scale(tmp_path / "models" / "graph"), tmp_path / "outside.onnx"
    (folder / "model.onnx").rename(outside)
    (folder / "model.onnx").symlink_to(outside)
    line = [sys.executable, "-m", "cumulant.serving", str(tmp_path / "models"), "--http", "127.0.0.1:0"]
    ended = subprocess.run(
        [*line, "--workers", str(count)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 1
    assert "leads out of the repository" in ended.stderr


def test_a_disk_without_room_is_said(tmp_path, capfd):
    pinned = pin(scale(tmp_path / "graph"))
    assert copy_content(pinned, tmp_path / "graph" / "model.onnx") == pinned
    assert "is served without a copy" in capfd.readouterr().err


def test_what_a_killed_server_kept_is_removed_and_what_a_living_one_keeps_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, young = tmp_path / "cumulant-kept-dead", tmp_path / "cumulant-kept-young"
    with artifact_folder() as living:
        for folder in (dead, young):
            folder.mkdir()
        for folder in (dead, living):
            os.utime(folder, (0, 0))
        with artifact_folder() as other:
            assert not dead.exists()
            assert all(Path(one).is_dir() for one in (living, other, young))
    assert list(tmp_path.iterdir()) == [young]


def test_a_server_that_can_write_nowhere_says_that_it_keeps_nothing(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as change:
        change.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        with artifact_folder() as place:
            assert place is None
    assert "cannot be copied" in capsys.readouterr().err


def test_connections_that_wait_for_a_killed_worker_are_answered(repository):
    with serving(repository, "--workers", 2) as (process, ready):
        victim = children(process)[0]
        os.kill(victim, signal.SIGSTOP)  # it takes no connection from now on, and half of them wait for it
        waiting = [socket.create_connection(address(ready), timeout=30) for _ in range(40)]
        for connection in waiting:
            connection.sendall(HEAD + CONTENT)
        time.sleep(0.3)
        stop, refused = threading.Event(), []

        def knock():
            while not stop.is_set():
                try:
                    socket.create_connection(address(ready), timeout=60).close()
                    stop.wait(0.001)
                except OSError as error:
                    refused.append(error)

        thread = threading.Thread(target=knock)
        thread.start()
        os.kill(victim, signal.SIGKILL)
        try:
            for connection in waiting:
                with connection:
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            within(60, lambda: victim not in children(process) and workers(ready["url"]) == 2)
        finally:
            stop.set()
            thread.join()
        assert refused == []
        assert answers(ready["url"]) == {12.0}


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_request_to_end_does_not_cut_off_the_log(repository, tmp_path, count):
    with serving(repository, "--workers", count, "--log", tmp_path / "log") as (process, ready):
        assert answers(ready["url"]) == {12.0}
        within(60, lambda: log_processes(process))  # until it has become its own program, it has its parent's name
        (scribe,) = log_processes(process)
        os.kill(scribe, signal.SIGSTOP)
        process.terminate()
        within(60, lambda: children(process) == [scribe])
        time.sleep(1.0)
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None, "the server left while its log was being written"
        os.kill(scribe, signal.SIGCONT)
        assert process.wait(timeout=60) == 0


SLOW_LOG = """
import sys, time
if "cumulant.serving.prediction_log" in sys.orig_argv:
    time.sleep(4)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_that_ends_before_its_log_has_started_loses_nothing(repository, tmp_path, count):
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOG)
    log, paths = tmp_path / "log", [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    with serving(
        repository, "--workers", count, "--log", log, "--drain", "60s", env={"PYTHONPATH": os.pathsep.join(paths)}
    ) as (process, ready):
        answer = httpx.post(ready["url"] + INFER, json=BODY, timeout=20)
        assert answer.status_code == 200
        process.terminate()
        assert (process.wait(timeout=60), process.stderr.read()) == (0, "")
    assert len(recent_predictions(folder_log(log))) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_that_is_being_tried_does_not_hold_up_the_end(repository, hostile, count):
    with serving(repository, "--workers", count, "--model-control", "explicit", env=hostile) as (process, ready):
        (repository / "graph" / "endless").touch()
        asking = threading.Thread(target=load, args=[ready["url"]])
        asking.start()
        within(60, lambda: trials(process.pid))
        (trial,) = trials(process.pid)
        process.terminate()
        assert process.wait(timeout=45) == 0  # the trial itself sleeps for a minute
        asking.join()
        within(30, lambda: not command_of(trial))


def load(url):
    with contextlib.suppress(httpx.TransportError):
        httpx.post(url + LOAD, timeout=60)


def trials(pid):
    """The processes under `pid` that try models."""
    below = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        below += [int(one) for one in (thread / "children").read_text().split()]
    found = {one for one in below if b"serving.workers.load_check" in command_of(one)}
    return found.union(*(trials(one) for one in set(below) if b"serving.workers.child" in command_of(one)))


def log_processes(process):
    return [pid for pid in children(process) if b"serving.prediction_log" in command_of(pid)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
