"""`cumulant predict FILE --url`: answers of a server where there is no project, and the token that it wants."""

from __future__ import annotations

import json
import re
import socket

import pytest
from batch_models import COLUMNS, trees

from cumulant.cli.app import run
from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.core.traffic import Arm
from cumulant.flows.release.controller.evidence import fetch_output_shape
from cumulant.flows.serving.serve import await_ready, folders_command
from cumulant.flows.serving.server_client import RemoteServer
from cumulant.flows.serving.spawning import spawn
from cumulant.servable.engine import Engine
from cumulant.serving.access_token import read_token

VALUES = (0.5, -1.0, 2.0, 0.0, 0.25, -0.75)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model behind a token."""
    place = tmp_path_factory.mktemp("served")
    trees(place / "forest")
    (place / "token").write_text("a-token-of-the-test\n")
    (place / "token").chmod(0o600)
    line = folders_command(
        [str(place / "forest")], http="127.0.0.1:0", given={"token_file": place / "token"}, ready=place / "ready"
    )
    process = spawn(line, stderr=None)
    try:
        yield place, await_ready(process, place / "ready", lambda: AssertionError("it ended")).url  # type: ignore[return-value]
    finally:
        process.terminate()
        process.wait(timeout=60)


def ask(folder, monkeypatch, *words):
    monkeypatch.chdir(folder)
    return run(["predict", "rows.csv", *map(str, words)])


def test_no_project_is_needed(tmp_path, server, monkeypatch, capsys):
    import numpy as np

    place, url = server
    (tmp_path / "rows.csv").write_text(f"{','.join(COLUMNS)},more\n{','.join(map(str, VALUES))},x\n")
    assert ask(tmp_path, monkeypatch, "--url", url, "--token-file", place / "token", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (want,) = Engine(place / "forest" / "model.onnx").run({"input": np.array([VALUES], "f4")})
    assert document["answers"] == [{"output": want.ravel().tolist()}]
    monkeypatch.setenv("CUMULANT_TOKEN", "a-token-of-the-test")
    assert ask(tmp_path, monkeypatch, "--url", url, "--model", "forest", "--out", "answers.jsonl") == 0
    assert json.loads((tmp_path / "answers.jsonl").read_text()) == document["answers"][0]


def test_the_release_controller_reads_outputs_with_the_token(server):
    said, arm = [], Arm(name="candidate", version="2", endpoints=(server[1],))
    assert fetch_output_shape(arm, "forest", said.append) is None
    assert said == ["outputs are not compared: the candidate does not show them to the controller (HTTP 401)"]
    assert fetch_output_shape(arm, "forest", pytest.fail, token="a-token-of-the-test")


def test_what_the_server_refuses_is_told(tmp_path, server, monkeypatch, capsys):
    _, url = server
    (tmp_path / "rows.csv").write_text(f"{','.join(COLUMNS)}\n{','.join(map(str, VALUES))}\n")
    monkeypatch.delenv("CUMULANT_TOKEN", raising=False)
    assert ask(tmp_path, monkeypatch, "--url", url) == 2
    assert "--token-file FILE, or CUMULANT_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("CUMULANT_TOKEN", "a-token-of-the-test")
    assert ask(tmp_path, monkeypatch, "--url", url, "--model", "forrest") == 2
    assert 'did you mean "forest"' in capsys.readouterr().err
    assert ask(tmp_path, monkeypatch, "--url", "127.0.0.1:1") == 2
    assert ask(tmp_path, monkeypatch, "--url", "http://127.0.0.1:9") == 3


@pytest.mark.parametrize("text", ["two words", "two\nlines", "ž", "a\tb"])
def test_a_token_that_no_header_carries_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(f" {text}\n", encoding="utf-8")
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(UsageError, match="holds a space, a line break or a letter"):
        read_token(tmp_path / "token", {})
    with pytest.raises(UsageError, match="CUMULANT_TOKEN"):
        read_token(None, {"CUMULANT_TOKEN": text})


def test_a_server_that_does_not_answer_is_reported_in_plain_words():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            EngineUnavailableError, match=f"^no server answers at {re.escape(url)}/v2: Connection refused$"
        ):
            RemoteServer(url).get("/v2")
