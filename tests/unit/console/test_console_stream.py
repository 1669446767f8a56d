"""The stream of a tab: kinds of what happened, from where the browser was."""

import asyncio
import json
import re

import pytest
from console_support import ADA, console_application

from cumulant.core.events import Actor
from cumulant.flows.registry.models import ModelAliased
from cumulant.testing.access import GrantedAccess

PATH = "/projects/flight-late/stream"


def emit(project, version):
    with project.journal().transaction(actor=Actor("user:ada", "a secret reason")) as transaction:
        transaction.emit(ModelAliased(model="flight-late", alias="champion", version=version))


async def read_stream(project, *, wanted, headers=(), between=lambda: None):
    """The status and the text of the stream up to the message with `wanted` in it."""
    sent, received, gone = asyncio.Queue(), "", asyncio.Event()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": PATH,
        "raw_path": PATH.encode(), "query_string": b"", "scheme": "http", "server": ("testserver", 80),
        "headers": [(b"host", b"testserver"), *headers], "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    application = console_application({project.name: project}, principal=ADA)
    task = asyncio.create_task(application(scope, receive, sent.put))
    status = (await asyncio.wait_for(sent.get(), 20))["status"]
    try:
        while wanted not in received:
            part = await asyncio.wait_for(sent.get(), 20)
            received += part.get("body", b"").decode()
            if "retry" in received:
                between()
                between = lambda: None  # noqa: E731 - once
            if not part.get("more_body"):
                break
    finally:
        gone.set()
        await asyncio.wait_for(task, 20)
    return status, received


def test_what_happens_is_reported_by_its_kind_alone(project):
    status, text = asyncio.run(read_stream(project, wanted="data:", between=lambda: emit(project, "1")))
    data = json.loads(next(line for line in text.splitlines() if line.startswith("data:"))[5:])
    assert (status, data) == (200, {"seq": 1, "kinds": ["model.aliased"]})
    assert "secret" not in text
    assert "id: 1" in text


def test_a_browser_that_comes_back_gets_what_it_missed(project):
    emit(project, "1")
    emit(project, "2")
    headers = [(b"last-event-id", b"1")]
    _, text = asyncio.run(read_stream(project, wanted="data:", headers=headers))
    assert re.findall(r"id: (\d+)\ndata", text) == ["2"]


@pytest.mark.parametrize("given", [b"x", b"-1", b"9" * 30, b"99"])
def test_another_id_begins_now(project, given):
    headers = [(b"last-event-id", given)]
    _, text = asyncio.run(read_stream(project, wanted="data:", headers=headers, between=lambda: emit(project, "1")))
    assert re.findall(r"id: (\d+)\ndata", text) == ["1"]


def test_a_principal_who_may_not_see_events_gets_no_stream(project, monkeypatch):
    monkeypatch.setattr(project, "access", lambda: GrantedAccess([(ADA.id, "project.overview")]))
    assert asyncio.run(read_stream(project, wanted="events.show")) == (
        403,
        "user:ada may not do events.show to flight-late",
    )
