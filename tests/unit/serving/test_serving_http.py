"""Connections: order, bounds, and everything that a hostile or careless client can send."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
import zlib
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.serving.errors import HttpError
from cumulant.serving.http.bodies import compress, decompress
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Response
from cumulant.serving.http.site import HttpSite

LIMITS = HttpLimits(body=1000, headers=2000, header_count=20, target=200, request=0.3, idle=0.4, waiting=4)


def echo(request):
    """Answers with the body at once, or after `/slow/SECONDS`."""
    if request.target.startswith(b"/slow/"):
        return slow(request, float(request.target[6:]))
    return Response(200, request.body)


async def slow(request, seconds):
    await asyncio.sleep(seconds)
    return Response(200, request.body)


@asynccontextmanager
async def server(handle=echo, limits=LIMITS):
    site = HttpSite(handle, limits)
    listening = await asyncio.get_running_loop().create_server(site, "127.0.0.1", 0)
    site.start()
    async with listening:
        yield site, listening.sockets[0].getsockname()
    await site.drain(0)


async def until(condition):
    """Waits for what a site comes to: it has no event for it."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a site has none
            await asyncio.sleep(0.005)


async def talk(address, *parts, pause=0.0):
    """What the server says to `parts`, until it closes or says nothing for a while."""
    reader, writer = await asyncio.open_connection(*address)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write_eof()
    found = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return found


def post(body, target="/", extra=""):
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def statuses(answer):
    return [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def bodies(answer):
    return [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]


def run(act):
    return asyncio.run(act())


def said(*parts, pause=0.0, limits=LIMITS):
    async def act():
        async with server(limits=limits) as (_, address):
            return await talk(address, *parts, pause=pause)

    return run(act)


def test_answers_come_in_the_order_of_the_requests():
    requests = [post(b"0", "/slow/0.05"), post(b"1"), post(b"2", "/slow/0.01"), *(post(b"%d" % k) for k in range(3, 9))]
    answer = said(b"".join(requests))
    assert statuses(answer) == [200] * 9
    assert bodies(answer) == [b"%d" % k for k in range(9)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=8), st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_requests_may_come_in_any_pieces(cuts, contents):
    whole = b"".join(map(post, contents))
    places = sorted({cut % len(whole) for cut in cuts})
    pieces = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    assert bodies(said(*pieces)) == contents


def test_chunked_bodies():
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert bodies(said(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) == [b"abcde"]
    big = b"".join(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(20)) + b"0\r\n\r\n"
    assert statuses(said(head + big + post(b"next"))) == [413, 200]


def test_head_gives_no_body_and_expect_is_answered():
    answer = said(b"HEAD /slow/0 HTTP/1.1\r\nHost: x\r\n\r\n" + post(b"abc", extra="Expect: 100-continue\r\n"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK" in answer
    assert answer.endswith(b"abc")


def test_http_1_0_and_connection_close_end_the_connection():
    for request in (
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
    ):
        answer = said(request + post(b"never"))
        assert bodies(answer) == [b"ab"]
        assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nBad\x00Header: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHOST: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: 1\r\n" % k for k in range(30)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nlong: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (post(b"x" * 1001), 413),
    ],
)
def test_what_is_no_request_is_refused_with_its_status(sent, status):
    assert statuses(said(sent))[0] == status


def test_a_header_without_end_is_bounded():
    async def act():
        async with server() as (site, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nx: ")
            for _ in range(100):
                writer.write(b"a" * 10_000)
                await asyncio.sleep(0)
            assert (await asyncio.wait_for(reader.read(4096), 60)).startswith(b"HTTP/1.1 431")
            writer.close()
            await until(lambda: not site.connections)

    run(act)


def test_a_claimed_gigabyte_is_refused_before_it_comes_and_ends_the_connection():
    async def act():
        async with server() as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 60)
            assert statuses(answer) == [413]
            writer.close()

    run(act)


def test_a_connection_outlives_what_was_refused():
    answer = said(
        post(b"x" * 2000) + post(b"ok") + b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n" + post(b"so")
    )
    assert statuses(answer) == [413, 200, 414, 200]


def test_slow_and_idle_clients_are_ended():
    async def act():
        async with server() as (site, address):
            connections = [await asyncio.open_connection(*address) for _ in range(3)]
            connections[0][1].write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le")
            connections[1][1].write(post(b"abcdef")[:-3])
            answers = [await asyncio.wait_for(reader.read(), 60) for reader, _ in connections]
            assert statuses(answers[1]) == [408]
            assert statuses(answers[0]) in ([], [408])
            assert answers[2] == b""
            for _, writer in connections:
                writer.close()
                await writer.wait_closed()
            await until(lambda: not site.connections)  # what lingers for bytes that may still come goes within a second

    run(act)


def test_a_client_that_does_not_read_is_ended_and_holds_little():
    async def act():
        async with server(lambda _: Response(200, b"x" * 4_000_000)) as (site, address):
            reader, writer = await asyncio.open_connection(*address, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(50):
                writer.write(post(b"more"))
            await until(lambda: site.connections)
            await until(lambda: not site.connections)
            writer.close()
            del reader

    run(act)


def test_draining_answers_what_was_accepted_and_ends_the_rest():
    async def act():
        begun, answer = asyncio.Event(), asyncio.Event()

        async def held(request):
            begun.set()
            await answer.wait()
            return Response(200, request.body)

        async with server(held, HttpLimits()) as (site, address):
            _, idle = await asyncio.open_connection(*address)
            busy_reader, busy = await asyncio.open_connection(*address)
            half_reader, half = await asyncio.open_connection(*address)
            busy.write(post(b"busy"))
            await asyncio.wait_for(begun.wait(), 60)
            half.write(post(b"half")[:-2])
            await until(lambda: len(site.connections) == 3 and site.body_bytes)
            draining = asyncio.ensure_future(site.drain(60))
            await asyncio.sleep(0.02)
            answer.set()
            half.write(b"lf")
            for reader, body in ((busy_reader, b"busy"), (half_reader, b"half")):
                whole = await asyncio.wait_for(reader.read(), 60)
                assert (statuses(whole), bodies(whole)) == ([200], [body])
                assert b"connection: close" in whole
            await asyncio.wait_for(draining, 60)
            for writer in (idle, busy, half):
                writer.close()

    run(act)


def test_a_client_that_leaves_cancels_its_request():
    begun, cancelled = [], []

    async def wait(_):
        begun.append(True)
        try:
            await asyncio.sleep(120)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def act():
        async with server(wait) as (_, address):
            _, writer = await asyncio.open_connection(*address)
            writer.write(post(b""))
            await until(lambda: begun)
            # At once, as when its process is killed; an orderly end of what it sends is no wish to leave.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await until(lambda: cancelled)

    run(act)


def test_random_bytes_never_end_the_server():
    noise = random.Random(5)
    whole = post(b"abc") + post(b"defg", extra="X: y\r\n") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    def mangled():
        sent = bytearray(whole)
        for _ in range(noise.randint(1, 12)):
            place = noise.randrange(len(sent))
            match noise.randrange(3):
                case 0:
                    sent[place] = noise.randrange(256)
                case 1:
                    del sent[place : place + noise.randint(1, 20)]
                case 2:
                    sent[place:place] = noise.randbytes(noise.randint(1, 20))
        return bytes(sent)

    async def act():
        async with server() as (_, address):
            for _ in range(300):
                answer = await talk(address, mangled())
                assert all(status in {200, 100, 400, 405, 408, 413, 414, 431} for status in statuses(answer))
            assert bodies(await talk(address, post(b"still here"))) == [b"still here"]

    run(act)


# --- bodies


@given(st.binary(max_size=5000))
def test_what_was_compressed_is_read(content):
    assert decompress(gzip.compress(content), b"gzip", 5000) == content
    assert decompress(zlib.compress(content), b"Deflate", 5000) == content
    assert decompress(content, b"identity", 5000) == content


def test_bombs_and_broken_streams_are_refused():
    bomb = gzip.compress(b"0" * 50_000_000)
    for body, encoding, status in (
        (bomb, b"gzip", 413),
        (bomb[:-10], b"gzip", 413),
        (gzip.compress(b"abc")[:-3], b"gzip", 400),
        (b"nothing of the kind", b"deflate", 400),
        (b"", b"gzip", 400),
        (b"abc", b"br", 415),
    ):
        with pytest.raises(HttpError) as refused:
            decompress(body, encoding, 1000)
        assert refused.value.status == status


def test_long_answers_are_compressed_for_those_who_take_it():
    body = b"[0.123456]" * 1000
    for accepted, wanted in ((b"gzip", b"gzip"), (b"br, deflate;q=0.5", b"deflate"), (b"gzip;q=0", b""), (b"br", b"")):
        packed, encoding = compress(body, accepted)
        assert encoding == wanted
        assert (decompress(packed, encoding, 20_000) if encoding else packed) == body
    assert compress(b"short", b"gzip") == (b"short", b"")
