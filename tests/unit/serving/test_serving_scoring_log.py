"""The entry of a request whose row the stored state refuses: nobody waits for the log's answer."""

import asyncio
import gc
import time

import pytest
from log_support import ANSWERS

from cumulant.core.errors import EngineUnavailableError
from cumulant.serving.endpoints.scoring import ScoringService
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.prediction_log.confirmed_client import ConfirmedClient
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.telemetry.metrics import Metrics


class Request:
    received = 0.0
    principal = "user:ada"


class Logbook:
    """The durable log, by its client; the process does not run."""

    def __init__(self, client):
        self.client = client

    def put(self, *_):
        when = time.time_ns() // 1000
        return self.client.put(LogEntry(id="a", time_us=when, latency_us=1, model="m", version="1", answers=ANSWERS))


class Recorder:
    def record_scored(self, *_):
        raise EngineUnavailableError("too many rows wait for the disk", hint="try again")


class Scored:
    work = RequestWork({}, 1)


def test_a_refused_row_leaves_no_error_that_nobody_retrieves(tmp_path):
    reported = []

    async def work():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))
        client = ConfirmedClient(tmp_path / "log.sock", worker="w", personal={"m": []}, patience=0.1)
        counted = ScoringService(Metrics())
        counted.prediction_logger, counted.recorder = Logbook(client), Recorder()
        with pytest.raises(EngineUnavailableError, match="too many rows"):
            counted._record(Request(), Scored(), [], None)
        await client.close()
        assert client.refused == 1

    asyncio.run(work())
    gc.collect()
    assert reported == []
