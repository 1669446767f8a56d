"""Calls whose connections wait at a gRPC worker when it is killed: what their callers see. Real processes and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter

import grpc
from grpc_support import SERVICE, doubled
from serving_graphs import scale
from test_serving_fleet import children, serving

from cumulant.serving.grpc.messages import INFERENCE

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
#: as a client's channel is told to wait for a server, rather than to fail with the first connection
PATIENT = json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True}]})
ANSWER = INFERENCE.message("ModelInferResponse").FromString


def body():
    asked = doubled(model="graph")
    asked.outputs.add(name="total")
    return asked.SerializeToString()


async def killed_under_calls(address, victim):
    """What becomes of calls, each on a connection of its own, at two workers one of which takes none and is killed: by
    status, and how many had no answer by then; for channels as they are, and for those that are told to wait.
    """
    os.kill(victim, signal.SIGSTOP)
    kinds = [(), (("grpc.service_config", PATIENT),)]
    options = [[("grpc.use_local_subchannel_pool", 1), *kinds[k % 2]] for k in range(60)]
    channels = [grpc.aio.insecure_channel(address, options=one) for one in options]
    calls = [channel.unary_unary(f"{SERVICE}ModelInfer")(body(), timeout=30) for channel in channels]
    ends = [asyncio.ensure_future(call.code()) for call in calls]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.3)
    waiting = [sum(not end.done() for end in ends[k::2]) for k in range(2)]
    os.kill(victim, signal.SIGKILL)
    codes = await asyncio.gather(*ends)
    for call, code in zip(calls, codes, strict=True):
        if code is OK:
            assert ANSWER(await call).raw_output_contents
    await asyncio.gather(*(channel.close() for channel in channels))
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
