"""A real server of the API on loopback, whose callers are who they say they are."""

import threading
import time
from contextlib import contextmanager

from cumulant.ports.access import Principal
from cumulant.server.application import create_application
from cumulant.server.connections import server_of
from cumulant.server.jobs import Jobs
from cumulant.server.serve import prepare_all_decoding
from cumulant.serving.sockets import bind, url_of

PROJECT = """
version: 1
model: {name: churn}
data:
  payments: {path: payments.csv, key: id}
monitoring: {review: {budget: 5/day}}
"""
ROWS = "id,paid,amount\n1,2026-01-02,10\n2,2026-01-03,20\n3,2026-01-04,30\n"


class CallerNamed:
    """Middleware: a header names the principal."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            name = dict(scope["headers"]).get(b"x-user", b"ada").decode()
            scope.setdefault("state", {})["principal"] = Principal(f"user:{name}", via="http")
        await self.app({**scope}, receive, send)  # as the middleware of proxies' headers does


@contextmanager
def serving(projects, *, jobs=None, port=0, authenticate=CallerNamed):
    """The URL of a server of these projects, until the block ends."""
    prepare_all_decoding()
    jobs = jobs or Jobs()
    server = server_of(create_application(projects, authenticate=authenticate, jobs=jobs))
    with bind("127.0.0.1", port) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield url_of(listener)
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)
            jobs.close()
