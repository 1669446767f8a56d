"""Timeouts, refusals, faults and cancelled calls over gRPC."""

from __future__ import annotations

import asyncio

import pytest
from grpc_support import SERVICE, Code, doubled, over, unpacked

from cumulant.core.errors import EngineUnavailableError, OverloadedError
from cumulant.serving.grpc.messages import message_class


def test_a_timeout_that_cannot_be_met_is_a_deadline_exceeded(slow):
    asked = doubled()
    asked.parameters["timeout"].int64_param = 1
    over(slow, lambda client: client.refused(Code.DEADLINE_EXCEEDED, "timeout", "ModelInfer", asked))


def test_the_deadline_of_the_call_counts_as_well(slow, monkeypatch):
    (model,) = slow.models
    seen = []
    later = model.runner.run_later

    async def spy(feeds, rows, demand):
        seen.append(demand)
        return await later(feeds, rows, demand)

    monkeypatch.setattr(model.runner, "run_later", spy)

    async def talk(client):
        patient, asked = doubled([1, 1, 1]), doubled([2, 2, 2])  # distinct: answers are remembered
        asked.parameters["timeout"].int64_param = 1_000_000
        patient.parameters["timeout"].int64_param = 60_000_000
        await client.infer(doubled([3, 3, 3]))
        await client.infer(doubled([4, 4, 4]), timeout=20)
        await client.infer(asked, timeout=20)
        await client.infer(patient, timeout=20)

    over(slow, talk)
    first, second, third, fourth = (one.deadline for one in seen)
    assert first is None
    assert third < second < third + 60
    assert abs(second - fourth) < 10
    assert {one.client for one in seen} == {"ipv4:127.0.0.1"}


@pytest.mark.parametrize(
    ("error", "code", "after"),
    [
        (OverloadedError("too much to do", retry_after=1.2), Code.RESOURCE_EXHAUSTED, "2"),
        (EngineUnavailableError("too far away"), Code.UNAVAILABLE, "1"),
    ],
)
def test_refusals_say_when_to_try_again(slow, monkeypatch, error, code, after):
    (model,) = slow.models

    async def later(*_):
        raise error

    monkeypatch.setattr(model.runner, "run_later", later)
    trailing = over(slow, lambda client: client.refused(code, "too ", "ModelInfer", doubled()))
    assert trailing["retry-after"] == after


def test_a_fault_of_the_server_is_told_without_its_inside(slow, monkeypatch, capfd):
    (model,) = slow.models

    def now(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(model.runner, "run_now", now)
    over(slow, lambda client: client.refused(Code.INTERNAL, "internal error", "ModelInfer", doubled()))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_cancelled_calls_do_not_harm_the_others(slow):
    async def talk(client):
        async def one(k):
            call = client.channel.unary_unary(SERVICE + "ModelInfer")(doubled([k, k, k]).SerializeToString())
            if k % 2:
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                return
            found = message_class("ModelInferResponse").FromString(await call)
            assert unpacked("FP32", found.raw_output_contents[0]) == [2 * k] * 3

        await asyncio.gather(*map(one, range(40)))
        await client.infer(doubled())

    over(slow, talk)
