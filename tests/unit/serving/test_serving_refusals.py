"""Requests that never became one: counted by reason, told seldom, and without what was sent."""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

import pytest
from serving_graphs import scale
from test_serving_fleet import metric, serving
from test_serving_http import LIMITS, post, run, server, talk

from cumulant.serving.http.refusals import HttpRefusal, Refusals

CASES = [
    (b"hush hush\r\n\r\n", "malformed", 400),
    (b"CONNECT hush:1 HTTP/1.1\r\nHost: x\r\n\r\n", "malformed", 400),
    (b"GET /" + b"x" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "target", 414),
    (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30 + b"\r\n", "headers", 431),
    (b"GET / HTTP/1.1\r\na: " + b"x" * 300_000, "headers", 431),
    (post(b"x" * 2000), "body", 413),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n", "body", 413),
]


def counts(site):
    return {reason: count for reason, count in site.refusals.counts.items() if count}


@pytest.mark.parametrize(("sent", "reason", "status"), CASES)
def test_each_is_counted_once_by_its_reason(sent, reason, status):
    async def act():
        async with server() as (site, address):
            assert f" {status} ".encode() in await talk(address, sent)
            return counts(site)

    assert run(act) == {reason: 1}


def test_slow_requests_and_readers_are_counted():
    async def act():
        async with server(limits=LIMITS) as (site, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HT")
            assert b" 408 " in await asyncio.wait_for(reader.read(), 60)
            writer.close()
            return counts(site)

    assert run(act) == {"slow": 1}


def test_a_good_request_counts_as_none():
    async def act():
        async with server() as (site, address):
            assert b" 200 " in await talk(address, post(b"x"))
            return counts(site)

    assert run(act) == {}


def test_a_flood_is_told_once_a_second_with_its_number():
    told, now = [], [100.0]
    refusals = Refusals(told.append, clock=lambda: now[0])
    for _ in range(500):
        refusals.add("malformed", 400, "10.0.0.1")
    refusals.add("slow", 408, "10.0.0.2")
    refusals.flush()
    assert told == [HttpRefusal("malformed", 400, "10.0.0.1", 1), HttpRefusal("slow", 408, "10.0.0.2", 1)]
    now[0] += 1
    refusals.flush()
    assert told[2:] == [HttpRefusal("malformed", 400, "10.0.0.1", 499)]
    refusals.add("malformed", 400, "10.0.0.3")
    assert len(told) == 3
    refusals.flush(every=True)
    assert told[3:] == [HttpRefusal("malformed", 400, "10.0.0.3", 1)]
    assert refusals.counts["malformed"] == 501


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_counts_them_for_all_workers_and_writes_lines_without_what_was_sent(tmp_path, workers):
    scale(tmp_path / "models" / "graph")
    with serving(tmp_path / "models", "--access-log", "--workers", workers) as (process, ready):
        place = urlsplit(ready["url"])
        for _ in range(6):
            with socket.create_connection((place.hostname, place.port), timeout=10) as wire:
                wire.sendall(b"hush hush\r\n\r\n")
                assert b" 400 " in wire.recv(1000)
        assert metric(ready["url"], 'cumulant_http_refused_total{reason="malformed"}') == 6
        assert metric(ready["url"], 'cumulant_http_refused_total{reason="slow"}') == 0
        process.terminate()
        text = process.stderr.read()
    assert "hush" not in text
    lines = [line for line in map(json.loads, text.splitlines()) if "refused" in line]
    assert sum(line["times"] for line in lines) == 6
    assert len(lines) <= 2 * workers
    assert {(line["refused"], line["status"], line["client"]) for line in lines} == {("malformed", 400, "127.0.0.1")}
