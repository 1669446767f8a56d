"""Generated requests: the API does as its document says, whatever it is sent."""

import json
import re
import subprocess
import sys

import httpx
import pytest
from api_server import CallerNamed, serving
from test_server_reads import emit

from cumulant.server.handler import problem_response
from cumulant.server.jobs import Jobs
from cumulant.server.problem import problem

#: what a schema cannot say: which names there are
UNSAYABLE = "positive_data_acceptance"


class TokenNeeded(CallerNamed):
    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != b"Bearer secret":
            response = problem_response(problem(401, "who calls is not known", code="credentials", retryable=False))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def without_header_parameters(document):
    """So that no request with an unknown header is expected to be refused."""
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["parameters"] = [each for each in operation.get("parameters", ()) if each["in"] != "header"]
    return document


@pytest.mark.slow
def test_schemathesis_finds_no_fault(project, tmp_path):
    emit(project, 30)
    config = tmp_path / "schemathesis.toml"
    config.write_text('[parameters]\n"path.project" = "churn"\n')
    with serving({project.name: project}, jobs=Jobs(most=0), authenticate=TokenNeeded) as url:
        document = httpx.get(f"{url}/v1/openapi.json", headers={"authorization": "Bearer secret"}).json()
        (tmp_path / "openapi.json").write_text(json.dumps(without_header_parameters(document)))
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(config),
            "run",
            str(tmp_path / "openapi.json"),
            "--url",
            url,
            "--no-color",
            "-n",
            "4",
            "--phases",
            "examples,coverage,fuzzing",
            "--generation-deterministic",
            "--max-time",
            "40",
            "--exclude-checks",
            f"{UNSAYABLE},ignored_auth",
            "--header",
            "authorization: Bearer secret",
            "--request-timeout",
            "60",
            "--exclude-path-regex",
            "stream$",
            "--continue-on-failure",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-60000:] + done.stderr[-2000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None
    assert int(generated[1]) > 1000
