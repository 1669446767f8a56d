"""Connections under careless and hostile clients: what was accepted is answered whole, and memory is bounded."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from serving_graphs import echo, scale
from serving_models import call
from test_serving_http import bodies, post, run, said, server, slow, statuses, talk, until

from cumulant.core.errors import RequestError
from cumulant.serving.access.callers import Callers, CallerToken
from cumulant.serving.access.control import AccessControl
from cumulant.serving.app import ServingApplication
from cumulant.serving.grpc.codec import read_message
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Request, Response
from cumulant.serving.http.site import HttpSite
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.protocol.inference import read_demand
from cumulant.serving.settings import Settings
from cumulant.serving.workers.worker import Worker

LARGE = b"x" * (16 * 1024 * 1024)


def large_or_slow(request):
    if request.target.startswith(b"/slow/"):
        return slow(request, float(request.target[6:]))
    return Response(200, LARGE)


async def read_slowly(address, *requests, pause):
    """All that the server says, to a client that waits before it reads."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        await loop.sock_sendall(connection, b"".join(requests))
        await asyncio.sleep(pause)
        found = bytearray()
        while data := await loop.sock_recv(connection, 1 << 20):
            found += data
        return bytes(found)


def test_a_large_last_answer_reaches_a_client_that_takes_some_seconds():
    async def act():
        async with server(large_or_slow, HttpLimits()) as (_, address):
            return await read_slowly(address, post(b"", extra="Connection: close\r\n"), pause=2.5)

    assert bodies(run(act)) == [LARGE]


def test_an_accepted_request_is_answered_though_the_next_one_is_broken():
    async def act():
        async with server(large_or_slow, HttpLimits()) as (_, address):
            return await read_slowly(address, post(b"first", "/slow/2.5"), b"no http\r\n\r\n", pause=0)

    assert bodies(run(act)) == [b"first"]


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_an_offer_of_another_protocol_is_passed_over(body):
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    assert bodies(said(post(body, extra=offer) + post(b"next"))) == [body, b"next"]


def test_a_tunnel_is_refused():
    assert statuses(said(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"))[-1] == 400


def test_all_unfinished_bodies_together_are_bounded():
    limits = HttpLimits(body=1000, bodies=2500)

    async def act():
        async with server(limits=limits) as (site, address):
            pairs = [await asyncio.open_connection(*address) for _ in range(4)]
            for number, (_, writer) in enumerate(pairs[:3]):
                writer.write(post(b"x" * 1000)[:-1])
                await until(
                    lambda n=number: site.body_bytes + 999 * sum(site.refusals.counts.values()) == 999 * (n + 1)
                )
            assert site.body_bytes <= limits.bodies
            refused = await asyncio.wait_for(pairs[2][0].read(65536), 60)
            pairs[0][1].write(b"x")
            answered = await asyncio.wait_for(pairs[0][0].read(65536), 60)
            pairs[3][1].write(post(b"fits"))
            other = await asyncio.wait_for(pairs[3][0].read(65536), 60)
            for _, writer in pairs:
                writer.close()
            await until(lambda: not site.body_bytes)
            return statuses(refused + answered + other)

    assert run(act) == [429, 200, 200]


def echo_body(request):
    return Response(200, request.body)


def test_bodies_that_wait_behind_others_of_their_connection_are_bounded_together():
    limits = HttpLimits(body=1000, bodies=2500)

    async def act():
        answer = asyncio.Event()

        async def waits(request):
            await answer.wait()
            return Response(200, request.body)

        async with server(waits, limits=limits) as (site, address):
            pairs = [await asyncio.open_connection(*address) for _ in range(4)]
            for number, (_, writer) in enumerate(pairs):
                writer.write(post(b"a") + post(b"x" * 900))
                await until(
                    lambda n=number: site.body_bytes + 900 * sum(site.refusals.counts.values()) == 900 * (n + 1)
                )
            held, answered = [site.body_bytes], []
            answer.set()
            for reader, writer in pairs:
                found = b""
                while len(statuses(found)) < 2 and (data := await asyncio.wait_for(reader.read(65536), 60)):
                    found += data
                answered.append(statuses(found))
                writer.close()
            held.append(site.body_bytes)
            answer.clear()
            _, lost = await asyncio.open_connection(*address)
            lost.write(post(b"a") + post(b"x" * 900))
            await until(lambda: site.body_bytes == 900)
            for connection in site.connections:
                connection.abort()
            await until(lambda: not site.body_bytes)
            lost.close()
            return held, answered

    assert run(act) == ([1800, 0], [[200, 200], [200, 200], [200], [200]])


@pytest.mark.parametrize("header", ["X-Long: " + "y" * 1000 + "\r\n", "".join(f"x{n}:y\r\n" for n in range(10))])
def test_heads_of_requests_that_wait_behind_others_are_bounded_together(header):
    """Also where all are short: a header takes more than its text."""

    async def act():
        async def held(request):
            await answer.wait()
            return Response(200, b"")

        answer = asyncio.Event()
        async with server(held, limits=HttpLimits(heads=30_000)) as (site, address):
            pairs = []
            for number in range(8):
                pairs.append(await asyncio.open_connection(*address))
                pairs[-1][1].write(post(b"", extra=header) * 6)
                await until(lambda n=number: sum(map(was_read, site.connections)) == n + 1)
            # The first is refused in the middle of its requests, the second after the one that is being answered.
            assert site.refusals.counts["crowded"] >= 2
            most = site.head_bytes
            answer.set()
            found = await asyncio.wait_for(asyncio.gather(*(all_of(reader) for reader, _ in pairs)), 60)
            for _, writer in pairs:
                writer.close()
            return most, [len(one) for one in found], site

    most, answers, site = run(act)
    assert 20_000 < most <= 30_000
    assert (min(answers), max(answers)) == (1, 6)
    assert site.head_bytes == 0


def was_read(connection):
    """Whether all six requests came: one is being answered, the others wait, or one of them was refused."""
    return connection._ending or len(connection._waiting) == 5


async def all_of(reader):
    """The statuses of six answers, or of all up to the end of the connection."""
    found = b""
    while len(statuses(found)) < 6 and (data := await reader.read(65536)):
        found += data
    return statuses(found)


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("begin", [b"3\r\nabc\r\n0\r\n", b"0\r\ntrailer: ", b"3;extension="])
@pytest.mark.parametrize("piece", [b"name: value\r\n" * 1000, b"x" * 14_000])
@pytest.mark.parametrize("token", [True, False])
def test_a_chunked_body_that_does_not_end_is_cut_off(begin, piece, token):
    """With and without a handler that answers by the head alone."""

    async def act():
        site = HttpSite(echo_body, HttpLimits(), None if token else lambda *_: False)
        async with await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0) as listening:
            _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(CHUNKED + begin + piece * 100)
            async with asyncio.timeout(60):
                while not any(connection._ending for connection in site.connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            writer.close()

    run(act)


def test_trailers_are_no_headers():
    heard = []

    def handle(request):
        heard.append(request.headers)
        return Response(200, request.body)

    async def act():
        async with server(handle) as (_, address):
            return await talk(address, CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: x\r\nHost: y\r\n\r\n", post(b"next"))

    assert bodies(run(act)) == [b"abc", b"next"]
    assert heard[0] == {b"host": b"x", b"transfer-encoding": b"chunked"}


def test_a_request_of_http_1_0_needs_no_host():
    assert statuses(said(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")) == [200]
    assert statuses(said(b"POST / HTTP/1.0\r\nHost: x\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"))[:1] == [400]


def test_large_requests_behind_a_slow_one_are_not_all_read():
    async def act():
        async with server(limits=HttpLimits(body=400_000)) as (site, address):
            _, writer = await asyncio.open_connection(*address)
            writer.write(post(b"first", "/slow/3") + post(b"x" * 400_000) * 30)
            await asyncio.sleep(0.5)
            held = site.body_bytes
            writer.close()
            return held

    assert 400_000 <= run(act) < 2_000_000


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    home = tmp_path_factory.mktemp("faults")
    return ServingApplication(
        ModelSet([open_model(scale(home / "graph")), open_model(echo(home / "echo", name="echo"))])
    )


def infer(app, model="graph", **more):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    return call(app, "POST", f"/v2/models/{model}/infer", {"inputs": [tensor | more.pop("tensor", {})]} | more)


@pytest.mark.parametrize("value", [10**400, 2**63, -1])
def test_numbers_of_hundreds_of_digits_are_the_callers_fault(app, value):
    for name in ("timeout", "priority"):
        assert infer(app, parameters={name: value}).status_code == 400
        with pytest.raises(RequestError):
            read_demand({name: value}, 0.0, "")


@pytest.mark.parametrize("shape", [[10**300] * 32, [0, 10**30], [0, 2**40, 2**40], [10**4000], [1, 10**4000]])
def test_shapes_that_no_tensor_has_are_the_callers_fault(app, shape):
    assert infer(app, tensor={"shape": shape}).status_code == 400
    assert infer(app, "echo", tensor={"name": "in_FP32", "shape": shape, "data": []}).status_code == 400


def test_a_length_of_thousands_of_digits_is_the_callers_fault(app):
    headers = {"inference-header-content-length": "1" * 5000}
    assert call(app, "POST", "/v2/models/graph/infer", b"{}", headers=headers).status_code == 400


def test_a_number_without_end_in_a_grpc_message_is_refused_at_once():
    started = time.thread_time()  # of this thread alone: what else runs does not count
    with pytest.raises(RequestError):
        read_message(b"\xff" * (8 * 1024 * 1024))
    assert time.thread_time() - started < 1


def test_junk_behind_a_path_does_not_push_out_what_is_known(app):
    app._known.clear()
    for number in range(300):
        app(Request("POST", b"/v2/models/graph/infer?junk=%d" % number, {}, b"{}"))
    infer(app)
    assert b"/v2/models/graph/infer" in app._known


def test_more_plain_rows_than_the_event_loop_can_spare_time_for_are_refused(app):
    row = {"x": [1.0, 2.0, 3.0]}
    for body in ([row] * 10_001, {"rows": [row] * 10_001}):
        answer = call(app, "POST", "/v1/models/graph/predict", body)
        assert (answer.status_code, "several requests" in answer.json()["error"]) == (413, True)
    assert call(app, "POST", "/v1/models/graph/predict", [row] * 10_000).status_code == 200


def test_a_row_that_is_a_list_is_told_what_a_row_is(app):
    assert "name its inputs: x" in call(app, "POST", "/v1/models/graph/predict", [[1.0, 2.0, 3.0]]).json()["error"]


def test_a_client_that_goes_on_reading_keeps_its_connection_and_one_that_stops_does_not():
    """However long the whole takes: here several times what a client may be idle for."""

    async def reader(address, pieces, pause):
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, post(b""))
            found = 0
            for _ in range(pieces):
                await asyncio.sleep(pause)
                found += len(await loop.sock_recv(connection, 1 << 16))
            while found < len(LARGE) and (data := await loop.sock_recv(connection, 1 << 20)):
                found += len(data)
            return found

    async def act():
        async with server(large_or_slow, HttpLimits(request=1.5)) as (site, address):
            steady = asyncio.ensure_future(reader(address, 20, 0.3))
            lazy = socket.create_connection(address)
            with lazy:
                lazy.sendall(post(b""))
                await until(lambda: len(site.connections) == 2)
                await until(lambda: len(site.connections) == 1)  # who takes nothing is gone
                assert await steady >= len(LARGE)

    run(act)


@pytest.mark.parametrize("head", [post(b"x" * 900)[:-900], post(b"", extra="Expect: 100-continue\r\n")])
def test_a_request_without_a_token_is_refused_before_its_body_comes(head, tmp_path):
    app = ServingApplication(
        ModelSet([open_model(scale(tmp_path / "graph"))]), access=AccessControl(Callers([CallerToken("secret")]))
    )

    async def act():
        site = HttpSite(app, HttpLimits(), app.requests.admitted)
        listening = await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0)
        async with listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(head)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert statuses(answer) == [401]
            assert b"100 Continue" not in answer
            writer.write(b"x" * 500)
            await asyncio.sleep(0.05)
            assert site.body_bytes == 0, "its body is kept"
            writer.close()

    run(act)


def test_a_request_without_a_token_behind_another_waits_for_its_turn(tmp_path):
    def handle(request):
        if not admitted(request.target, request.headers):
            return Response(401, b"no")
        return slow(request, 0.1)

    def admitted(_, headers):
        return headers.get(b"authorization") == b"yes"

    async def act():
        site = HttpSite(handle, HttpLimits(), admitted)
        listening = await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0)
        async with listening:
            known = post(b"a", extra="Authorization: yes\r\n")
            last = post(b"a", extra="Authorization: yes\r\nConnection: close\r\n")
            return await talk(listening.sockets[0].getsockname(), known + post(b"b") + last)

    answer = run(act)
    assert statuses(answer) == [200, 401, 200]
    assert bodies(answer) == [b"a", b"no", b"a"]


@pytest.mark.parametrize("length", [900, 999_999_999])
def test_a_body_without_a_token_behind_a_slow_request_is_not_counted(length):
    """It is thrown away, so that it takes nothing from the callers who have one."""

    async def act():
        limits = HttpLimits(body=1000, bodies=1000)
        site = HttpSite(lambda request: slow(request, 0.5), limits, lambda _, headers: b"authorization" in headers)
        async with await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0) as listening:
            address = listening.sockets[0].getsockname()
            known = post(b"a", extra="Authorization: yes\r\n")
            _, hostile = await asyncio.open_connection(*address)
            hostile.write(known + f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
            for _ in range(10):
                hostile.write(b"x" * 80)
                await hostile.drain()
                await asyncio.sleep(0.01)
            await until(lambda: site.refusals.counts["body"] == int(length > 1000))
            counted, refused = site.body_bytes, site.refusals.counts["body"]
            found = await talk(address, post(b"x" * 900, extra="Authorization: yes\r\nConnection: close\r\n"))
            hostile.close()
            await site.drain(0)
            await asyncio.sleep(0.05)
            return counted, refused, statuses(found)

    assert run(act) == (0, int(length > 1000), [200])


def test_a_body_without_a_token_is_not_counted_where_its_refusal_cannot_be_written():
    async def act():
        site = HttpSite(echo_body, HttpLimits(body=1000, bodies=1000), lambda *_: False)
        async with await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0) as listening:
            _, hostile = await asyncio.open_connection(*listening.sockets[0].getsockname())
            await until(lambda: site.connections)
            (connection,) = site.connections
            connection.pause_writing()
            connection.data_received(post(b"x" * 900)[:-100])
            counted = site.body_bytes
            hostile.close()
            await site.drain(0)
            await asyncio.sleep(0.05)
            return counted

    assert run(act) == 0


@pytest.mark.parametrize("body_limit", [8 << 20, 1 << 30])
def test_two_bodies_of_the_most_bytes_may_come_at_once(body_limit, tmp_path):
    folder = scale(tmp_path / "graph")
    worker = Worker(Settings(folders=(str(folder),), body_limit=body_limit))
    try:
        limits = worker._site.limits
        assert limits.body == body_limit
        assert limits.bodies >= max(2 * body_limit, HttpLimits().bodies)
    finally:
        worker.close()
