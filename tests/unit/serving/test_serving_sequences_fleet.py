"""Sequences over several workers of a real server: interleaved, and with workers killed in the middle."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import httpx
import numpy as np
import pytest
from tensor_models import write_sums
from test_serving_fleet import children, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def sums(tmp_path):
    return write_sums(tmp_path / "models" / "sums")


def step(url, x, **parameters):
    """A connection of its own, so that the system chooses the worker anew."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": x}
    body = {"inputs": [tensor], "parameters": parameters}
    return httpx.post(f"{url}/v2/models/sums/infer", json=body, timeout=20)


def total(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def test_interleaved_sequences_of_two_workers_equal_a_plain_loop(sums):
    rng, kept = random.Random(3), {}
    with serving(sums, "--workers", 2) as (_, ready):
        for _ in range(200):
            who, x = rng.choice(["a", "b", 3, 4]), [rng.randrange(50), rng.randrange(50)]
            start = who not in kept
            kept[who] = np.array(x) + kept.get(who, 0)
            answer = step(ready["url"], x, sequence_id=who, sequence_start=start)
            assert total(answer) == kept[who].tolist()


def test_a_killed_worker_loses_no_step_and_none_is_applied_twice(sums):
    """Each sequence says which step comes next: a step whose answer was lost is told apart from one that was not."""
    ended = threading.Event()
    faults: list[str] = []
    steps: dict[int, int] = {}

    def client(url, who):
        done, unanswered = 0, False
        while not ended.is_set() or done < 20 or unanswered:
            try:
                answer = step(url, [done + 1, 1], sequence_id=who, sequence_start=done == 0, sequence_step=done + 1)
            except httpx.TransportError:
                unanswered = True
                continue  # the same step again
            unanswered = False
            if answer.status_code == 409 and f"processed {done + 1} requests" in answer.text:
                done += 1
                continue
            done += 1
            if answer.status_code != 200 or total(answer) != [done * (done + 1) / 2, done]:
                faults.append(f"{who} at {done}: {answer.status_code} {answer.text}")
                return
        steps[who] = done

    with serving(sums, "--workers", 2, "--queue", "5s") as (process, ready):
        threads = [threading.Thread(target=client, args=(ready["url"], who)) for who in (1, 2, 3)]
        for one in threads:
            one.start()
        for _ in range(3):
            time.sleep(0.8)
            os.kill(random.choice(children(process)), signal.SIGKILL)
        time.sleep(1.5)
        ended.set()
        for one in threads:
            one.join(60)
        assert not faults
        assert sorted(steps) == [1, 2, 3]
        for who, done in steps.items():
            assert total(step(ready["url"], [0, 0], sequence_id=who))[1] == done


def test_a_named_folder_keeps_sequences_over_a_restart_and_without_one_they_end(sums, tmp_path):
    for options, status in ((["--sequences", tmp_path / "kept"], 200), ([], 404)):
        with serving(sums, *options) as (_, ready):
            assert total(step(ready["url"], [1, 2], sequence_id=1, sequence_start=True)) == [1, 2]
        with serving(sums, *options) as (_, ready):
            assert step(ready["url"], [1, 2], sequence_id=1).status_code == status


def test_bounds_are_those_of_all_workers(sums):
    with serving(sums, "--workers", 2, "--sequence-count", 3) as (_, ready):
        found = [step(ready["url"], [1, 2], sequence_id=n, sequence_start=True).status_code for n in range(1, 7)]
        assert found == [200] * 3 + [429] * 3


def test_idle_sequences_are_forgotten_as_the_servable_declares(tmp_path):
    with serving(write_sums(tmp_path / "sums", idle=5.0)) as (_, ready):
        step(ready["url"], [1, 2], sequence_id=1, sequence_start=True)
        assert step(ready["url"], [1, 2], sequence_id=1).status_code == 200
        time.sleep(5.5)
        answer = step(ready["url"], [1, 2], sequence_id=1)
        assert (answer.status_code, "5 s" in answer.text) == (404, True)


def test_a_fallback_of_the_server_takes_no_step_of_a_sequence(sums):
    with serving(sums, "--fallback", "cached", "--fallback", 'constant={"total": [0, 0]}') as (_, ready):
        assert total(step(ready["url"], [1, 2], sequence_id=1, sequence_start=True)) == [1, 2]
        assert total(step(ready["url"], [1, 2], sequence_id=1)) == [2, 4]
