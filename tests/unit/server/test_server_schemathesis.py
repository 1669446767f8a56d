"""Generated requests: the API does as its document says, whatever it is sent, and shows nothing that is hidden."""

import pytest
from api_server import CallerNamed, serving
from filled_project import SECRET, opened_project
from generated_requests import send_requests

from cumulant.server.handler import problem_response
from cumulant.server.jobs import Jobs
from cumulant.server.problem import problem


class TokenNeeded(CallerNamed):
    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != b"Bearer secret":
            response = problem_response(problem(401, "who calls is not known", code="credentials", retryable=False))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@pytest.mark.slow
def test_schemathesis_finds_no_fault(tmp_path):
    with (
        opened_project(tmp_path) as project,
        serving({"shop": project}, jobs=Jobs(most=0), authenticate=TokenNeeded) as url,
    ):
        outcome = send_requests(
            tmp_path / "requests",
            url,
            "shop",
            "secret",
            spare="another",
            hidden={"a personal value": SECRET, "a folder": str(tmp_path)},
            values={"model": ["shop"], "source": ["visits"], "request": ["r3"]},
            options=("--max-examples", "4", "--generation-deterministic"),
        )
    assert outcome.faults == ""
    assert sum(outcome.statuses.values()) > 1_000
    assert outcome.statuses[200] > 50, "not refused for the names in its path alone"
