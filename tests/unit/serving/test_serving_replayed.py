"""Labels that a replay posts have the ids of the prediction log, with a gateway in front and without one."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import httpx
import pytest
from serving_models import ROW, servable
from test_serving_recording import serving

from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.flows.replay.replay_progress import ReplayRequest, load_or_begin, write_state
from cumulant.flows.replay.replay_rows import KnownLabel, ReplayCall
from cumulant.flows.replay.sending import Sender
from cumulant.ports.traffic import ListenOptions
from cumulant.serving.prediction_log.storage.log_reader import recent_predictions
from cumulant.testing.gateways import running as gateway
from cumulant.testing.gateways import wait_for
from cumulant.testing.log import folder_log

ASKED = ReplayRequest(model="flight-late", since=0, until=10)
BROKEN = 2


class Period:
    """Six rows, one a microsecond, each known at its own moment; the row `BROKEN` is refused."""

    model, labelled = "flight-late", frozenset(range(6))

    def calls(self, skip=0):
        for number in range(skip, 6):
            yield ReplayCall(number, number, json.dumps({"x": 1} if number == BROKEN else ROW).encode())

    def labels_from(self, skip=0):
        for number in range(skip, 6):
            yield KnownLabel(number, number, {"late": True})


def send(url, state, until=None):
    """Send the period, up to `until` answers; the number of posted labels."""
    seen = []
    sender = Sender(
        Period(),
        load_or_begin(state, ASKED, again=False),
        url=url,
        speed=1.0,
        concurrency=4,
        timeout=30.0,
        ended=lambda: until is not None and len(seen) >= until,
        seen=seen.append,
        note=lambda one: write_state(state, one),
        moving=lambda _: None,
    )
    asyncio.run(sender.run(ASKED.until))
    assert sender.label_trouble == ""
    assert sender.counts.last_failure.startswith("400: " if sender.counts.failures else "")
    assert bool(sender.counts.last_failure) == bool(sender.counts.failures)
    return sender.counts.labels


def posted(folder):
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.parametrize("kind", ["gateway", "direct", "alone"])
def test_posted_labels_match_the_prediction_log(tmp_path, kind):
    key = tmp_path / "gateway.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    labels, log = tmp_path / "labels", tmp_path / "log"
    more = () if kind == "alone" else ("--behind-gateway", "--gateway-key-file", key)
    with ExitStack() as stack:
        folder = servable(tmp_path / "servable")
        _, url = stack.enter_context(serving(folder, "--labels", labels, "--log", log, *more))
        if kind == "gateway":
            pytest.importorskip("envoy")
            traffic = EnvoyTraffic(f"envoy://{tmp_path}/gateway")
            output = stack.enter_context((tmp_path / "out").open("wb"))
            opening = ListenOptions(http="127.0.0.1:0", gateway_key_file=str(key))
            stack.enter_context(gateway(traffic, opening, output))
            arm = Arm(name="champion", version="1", endpoints=(url,))
            traffic.apply(Routes(model="flight-late", revision=1, champion=arm))
            url = traffic.address().url
            wait_for(lambda: httpx.get(f"{url}/v2/models/flight-late").status_code == 200)
        assert send(url, tmp_path, until=2) + send(url, tmp_path) == 5
        ids = posted(labels)
    assert len(ids) == len(set(ids)) == 5
    assert set(ids) <= {one.id for one in recent_predictions(folder_log(log))}
