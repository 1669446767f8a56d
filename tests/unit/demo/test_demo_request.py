"""The demo's request, where its server does not answer it."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from cumulant.core.errors import StepFailedError
from cumulant.demo import demo


def test_a_server_that_does_not_answer_is_reported(monkeypatch):
    monkeypatch.setattr(demo, "_next_flight", lambda *_: ({"distance": 1}, None))
    trained = SimpleNamespace(model=SimpleNamespace(name="late"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StepFailedError, match="the server did not answer the request: Connection refused"):
            demo.send_request(None, trained, url)
