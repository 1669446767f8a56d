# ruff: noqa: PLW1510, PT012
"""Answers that wait for their record, through the server: kills, full disks, every way to ask."""

import os
import subprocess
import sys

import grpc
import httpx
import pytest
from kill_support import kill_all, kill_log, loaded, log_process, missing, start, stop
from log_support import wait_for
from serving_models import ROW, servable

from cumulant.serving.grpc.messages import message_class
from cumulant.serving.prediction_log.storage.log_reader import find_gaps
from cumulant.serving.prediction_log.storage.scanning import scan
from cumulant.testing.log import folder_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("model") / "model")


def some_more(load, count=50):
    """Wait until so many more requests were acknowledged."""
    before = len(load.acknowledged)
    wait_for(lambda: len(load.acknowledged) >= before + count)


def killed(folder, log, *more):
    """Names of all requests that a server acknowledged whose log process was killed, and then all of it."""
    process, ready = start(folder, log, *more, stderr=subprocess.DEVNULL)
    with loaded(ready["url"]) as load:
        for _ in range(2):
            some_more(load)
            kill_log(process)
        some_more(load)
        kill_all(process)
    process, _ = start(folder, log, *more)
    stop(process)
    return load


@pytest.mark.slow
def test_no_acknowledged_answer_is_missing_from_a_durable_log_after_kills(folder, tmp_path):
    load = killed(folder, tmp_path / "log", "--log-write", "durable", "--workers", "2")
    assert missing(tmp_path / "log", load.acknowledged)[0] == 0
    assert not list((tmp_path / "log").rglob(".*.journal"))


def test_what_kills_of_the_log_process_cost_by_default_is_counted(folder, tmp_path):
    log = tmp_path / "log"
    process, ready = start(folder, log, stderr=subprocess.DEVNULL)
    with loaded(ready["url"]) as load:
        for _ in range(2):
            some_more(load)
            kill_log(process)
        some_more(load)
        log_process(process)
    stop(process)
    lost, counted = missing(log, load.acknowledged)
    assert lost == counted


TENSORS = [
    {"name": "distance", "datatype": "FP64", "shape": [1], "data": [1.0]},
    {"name": "sched_dep", "datatype": "BYTES", "shape": [1], "data": [ROW["sched_dep"]]},
    {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["UA"]},
]


def over_grpc(address):
    """Status and words of an answer."""
    asked = message_class("ModelInferRequest")(model_name="flight-late")
    for tensor in TENSORS:
        given = asked.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=[1])
        if tensor["datatype"] == "FP64":
            given.contents.fp64_contents.extend(tensor["data"])
        else:
            given.contents.bytes_contents.extend(text.encode() for text in tensor["data"])
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(asked.SerializeToString(), timeout=30)  # type: ignore[call-arg]
        except grpc.RpcError as error:
            return {grpc.StatusCode.UNAVAILABLE: 503}.get(error.code()), error.details()
    return 200, ""


def ask_in_every_way(ready):
    """Status and words of each answer; six rows in five requests."""
    paths = {
        "/v1/models/flight-late/predict": ROW,
        "/v1/models/flight-late/versions/1/predict": [ROW] * 2,
        "/v2/models/flight-late/infer": {"inputs": TENSORS},
        "/invocations": {"dataframe_records": [ROW]},
    }
    answers = [httpx.post(ready["url"] + path, json=body, timeout=30) for path, body in paths.items()]
    return [(answer.status_code, answer.text) for answer in answers] + [over_grpc(ready["grpc"])]


def test_answers_of_every_kind_wait_for_a_log_that_can_be_written(folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here: run as root")
    log = small / "log"
    options = ["--log-write", "durable", "--grpc", "127.0.0.1:0"]
    process, ready = start(folder, log, *options, stderr=subprocess.DEVNULL)
    try:
        assert [status for status, _ in ask_in_every_way(ready)] == [200] * 5
        wait_for(lambda: scan(folder_log(log)).dataset.count_rows() == 6 and not list(log.rglob(".*.journal")))
        with pytest.raises(OSError), (small / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(os.urandom(4096))
        for status, words in ask_in_every_way(ready):
            assert status == 503, words
            assert "the prediction could not be logged: the disk is full; free some space" in words
        (small / "filler").unlink()
        assert [status for status, _ in ask_in_every_way(ready)] == [200] * 5
        wait_for(lambda: scan(folder_log(log)).dataset.count_rows() == 12)
        told = httpx.get(f"{ready['url']}/metrics").text
        assert 'cumulant_log_records_total{result="refused"} 5' in told
        assert 'cumulant_log_records_total{result="lost"} 0' in told
        assert sum(gap.count for gap in find_gaps(folder_log(log))) == 5
    finally:
        stop(process)
        subprocess.run(["umount", "-l", small], check=True)


def test_a_durable_log_without_a_folder_is_refused(folder):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", "--log-write", "durable"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "a durable prediction log needs a folder" in done.stderr
    assert "--log DIR" in done.stderr
