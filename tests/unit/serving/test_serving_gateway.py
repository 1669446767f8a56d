"""What a gateway says of a request: believed with its token, and from nobody else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from serving_models import ROW, SALT, WINDOWED, fill_state, flights, servable, windowed_model
from test_serving_app import tensors
from test_serving_recording import PREDICT, REQUEST, ask, rows_of, serving, tell

from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import TOKEN_HEADER, Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.local.online import SqliteOnline
from cumulant.ports.traffic import ListenOptions
from cumulant.serving.gateway_headers import NONE, Marks, Trust, marks_of
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.prediction_log.storage.log_reader import find_predictions, recent_predictions
from cumulant.testing.gateways import Reader, wait_for
from cumulant.testing.gateways import running as gateway
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow

SAID = {"cumulant-request-id": "q1", "cumulant-arm": "candidate", "cumulant-shadow": "1"}
SAID |= {"cumulant-served-arm": "candidate"}
KEY = b"k" * 32
INFER = "/v2/models/flight-late/infer"


def infer(url, headers, name="body-id"):
    body = {"id": name, "inputs": tensors([ROW])}
    return httpx.post(f"{url}{INFER}", json=body, headers=headers, timeout=30)


@pytest.fixture
def key_file(tmp_path):
    (tmp_path / "gateway.key").write_bytes(KEY)
    (tmp_path / "gateway.key").chmod(0o600)
    return tmp_path / "gateway.key"


@contextmanager
def behind(key_file, folder, *more):
    with serving(folder, "--behind-gateway", "--gateway-key-file", key_file, "--drain", "60s", *more) as (process, url):
        yield process, url


def by_gateway(url, **more):
    return {TOKEN_HEADER: token_for(KEY, url), **more}


@pytest.mark.parametrize(
    ("headers", "marks"),
    [
        ({}, NONE),
        ({b"cumulant-arm": b"champion"}, Marks(arm="champion")),
        ({b"cumulant-arm": b"candidate", b"cumulant-served-arm": b"champion"}, Marks("candidate", "champion")),
        ({b"cumulant-arm": b"third", b"cumulant-served-arm": b"", b"cumulant-shadow": b"yes"}, NONE),
        ({b"cumulant-shadow": b"1", b"cumulant-request-id": b"a-1"}, Marks(shadow=True, request="a-1")),
        ({b"x-request-id": b"a-1"}, Marks(caller="a-1")),
        ({b"x-request-id": b"a-1", b"cumulant-request-id": b"a-1"}, Marks(request="a-1")),
        ({b"x-request-id": b"a\x07"}, NONE),
        ({b"cumulant-request-id": "é".encode()}, NONE),
        ({b"x-request-id": b"x" * 300}, NONE),
    ],
)
def test_marks(headers, marks):
    assert marks_of(headers) == marks


@pytest.mark.parametrize("token", [None, b"", b"forged", "é".encode(), token_for(KEY, "http://127.0.0.1:2").encode()])
def test_without_the_token_nothing_is_believed(token):
    said = {name.encode(): value.encode() for name, value in SAID.items()}
    headers = said | {b"x-request-id": b"mine"} | ({} if token is None else {TOKEN_HEADER.encode(): token})
    Trust(KEY, ["http://127.0.0.1:1"]).check(headers)
    marks = marks_of(headers)
    assert marks[:3] == NONE[:3]
    assert (len(marks.request), marks.caller) == (32, "mine")
    assert TOKEN_HEADER.encode() not in headers


def test_with_the_token_all_is_believed_and_a_missing_name_is_given():
    token = token_for(KEY, "http://127.0.0.1:1").encode()
    headers = {name.encode(): value.encode() for name, value in SAID.items()} | {TOKEN_HEADER.encode(): token}
    trust = Trust(KEY, ["http://127.0.0.1:1"])
    trust.check(headers)
    assert marks_of(headers) == Marks("candidate", "candidate", True, "q1")
    headers = {b"cumulant-arm": b"champion", TOKEN_HEADER.encode(): token}
    trust.check(headers)
    assert (marks_of(headers).arm, len(marks_of(headers).request)) == ("champion", 32)


def test_the_log_has_the_gateways_words_on_arm_copy_and_request(tmp_path, key_file):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    with behind(key_file, folder, "--log", log, "--workers", 2) as (_, url):
        assert infer(url, by_gateway(url, **SAID)).status_code == 200
        headers = {"cumulant-request-id": "q2", "cumulant-arm": "candidate", "cumulant-served-arm": "champion"}
        answer = httpx.post(url + PREDICT, json=ROW, headers=by_gateway(url, **headers, **{"x-request-id": "mine"}))
        assert answer.json()["request_id"] == "q2"
    (copy,), (rescued,) = find_predictions(folder_log(log), "q1"), find_predictions(folder_log(log), "q2")
    assert (copy.arm, copy.served_arm, copy.shadow, copy.caller_id) == ("candidate", "candidate", True, "body-id")
    assert (rescued.arm, rescued.served_arm, rescued.shadow) == ("candidate", "champion", False)
    assert rescued.caller_id == "mine"


@pytest.mark.parametrize(
    ("host", "dialled"),
    [("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "LOCALHOST"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")],
)
def test_the_token_of_each_spelling_of_the_address_is_believed(tmp_path, key_file, host, dialled):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    more = ("--insecure", "--behind-gateway", "--gateway-key-file", key_file, "--allow-host", "models.example.com")
    more += ("--drain", "60s")  # the log process may be starting still
    with serving(folder, "--log", log, *more, host=host) as (process, url):
        port = url.rpartition(":")[2]
        urls = [f"http://{dialled}:{port}", f"http://models.example.com:{port}", "https://models.example.com"]
        for number, one in enumerate([*urls, f"http://other:{port}", f"http://other:{port}"]):
            headers = SAID | {"cumulant-request-id": f"q{number}", TOKEN_HEADER: token_for(KEY, one)}
            assert httpx.post(f"http://127.0.0.1:{port}{PREDICT}", json=ROW, headers=headers).status_code == 200
        figures = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        process.terminate()
        lines = process.stderr.read()
    assert [bool(find_predictions(folder_log(log), f"q{number}")) for number in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert "cumulant_gateway_tokens_rejected_total 2" in figures
    assert lines.count("--allow-host") == 1


@pytest.mark.parametrize("token", [None, "forged", "of another server"])
def test_a_forged_request_is_answered_and_is_no_evidence(tmp_path, key_file, token):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    with behind(key_file, folder, "--log", log, "--access-log") as (process, url):
        sent = token_for(KEY, "http://127.0.0.1:1") if token == "of another server" else token
        headers = SAID | {"x-request-id": "mine"} | ({TOKEN_HEADER: sent} if sent else {})
        answer = httpx.post(url + PREDICT, json=ROW, headers=headers)
        answers = [answer, infer(url, headers)]
        answers.append(httpx.post(f"{url}/invocations", json={"dataframe_records": [ROW]}, headers=headers))
        assert [one.status_code for one in answers] == [200] * 3
        process.terminate()
        lines = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
    assert (
        find_predictions(folder_log(log), "q1")
        == find_predictions(folder_log(log), "mine")
        == find_predictions(folder_log(log), "body-id")
        == []
    )
    rows = recent_predictions(folder_log(log))
    assert [(one.arm, one.served_arm, one.shadow) for one in rows] == [("", "", False)] * 3
    assert sorted(one.caller_id for one in rows) == ["body-id", "mine", "mine"]
    assert find_predictions(folder_log(log), answer.json()["request_id"])[0].caller_id == "mine"
    names = {one.headers["cumulant-request-id"] for one in answers}
    assert {line["request_id"] for line in lines} == {one.id for one in rows} == names
    assert {line["caller_id"] for line in lines} == {"mine", "body-id"}


def test_nothing_of_a_call_over_grpc_is_believed(tmp_path, key_file):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    request = message_class("ModelInferRequest")(model_name="flight-late", id="mine")
    for one in tensors([ROW]):
        tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        kind = {"BYTES": "bytes_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}[one["datatype"]]
        values = [str(value).encode() if one["datatype"] == "BYTES" else value for value in one["data"]]
        getattr(tensor.contents, kind).extend(values)
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    line += ["--log", str(log), "--behind-gateway", "--gateway-key-file", str(key_file), "--access-log"]
    process, names = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), []
    try:
        ready = json.loads(process.stdout.readline())
        tokens = [token_for(KEY, ready["url"]), token_for(KEY, f"http://{ready['grpc']}")]

        async def talk():
            async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # type: ignore[call-arg]
                for token in tokens:
                    said = tuple((by_gateway(ready["url"], **SAID) | {TOKEN_HEADER: token}).items())
                    answer = call(request.SerializeToString(), metadata=said)
                    body, trailing = await answer, dict(await answer.trailing_metadata())
                    names.append(trailing["cumulant-request-id"])
                    assert message_class("ModelInferResponse").FromString(body).id == "mine"

        asyncio.run(talk())
    finally:
        process.terminate()
        _, written = process.communicate()
    rows = recent_predictions(folder_log(log))
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert sorted(one.id for one in rows) == sorted(names)
    assert [(line["request_id"], line["caller_id"]) for line in lines] == [(name, "mine") for name in names]
    assert [(one.arm, one.served_arm, one.shadow, one.caller_id) for one in rows] == [("", "", False, "mine")] * 2
    assert all(len(one.id) == 32 for one in rows)


def test_through_a_gateway_no_caller_chooses_arm_or_name(tmp_path, key_file):
    pytest.importorskip("envoy")
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    traffic = EnvoyTraffic(f"envoy://{tmp_path}/gateway")
    opening = ListenOptions(http="127.0.0.1:0", gateway_key_file=str(key_file))
    with (
        behind(key_file, folder, "--log", log) as (process, url),
        (tmp_path / "out").open("wb") as output,
        gateway(traffic, opening, output),
    ):
        arm = Arm(name="champion", version="1", endpoints=(url,))
        traffic.apply(Routes(model="flight-late", revision=1, champion=arm))
        address = traffic.address().url
        wait_for(lambda: httpx.get(f"{address}/v2/models/flight-late").status_code == 200)
        forged = SAID | {"x-request-id": "mine", TOKEN_HEADER: token_for(KEY, address)}
        answers = [httpx.post(address + PREDICT, json=ROW, headers=forged) for _ in range(2)]
        answers.append(httpx.post(address + PREDICT, json=ROW))
        told = wait_for(lambda: len(found := [one for one in Reader(traffic).read() if one.predicts]) == 3 and found)
        shown = b"".join(
            Path(f"/proc/{pid}/{name}").read_bytes()
            for pid in (process.pid, traffic.address().pid)
            for name in ("cmdline", "environ")
            if Path("/proc").exists()
        )
        assert all(secret not in shown for secret in (KEY, KEY.hex().encode(), token_for(KEY, url).encode()))
    assert [answer.headers["x-request-id"] for answer in answers[:2]] == ["mine", "mine"]
    assert answers[2].headers["x-request-id"] == answers[2].headers["cumulant-request-id"]
    names = [answer.headers["cumulant-request-id"] for answer in answers]
    assert len({*names, "q1", "mine"}) == 5
    assert [answer.json()["request_id"] for answer in answers] == [one.request for one in told] == names  # type: ignore[attr-defined]
    assert [one.caller_id for one in told] == ["mine", "mine", ""]  # type: ignore[attr-defined]
    rows = [find_predictions(folder_log(log), name)[0] for name in names]
    assert [(one.arm, one.served_arm, one.shadow) for one in rows] == [("champion", "champion", False)] * 3
    assert [one.caller_id for one in rows] == ["mine", "mine", ""]
    assert KEY.hex().encode() not in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--behind-gateway"], "go together"),
        (["--gateway-key-file", "gateway.key"], "go together"),
        (["--behind-gateway", "--gateway-key-file", "nowhere"], "cannot be read"),
        (["--behind-gateway", "--gateway-key-file", "short"], "fewer than 32"),
        (["--behind-gateway", "--gateway-key-file", "open"], "chmod 600"),
    ],
)
def test_a_server_behind_a_gateway_does_not_start_without_its_key(tmp_path, key_file, options, told):
    for name, size, mode in (("short", 31, 0o600), ("open", 32, 0o640)):
        (tmp_path / name).write_bytes(b"k" * size)
        (tmp_path / name).chmod(mode)
    line = [sys.executable, "-m", "cumulant.serving", str(servable(tmp_path / "servable")), *options]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert ended.returncode == (1 if "open" in options else 2)
    assert told in ended.stderr


def test_no_caller_of_a_server_without_a_gateway_chooses_its_arm(tmp_path):
    folder, log = servable(tmp_path / "servable"), tmp_path / "log"
    with serving(folder, "--log", log) as (_, url):
        assert infer(url, SAID).status_code == 200
        answer = httpx.post(url + PREDICT, json=ROW, headers=SAID | {"x-request-id": "mine"})
        assert answer.json()["request_id"] == "mine"
    (one,), (named,) = find_predictions(folder_log(log), "body-id"), find_predictions(folder_log(log), "mine")
    assert (one.arm, one.served_arm, one.shadow, one.caller_id) == ("", "", False, "")
    assert (named.arm, named.served_arm, named.shadow, named.caller_id) == ("", "", False, "")
    assert find_predictions(folder_log(log), "q1") == []


def test_a_row_that_both_versions_take_in_moves_each_state_once(tmp_path, key_file, monkeypatch):
    """Mirrored rows reach both servers: the log of rows knows each by its key, and both states come to the same."""
    monkeypatch.setenv("CUMULANT_SALT", SALT.decode())
    url = f"sqlite://{tmp_path / 'online.db'}"
    store = SqliteOnline(url)
    for table in ("one", "two"):
        fill_state(store, WINDOWED, {"flights": flights(150).lazy()}, table=table)
    store.close()
    folder = servable(
        tmp_path / "servable", plan=WINDOWED, model=windowed_model(), sample={"hour": [1, 2], "late_1d": [0.5, None]}
    )
    whole = flights(180)
    told = rows_of(whole[150:], [*REQUEST, "late", "landed"])
    row = ROW | {"sched_dep": (whole["landed"].max() + timedelta(hours=2)).isoformat()}
    place = [folder, "--online", url]
    with (
        behind(key_file, *place, "--state-table", "one") as (_, champion),
        behind(key_file, *place, "--state-table", "two") as (_, other),
    ):
        for begin in range(0, 30, 10):
            first, second = (champion, other) if begin % 20 else (other, champion)
            part = told[begin : begin + 10]
            assert tell(first, part).json()["accepted"] == 10
            assert tell(second, part).json()["duplicates"] == 10
        found = [ask(one, row).json()["probability"] for one in (champion, other)]
    assert found[0] == found[1]
    with behind(key_file, *place, "--state-table", "one") as (_, champion):
        assert ask(champion, row).json()["probability"] == found[0]
