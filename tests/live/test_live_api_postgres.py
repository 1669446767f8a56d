"""The API over a journal in PostgreSQL, whose texts hold no NUL: what a caller writes is never the server's fault."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from api_server import PROJECT, ROWS, serving
from test_server_writes import FIELDS

from cumulant.project.file.loading import load
from cumulant.server.operation_list import OPERATIONS
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """A client below the path of a project whose journal is in PostgreSQL."""
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    folder = tmp_path_factory.mktemp("shop") / "churn"
    folder.mkdir()
    (folder / "payments.csv").write_text(ROWS)
    with postgres_server() as running:
        running.execute("CREATE DATABASE cumulant")
        url = running.url("cumulant")
        (folder / "cumulant.yaml").write_text(f"{PROJECT}environments: {{local: {{journal: '{url}'}}}}\n")
        with (
            load(folder, via="http") as project,
            serving({project.name: project}) as server,
            httpx.Client(base_url=f"{server}/v1/projects/churn", timeout=60) as http,
        ):
            yield http


def with_text(kind, text):
    """Fields of a query or a body, each that takes a text with this one."""
    fields = msgspec.structs.fields(kind) if kind else ()
    values = {field.name: FIELDS[field.name] for field in fields if field.required}
    texts = {field.name: text for field in fields if field.type is str or field.type == str | None}
    lists = {field.name: [text] for field in fields if field.type in (tuple[str, ...], list[str])}
    return values | texts | lists


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud7ff\uffff", "'; DROP TABLE state; --", "%"])
def test_no_text_of_a_caller_is_a_fault_of_the_server(api, text):
    faults = []
    for operation in OPERATIONS:
        if not operation.long:
            path = operation.path.format(**dict.fromkeys(operation.parameters, quote(text, safe="")))
            query, body = (with_text(operation.types.get(name), text) for name in ("query", "body"))
            response = api.request(operation.method, path, params=query, json=body if operation.writes else None)
            if response.status_code >= 500:
                faults.append((operation.name, response.status_code, response.json()["detail"]))
    assert faults == []
