"""Calls whose connections wait at a gRPC worker when it is killed: what their callers see. Real processes and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import grpc
from grpc_support import SERVICE, doubled
from log_support import LONG
from serving_graphs import scale
from test_serving_fleet import children, serving

from cumulant.serving.grpc.messages import message_class

#: the state of a connection in /proc/net/tcp
ESTABLISHED = "01"
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
#: as a client's channel is told to wait for a server, rather than to fail with the first connection
PATIENT = json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True}]})
ANSWER = message_class("ModelInferResponse").FromString


def body():
    asked = doubled(model="graph")
    asked.outputs.add(name="total")
    return asked.SerializeToString()


def unaccepted(address):
    """How many connections to the address no worker has taken: the system gives their sockets no inode."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    return sum(line[1].endswith(port) and line[3] == ESTABLISHED and line[9] == "0" for line in lines)


async def settled(address, ends):
    """Wait until each call has its answer or its connection is one that no worker takes, and both kinds are there."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        done, queued = sum(end.done() for end in ends), unaccepted(address)
        if done and queued and done + queued == len(ends):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{done} calls are answered and {queued} connections wait")


async def killed_under_calls(address, victim):
    """What becomes of calls, each on a connection of its own, at two workers one of which takes none and is killed: by
    status, and how many had no answer by then; for channels as they are, and for those that are told to wait.
    """
    os.kill(victim, signal.SIGSTOP)
    kinds = [(), (("grpc.service_config", PATIENT),)]
    options = [[("grpc.use_local_subchannel_pool", 1), *kinds[k % 2]] for k in range(60)]
    channels = [grpc.aio.insecure_channel(address, options=one) for one in options]
    calls = [channel.unary_unary(f"{SERVICE}ModelInfer")(body(), timeout=LONG) for channel in channels]  # type: ignore[call-arg]
    ends = [asyncio.ensure_future(call.code()) for call in calls]
    await settled(address, ends)
    waiting = [sum(not end.done() for end in ends[k::2]) for k in range(2)]
    os.kill(victim, signal.SIGKILL)
    codes = await asyncio.gather(*ends)
    for call, code in zip(calls, codes, strict=True):
        if code is OK:
            assert ANSWER(await call).raw_output_contents
    await asyncio.gather(*(channel.close() for channel in channels))  # type: ignore[call-arg]
    return [(Counter(codes[k::2]), waiting[k]) for k in range(2)]


def test_calls_that_wait_for_a_killed_worker_fail_as_unavailable_or_wait_for_another_if_they_are_told_to(tmp_path):
    scale(tmp_path / "models" / "graph")
    with serving(tmp_path / "models", "--workers", 2, "--grpc", "127.0.0.1:0") as (process, ready):
        found = asyncio.run(killed_under_calls(ready["grpc"], children(process)[0]))
    (codes, waiting), (patient, others) = found
    assert codes.keys() == {OK, UNAVAILABLE}
    assert 0 < codes[UNAVAILABLE] <= waiting
    assert patient == {OK: 30}
    assert others > 0
