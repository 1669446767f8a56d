"""Spans, access lines and fault lines: what they say, what they never hold, and that they are off by default."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import httpx
import pytest
from serving_graphs import scale
from serving_models import ROW, call, servable
from test_serving_fleet import BODY, INFER, serving

from cumulant.core.errors import UsageError
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.messages import message_class
from cumulant.serving.grpc.server import start
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.scheduling.runner import Scheduling
from cumulant.serving.settings import Settings
from cumulant.serving.telemetry.access_log import AccessLog, fault_line
from cumulant.serving.telemetry.observation import RequestNote, RequestObservation
from cumulant.serving.telemetry.observers import ObservedApp, RequestObservers
from cumulant.serving.telemetry.tracing import Tracing, collector_url, is_probe, traces_requested

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
PREDICT = "/v1/models/flight-late/predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("models") / "one")


class Site:
    """An application that is watched, as `call` takes it."""

    def __init__(self, app, *watchers):
        self.body_limit = app.body_limit
        watch = RequestObservation(watchers)
        app.score.watch = watch
        for model in app.models:
            model.runner.observer = watch
        self._handle = ObservedApp(app, watch)

    def __call__(self, request):
        return self._handle(request)


def traced(app):
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing = Tracing(None, service="shop", exporter=exporter)

    def spans(kind="SERVER"):
        tracing.close()
        return tuple(span for span in exporter.get_finished_spans() if span.kind.name == kind)

    return Site(app, tracing), spans


def test_a_span_says_what_was_done_and_holds_nothing_of_the_payload(folder):
    app = ServingApplication(ModelSet([open_model(folder)]))
    site, spans = traced(app)
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1", "authorization": "Bearer hush"}
    assert call(site, "POST", f"{PREDICT}?key=hush", [ROW, ROW], headers=headers).status_code == 200
    (span,) = spans()
    assert (span.name, span.kind.name) == ("POST /v1/models/{model}/predict", "SERVER")
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.context.trace_state.get("vendor") == "1"
    said = dict(span.attributes)
    assert said.pop("cumulant.queue_seconds") == 0.0
    assert said == {
        "client.address": "127.0.0.1",
        "network.protocol.name": "http",
        "http.request.method": "POST",
        "http.route": "/v1/models/{model}/predict",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "cumulant.model": "flight-late",
        "cumulant.version": "1",
        "cumulant.rows": 2,
        "cumulant.cached": False,
    }
    assert 0 < span.end_time - span.start_time < 5e9
    assert span.resource.attributes["service.name"] == "shop"
    whole = span.to_json()
    assert not any(hidden in whole for hidden in ("hush", "N1", "2013-04-01T18"))


def test_the_run_of_the_model_is_below_the_request(folder):
    app = ServingApplication(ModelSet([open_model(folder)]))
    site, spans = traced(app)
    assert call(site, "POST", PREDICT, ROW, headers={"traceparent": SAMPLED}).status_code == 200
    assert call(site, "POST", PREDICT, {**ROW, "distance": 7}, headers={"traceparent": NOT}).status_code == 200
    (request,), (run,) = spans(), spans("INTERNAL")
    assert run.name == "run model"
    assert (run.context.trace_id, run.parent.span_id) == (request.context.trace_id, request.context.span_id)
    assert request.start_time <= run.start_time <= run.end_time <= request.end_time


def test_a_queued_run_has_its_own_time(tmp_path):
    bounds = Scheduling(inline=0.0, queue=5.0)
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "one"), scheduling=bounds)]))
    site, spans = traced(app)
    assert call(site, "POST", INFER, BODY).status_code == 200
    (request,), (run,) = spans(), spans("INTERNAL")
    assert request.start_time < run.start_time < run.end_time < request.end_time


def test_the_parents_flag_decides(folder):
    app = ServingApplication(ModelSet([open_model(folder)]))
    site, spans = traced(app)
    for parent in (NOT, "garbage", ""):
        call(site, "POST", PREDICT, ROW, headers={"traceparent": parent})
    found = spans()
    assert len(found) == 2
    assert all(span.parent is None and f"{span.context.trace_id:032x}" != TRACE for span in found)


def test_probes_make_no_spans(folder):
    app = ServingApplication(ModelSet([open_model(folder)]))
    site, spans = traced(app)
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/health"):
        assert call(site, "GET", path).status_code == 200
    call(site, "GET", "/v2")
    assert [span.name for span in spans()] == ["GET /v2"]
    assert is_probe("/inference.GRPCInferenceService/ServerLive")
    assert is_probe("/grpc.health.v1.Health/Check")
    assert not is_probe("/inference.GRPCInferenceService/ModelInfer")


def test_refusals_and_faults_are_told(folder, capsys, monkeypatch):
    app = ServingApplication(ModelSet([open_model(folder)]))
    site, spans = traced(app)
    assert call(site, "POST", PREDICT, {"distance": "secret"}).status_code == 400
    assert call(site, "GET", "/secret/path").status_code == 404
    monkeypatch.setattr(app.models.get("flight-late"), "from_rows", lambda rows: {}["secret value"])
    assert call(site, "POST", PREDICT, ROW).status_code == 500
    refused, missing, broken = spans()
    assert (refused.attributes["http.response.status_code"], refused.status.is_ok) == (400, True)
    assert (missing.name, "secret" in missing.to_json()) == ("GET (unknown)", False)
    assert (broken.attributes["error.type"], broken.status.is_ok) == ("500", False)
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["error"]) == ("error", "KeyError")
    assert any("row_model" in at or "app.py" in at for at in said["at"])
    assert "secret" not in line


def test_the_wait_and_the_cache_are_seen(tmp_path):
    bounds = Scheduling(inline=0.0, queue=5.0)
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "one"), scheduling=bounds)]))
    stream = io.BytesIO()
    log = AccessLog(stream)
    site = Site(app, log)
    assert call(site, "POST", INFER, BODY).status_code == 200
    app.models.get("graph").runner.observer.record_hit()  # outside of a request: nobody's
    log.close()
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["queue_ms"] >= 0
    assert "cached" not in line


def test_a_hit_is_the_requests_own():
    seen = []

    class Listener:
        def on_begin(self, note): ...

        def on_end(self, note):
            seen.append((note.path, note.cached, note.rows, note.waited))

    watch = RequestObservation((Listener(),))

    async def one(path, *, hit):
        note = RequestNote("http", "GET", path, "", time.time_ns(), time.perf_counter())
        watch.begin(note)
        await asyncio.sleep(0.01)
        if hit:
            watch.record_hit()
            watch.record_run(0.5)
            watch.record_run(0.25)
        watch.record_rows("m", "1", 2)
        watch.record_rows("m", "1", 3)
        watch.end(note, 200)

    async def both():
        await asyncio.gather(one("a", hit=True), one("b", hit=False))

    asyncio.run(both())
    assert sorted(seen) == [("a", True, 5, 0.75), ("b", False, 5, None)]


def test_access_lines(folder):
    app = ServingApplication(ModelSet([open_model(folder)]))
    stream = io.BytesIO()
    log = AccessLog(stream)
    site = Site(app, log)
    call(site, "POST", f"{PREDICT}?token=hush", [ROW, ROW], headers={"x-request-id": "mine"})
    call(site, "POST", PREDICT, {**ROW, "more": "hush"}, headers={"x-request-id": "x" * 300})
    call(site, "GET", "/v1/models/hush")
    log.close()
    assert b"hush" not in stream.getvalue()
    good, refused, missing = map(json.loads, stream.getvalue().splitlines())
    assert good.pop("ms") >= 0
    assert good.pop("time").endswith("+00:00")
    assert good == {
        "level": "info",
        "protocol": "http",
        "method": "POST",
        "path": "/v1/models/{model}/predict",
        "status": 200,
        "client": "127.0.0.1",
        "request_id": "mine",
        "model": "flight-late",
        "version": "1",
        "rows": 2,
    }
    assert (refused["status"], refused["rows"], "request_id" in refused) == (400, 0, False)
    assert (missing["status"], missing["path"], "model" in missing) == (404, "/v1/models/{model}", False)


def test_a_reader_that_stands_still_holds_up_nobody():
    class Stuck(io.BytesIO):
        free = threading.Event()

        def write(self, data):
            self.free.wait(20)
            return super().write(data)

    stream = Stuck()
    log = AccessLog(stream)
    note = RequestNote("http", "GET", "/", "", time.time_ns(), time.perf_counter())
    started = time.perf_counter()
    for _ in range(9000):
        log.on_end(note)
    assert time.perf_counter() - started < 15, "it waited for the stream"
    assert 0 < log.dropped < 9000
    lost = log.dropped
    stream.free.set()
    deadline = time.monotonic() + 60
    while stream.getvalue().count(b"\n") < 9000 - lost and time.monotonic() < deadline:
        time.sleep(0.01)
    log.on_end(note)
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 9001 - lost
    assert lines[-1]["dropped"] == lost


def test_the_last_line_is_written_out_though_the_end_waits_behind_it():
    class Slow(io.BytesIO):
        entered, free, written = threading.Event(), threading.Event(), 0

        def write(self, data):
            self.entered.set()
            assert self.free.wait(20)
            return super().write(data)

        def flush(self):
            self.written = len(self.getvalue())

    stream = Slow()
    log = AccessLog(stream)
    log.on_end(RequestNote("http", "GET", "/", "", time.time_ns(), time.perf_counter()))
    assert stream.entered.wait(60)
    ending = threading.Thread(target=log.close, args=(20,))
    ending.start()
    while log._lines.empty():
        time.sleep(0.001)
    stream.free.set()
    ending.join()
    assert stream.written == len(stream.getvalue()) > 0


def test_a_fault_line_holds_no_words_of_the_error():
    try:
        raise ValueError("secret")
    except ValueError as error:
        line = fault_line(error)
    assert json.loads(line)["error"] == "ValueError"
    assert b"secret" not in line


def test_nobody_watches_by_default(folder):
    watchers = RequestObservers(Settings(folders=(str(folder),)))
    app = ServingApplication(ModelSet([open_model(folder)]))
    assert watchers.wrap(app) is app
    assert watchers.watch is None


def test_the_variables_of_opentelemetry_turn_traces_on():
    assert not traces_requested({})
    assert traces_requested({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    assert traces_requested({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"})
    assert not traces_requested({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"})


def test_a_protocol_that_is_not_spoken_is_refused():
    over_grpc = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(UsageError, match="OTEL_EXPORTER_OTLP_PROTOCOL is grpc") as caught:
        traces_requested(over_grpc)
    assert "port 4318" in caught.value.hint
    own = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://y/t"}
    assert collector_url(over_grpc | own) == "http://y/t"
    assert collector_url({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) is None


def test_traces_without_the_extra_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UsageError) as caught:
        Tracing("http://127.0.0.1:4318", service="shop")
    assert "cumulant[otel]" in caught.value.hint


def test_calls_over_grpc(tmp_path):
    app = ServingApplication(ModelSet([open_model(scale(tmp_path / "one"))]))
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, stream = InMemorySpanExporter(), io.BytesIO()
    tracing, log = Tracing(None, service="shop", exporter=exporter), AccessLog(stream)
    watch = RequestObservation((tracing, log))
    app.score.watch = watch
    request = message_class("ModelInferRequest")(model_name="graph")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([1, 2, 3])
    wrong = message_class("ModelInferRequest")(model_name="hush")

    async def talk():
        server = await start(app, "127.0.0.1", 0, watch=watch)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # type: ignore[call-arg]
            metadata = (("traceparent", SAMPLED), ("x-request-id", "mine"))
            await infer(request.SerializeToString(), metadata=metadata)
            with pytest.raises(grpc.aio.AioRpcError):
                await infer(wrong.SerializeToString())
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")  # type: ignore[call-arg]
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()  # type: ignore[call-arg]
            for _ in range(2):
                await stream.write(request.SerializeToString())
                await stream.read()
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        await server.stop(1)

    asyncio.run(talk())
    tracing.close()
    log.close()
    good, refused, several = exporter.get_finished_spans()
    assert good.name == "inference.GRPCInferenceService/ModelInfer"
    assert (f"{good.context.trace_id:032x}", f"{good.parent.span_id:016x}") == (TRACE, PARENT)
    assert {k: good.attributes[k] for k in ("rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code")} == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
    }
    assert (good.attributes["cumulant.model"], good.attributes["cumulant.rows"]) == ("graph", 1)
    assert (refused.attributes["rpc.grpc.status_code"], "hush" in refused.to_json()) == (5, False)
    assert several.attributes["cumulant.rows"] == 2
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["status"], line["level"]) for line in lines] == [(0, "info"), (5, "error"), (0, "info")]
    assert (lines[0]["trace_id"], lines[0]["request_id"]) == (TRACE, "mine")


@contextmanager
def collector():
    """An OTLP collector that keeps what it is sent."""
    bodies = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keep)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_sends_spans_and_writes_lines(tmp_path, workers):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    scale(tmp_path / "models" / "graph")
    with collector() as (url, bodies):
        arguments = (tmp_path / "models", "--access-log", "--traces", url, "--workers", workers)
        with serving(*arguments, env={"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}) as (process, ready):
            for _ in range(5):
                assert httpx.post(ready["url"] + INFER, json=BODY, headers={"traceparent": SAMPLED}).status_code == 200
            process.terminate()
            lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    spans = []
    for path, _, body in bodies:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                spans += scope.spans
    names = {"POST /v2/models/{model}/infer", "run model"}
    assert {(span.name, span.trace_id.hex()) for span in spans} == {(name, TRACE) for name in names}
    assert sum(span.name != "run model" for span in spans) == len(lines) == 5, "equal requests may be answered at once"
    assert {(line["status"], line["trace_id"], line["rows"]) for line in lines} == {(200, TRACE, 1)}
