"""Large bodies beside small ones: nobody waits for a large one to be read."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import msgspec
import pytest
from serving_graphs import scale

from cumulant.serving.app import ServingApplication
from cumulant.serving.endpoints import request_bodies
from cumulant.serving.endpoints.request_bodies import LARGE, BodyReader, decode_rows, is_large
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Request
from cumulant.serving.http.site import HttpSite
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol.inference import HEADER_LENGTH

INFER = "/v2/models/graph/infer"
MANY = 40_000


def body(rows):
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 3], "data": [1, 2, 3] * rows}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "total"}]}).encode()


class Gate:
    """Holds the reading of large requests up until it is opened."""

    def __init__(self, model):
        self.begun, self.opened, self._read = threading.Event(), threading.Event(), model.from_tensors
        model.from_tensors = self

    def __call__(self, inputs):
        if inputs[0].shape[0] == MANY:
            self.begun.set()
            assert self.opened.wait(60), "it was never opened"
        return self._read(inputs)


@pytest.fixture
def gated(tmp_path):
    model = open_model(scale(tmp_path / "graph", 2.0))
    return ServingApplication(ModelSet([model])), Gate(model)


@asynccontextmanager
async def client_of(app):
    listening = await asyncio.get_running_loop().create_server(HttpSite(app, HttpLimits()), "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    async with listening, httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=30) as client:
        yield client


def totals(answer):
    assert answer.status_code == 200, answer.text
    return set(answer.json()["outputs"][0]["data"])


def test_others_are_answered_while_a_large_body_is_read(gated):
    app, gate = gated

    async def act():
        async with client_of(app) as client:
            large = asyncio.ensure_future(client.post(INFER, content=body(MANY)))
            await asyncio.to_thread(gate.begun.wait, 20)
            for _ in range(20):
                assert totals(await client.post(INFER, content=body(1))) == {12.0}
            assert not large.done()
            gate.opened.set()
            assert totals(await large) == {12.0}

    asyncio.run(act())


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_that_is_taken_away_while_a_body_is_read(gated, tmp_path, kept):
    app, gate = gated

    async def act():
        async with client_of(app) as client:
            large = asyncio.ensure_future(client.post(INFER, content=body(MANY)))
            await asyncio.to_thread(gate.begun.wait, 20)
            old = app.models.get("graph")
            app.models = ModelSet([open_model(scale(tmp_path / "new", 3.0))] if kept else [])
            old.close()
            gate.opened.set()
            answer = await large
            assert totals(answer) == {18.0} if kept else answer.status_code == 404

    asyncio.run(act())


def test_large_bodies_that_wait_are_bounded(gated, monkeypatch):
    app, gate = gated
    monkeypatch.setattr(request_bodies, "_MOST", len(body(MANY)) + 1000)

    async def act():
        async with client_of(app) as client:
            large = asyncio.ensure_future(client.post(INFER, content=body(MANY)))
            await asyncio.to_thread(gate.begun.wait, 20)
            refused = await client.post(INFER, content=body(MANY))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            gate.opened.set()
            assert totals(await large) == {12.0}
            assert totals(await client.post(INFER, content=body(MANY))) == {12.0}

    asyncio.run(act())
    counted = {one.labels[-1]: one.value for one in app.series() if one.family == "cumulant_requests_total"}
    assert counted == {"200": 2, "429": 1}


def test_bodies_that_are_being_scored_wait_no_more():
    async def act():
        reader, size = BodyReader(1 << 30), 60 << 20
        async with AsyncExitStack() as scored:
            for number in range(4):
                given = await scored.enter_async_context(reader(lambda *_: 7, None, number, size, lambda _: 1))
                assert given() == 7  # type: ignore[call-arg]
            assert reader._waiting == 0
        assert reader._waiting == 0

    asyncio.run(act())


def test_a_client_that_goes_away_is_no_fault_of_the_server(tmp_path, monkeypatch):
    model = open_model(scale(tmp_path / "graph", 2.0))
    app = ServingApplication(ModelSet([model]))

    async def act():
        monkeypatch.setattr(model.runner, "run_now", lambda *_: None)
        monkeypatch.setattr(model.runner, "run_later", lambda *_: asyncio.Event().wait())
        request = Request("POST", INFER.encode(), {}, body(1), received=time.perf_counter())
        waiting = asyncio.ensure_future(app(request))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(act())
    counted = {one.labels[-1]: one.value for one in app.series() if one.family == "cumulant_requests_total"}
    assert counted == {"499": 1}


def test_faults_of_large_bodies_are_told_and_counted(gated):
    app, gate = gated
    gate.opened.set()

    async def act():
        async with client_of(app) as client:
            for wrong in (body(MANY)[:-1], body(MANY).replace(b"FP32", b"FP64"), b"[" * LARGE * 2):
                answer = await client.post(INFER, content=wrong)
                assert answer.status_code == 400, answer.text
                assert answer.json()["error"]

    asyncio.run(act())
    counted = [one for one in app.series() if one.family == "cumulant_requests_total"]
    assert [(one.labels[-1], one.value) for one in counted] == [("400", 3)]


ROW = {"a": 1, "b": [1.5, None], "c": "[{,}]é", "d": {"e": True}}


@pytest.mark.parametrize("value", [[ROW] * 9000, {"rows": [ROW] * 9000}, {"a": "x" * LARGE, "b": 1}, ["x" * LARGE * 2]])
@pytest.mark.parametrize("indent", [None, 1])
def test_rows_are_decoded_as_a_whole_document_is(value, indent):
    text = b"\n " + json.dumps(value, indent=indent).encode()
    assert len(text) > LARGE
    assert decode_rows(text) == value


@pytest.mark.parametrize("text", [b'[{"a":1},{"a":}%s]', b'{"rows":[1,2%s}', b'{"a":1}%s]', b'["\xff"%s]', b"[NaN%s]"])
def test_broken_rows_are_refused_as_a_whole_document_is(text):
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode_rows(text % (b" " * LARGE))


def test_raw_numbers_are_not_large():
    assert is_large(Request("POST", b"/", {}, b"x" * (LARGE + 1)))
    assert not is_large(Request("POST", b"/", {}, b"x" * LARGE))
    for length, large in ((b"100", False), (b"x", True), (b"9" * 5000, True), (b"%d" % (LARGE + 1), True)):
        assert is_large(Request("POST", b"/", {HEADER_LENGTH: length}, b"x" * (LARGE + 1))) is large


@pytest.mark.parametrize(
    ("head", "large"),
    [(b'{"datatype": "FP32"}', False), (b'{"datatype": "BYTES"}', True), (b'{"datatype": "B\\u0059TES"}', True)],
)
def test_raw_texts_are_large(head, large):
    """Each of them is made by itself."""
    length = {HEADER_LENGTH: b"%d" % len(head)}
    assert is_large(Request("POST", b"/", length, head + b"\0" * LARGE)) is large
