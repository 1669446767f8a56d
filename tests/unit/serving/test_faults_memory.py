"""Bodies that take much more memory than bytes: they are refused before they are decoded, and nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving_models import ROW, servable

from cumulant.core.errors import CumulantError, RequestError
from cumulant.serving.app import ServingApplication
from cumulant.serving.endpoints.invocations import read_csv_rows
from cumulant.serving.endpoints.request_bodies import LARGE, SharedBudget, decoded_memory
from cumulant.serving.http.messages import Request
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.posted.label_inbox import LabelInbox
from cumulant.serving.protocol.inference import HEADER_LENGTH
from cumulant.serving.protocol.json_size import decoded_bytes, most_decoded
from cumulant.serving.protocol.tensors import InputTensor, to_array

MIB = 1 << 20
PREDICT, INFER = "/v1/models/flight-late/predict", "/v2/models/flight-late/infer"
EMPTY = b"{}," * 2_700_000
ONES = b"1," * 4_000_000
WRONG = json.dumps([ROW | {"distance": "far"}] * 4000).encode()


@contextmanager
def running(folder):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def memory(pid, name):
    """Bytes that the process holds (VmRSS), or held at most (VmHWM)."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(name)]
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("memory") / "servable")


@pytest.fixture
def app(folder):
    return ServingApplication(ModelSet([open_model(folder)]))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bodies_that_are_refused_at_once_leave_no_memory_behind(folder):
    bomb = gzip.compress(b"[" + EMPTY[:-1] + b"]")
    with running(folder) as ready, httpx.Client(base_url=ready["url"], timeout=60) as client:

        def post(_):
            return client.post(PREDICT, content=bomb, headers={"content-encoding": "gzip"}).status_code

        for _ in range(100):
            assert client.post(PREDICT, json=ROW).status_code == 200
        before = memory(ready["pid"], "VmRSS")
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(post, range(64))) <= {413, 429}
        end = time.monotonic() + 60
        while memory(ready["pid"], "VmRSS") > 1.1 * before:  # given back once no more large bodies come
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_refused_bodies_leave_no_memory_behind(folder):
    bomb = {"content": gzip.compress(b"[" + EMPTY[:-1] + b"]"), "headers": {"content-encoding": "gzip"}}
    assert len(bomb["content"]) < 8_000
    with running(folder) as ready, httpx.Client(base_url=ready["url"], timeout=60) as client:
        for _ in range(20):
            assert client.post(PREDICT, json=[ROW] * 4000).status_code == 200
            assert client.post(PREDICT, content=WRONG).status_code == 400
        before = memory(ready["pid"], "VmRSS")
        for _ in range(12):
            assert client.post(PREDICT, **bomb).status_code == 413
        for _ in range(30):
            assert client.post(PREDICT, content=WRONG).status_code == 400
        assert memory(ready["pid"], "VmRSS") < 1.1 * before
        assert memory(ready["pid"], "VmHWM") < before + 64 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_form_of_a_body_takes_a_multiple_of_its_bytes(folder):
    tensor = b'{"inputs":[{"name":"distance","datatype":"FP64","shape":[4000000],"data":[%s]}]}' % ONES[:-1]
    bodies = [
        ("/invocations", b'{"dataframe_records":[%s]}' % EMPTY[:-1], "application/json"),
        ("/invocations", b'{"dataframe_split":{"columns":["a"],"data":[%s]}}' % (b"[1]," * 2_000_000)[:-1], ""),
        ("/invocations", b'{"inputs":{"distance":[%s]}}' % ONES[:-1], "application/json"),
        ("/invocations", b"distance\n" + b"1\n" * 4_000_000, "text/csv"),
        (INFER, tensor, "application/json"),
        ("/v1/labels", b'{"labels":[%s]}' % EMPTY[:-1], "application/json"),
        (PREDICT, b"[%s]" % EMPTY[:-1], "application/json"),
    ]
    with running(folder) as ready, httpx.Client(base_url=ready["url"], timeout=60) as client:
        for path, body, kind in bodies:
            headers = {"content-encoding": "gzip"} | ({"content-type": kind} if kind else {})
            assert client.post(path, content=gzip.compress(body, 1), headers=headers).status_code == 413
        assert memory(ready["pid"], "VmHWM") < 500 * MIB


def errors():
    return [one for one in gc.get_objects() if isinstance(one, CumulantError)]


def refused(app, body, headers=None):
    """The status of the answer, and the errors that only the collector would find."""

    async def act():
        return await app(Request("POST", PREDICT.encode(), headers or {}, body))

    gc.collect()
    before = {id(one) for one in errors()}
    gc.disable()
    try:
        status = asyncio.run(act()).status
        app.reader._thread.shutdown()  # it holds its last result until it is idle
        return status, [one for one in errors() if id(one) not in before]
    finally:
        gc.enable()


@pytest.mark.parametrize(("body", "status"), [(WRONG, 400), (b"[%s{}]" % EMPTY, 413), (b"[" * LARGE * 2, 400)])
def test_a_refusal_goes_with_its_request(app, body, status):
    assert refused(app, body) == (status, [])


def test_a_length_of_raw_tensors_hides_no_rows(app):
    assert refused(app, b"[%s{}]" % EMPTY, {HEADER_LENGTH: b"1"})[0] == 413


def test_rows_are_counted_where_texts_look_like_rows(app):
    body = json.dumps([ROW | {"carrier": "{[,{[,{[,{[,"}] * 4000).encode()
    assert asyncio.run(app(Request("POST", PREDICT.encode(), {}, body))).status == 200


@pytest.mark.parametrize(
    "text", [b"1," * 1000, b"[1]," * 1000, b'"a",' * 1000, b'{"a":1,"b":"c"},' * 1000, b'"",' * 1000]
)
def test_what_callers_send_stays_within_the_bound(text):
    """A body of the most bytes may become 32 times as many; of these none does."""
    assert decoded_bytes(text) < 32 * len(text)
    value = json.loads(b"[%s0]" % text)
    assert sum(map(sys.getsizeof, value)) + sys.getsizeof(value) < decoded_bytes(text)


def peak(make):
    """The most bytes of memory that it took to make something."""
    tracemalloc.start()
    try:
        make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["", "ab", "ā", "a text of more letters"])
def test_raw_texts_stay_within_the_bound(text):
    raw = (len(text.encode()).to_bytes(4, "little") + text.encode()) * (LARGE // 4)
    head = b'{"inputs":[{"datatype":"BYTES"}]}'
    request = Request("POST", INFER.encode(), {HEADER_LENGTH: b"%d" % len(head)}, head + raw)
    bound = decoded_memory(request, tensors=True, csv=False)
    assert peak(lambda: to_array(InputTensor("x", "BYTES", [LARGE // 4], memoryview(raw)))) < bound
    assert bound < most_decoded(len(request.body))


@pytest.mark.parametrize("kind", [b"text/csv", b" Text/CSV; charset=utf-8"])
@pytest.mark.parametrize(
    "row", [b"1," * 99 + b"1", b"0.123456789," * 30 + b"1", b"ab," * 200 + b"c", b"a text of many words", b"7.5"]
)
def test_rows_of_csv_stay_within_the_bound(app, row, kind):
    columns = row.count(b",") + 1
    body = b"\n".join([b",".join(b"c%d" % number for number in range(columns)), *[row] * min(10_000, MIB // len(row))])
    request = Request("POST", b"/invocations", {b"content-type": kind}, body)
    bound = decoded_memory(request, tensors=False, csv=True)
    model = app.models.get("flight-late")
    assert peak(lambda: read_csv_rows(body.decode(), model)) < bound
    assert decoded_memory(request, tensors=False, csv=False) == decoded_bytes(body)


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (INFER, {HEADER_LENGTH: b"33"}, b'{"inputs":[{"datatype":"BYTES"}]}' + bytes(2 * LARGE)),
        ("/invocations", {b"content-type": b"text/csv"}, b"a\n" + (b"x" * 100 + b"\n") * 5000),
    ],
)
def test_raw_texts_and_csv_count_by_what_they_take_decoded(folder, path, headers, body):
    app = ServingApplication(ModelSet([open_model(folder)]), body_limit=2 * LARGE // 8)
    answer = asyncio.run(app(Request("POST", path.encode(), headers, body)))
    assert (answer.status, b"once it is decoded" in answer.body) == (413, True)


def test_too_many_labels_are_refused_before_they_are_decoded(tmp_path):
    body = b'{"labels":[%s{"label":}]}' % (b"{}," * 100_001)
    with pytest.raises(RequestError, match="cannot be read"):
        asyncio.run(LabelInbox(tmp_path, MIB).post(Request("POST", b"/v1/labels", {}, body)))
    with pytest.raises(RequestError, match="100,000 labels"):
        asyncio.run(LabelInbox(tmp_path, MIB).post(Request("POST", b"/v1/labels", {}, body.replace(b":}", b":1}"))))


def test_a_budget_is_given_in_turn_and_never_passed():
    async def act():
        budget, order, most = SharedBudget(10), [], 0

        async def hold(name, size, opened):
            nonlocal most
            async with budget.part(size):
                order.append(name)
                most = max(most, budget.used if size <= 10 else 0)
                await opened.wait()

        opened = asyncio.Event()
        sizes = {"a": 6, "b": 5, "gone": 4, "c": 5, "alone": 50, "d": 1}
        tasks = {name: asyncio.ensure_future(hold(name, size, opened)) for name, size in sizes.items()}
        await asyncio.sleep(0)
        assert order == ["a"]
        tasks["gone"].cancel()
        await asyncio.sleep(0)
        opened.set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        return order, most, budget.used

    order, most, used = asyncio.run(act())
    assert order == ["a", "b", "c", "alone", "d"]
    assert most <= 10
    assert used == 0
