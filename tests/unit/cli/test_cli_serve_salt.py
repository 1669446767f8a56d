"""`cumulant serve` on a project whose salt is a secret, and what it passes on to the data plane."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import write_visits
from cumulant.core.errors import UsageError
from cumulant.core.masking import fingerprint, mask
from cumulant.flows.serving.serve import folders_command
from cumulant.flows.serving.spawning import spawn
from cumulant.project.file.loading import load
from cumulant.servable.folder import load_servable
from cumulant.serving.prediction_log.storage.log_reader import find_predictions
from cumulant.testing.log import folder_log

SECRET = "pepper and more pepper"
_SAYS = """
import json, os, sys
from pathlib import Path
path = sys.argv[sys.argv.index("--salt-file") + 1]
said = {"salt": Path(path).read_text(), "words": sys.argv, "names": list(os.environ)}
said["hidden"] = not any("pepper" in one for one in [*sys.argv, *os.environ.values()])
sys.stderr.write(json.dumps(said))
"""


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained project with a personal number in its requests, whose salt is a secret."""
    from cumulant.cli.app import run

    folder = tmp_path_factory.mktemp("salted")
    write_visits(folder / "visits.csv")
    made = ["--from", str(folder / "visits.csv"), "--target", "bought", "--time", "began", "--key", "visit"]
    assert run(["new", "shop", *made, "--project", str(folder)]) == 0
    file = folder / "shop" / "cumulant.yaml"
    text = file.read_text().replace("personal: [email]", "personal: [email, pages]")
    file.write_text(text + 'environments:\n  local:\n    salt: "${secret:SHOP_SALT}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_SALT", SECRET)
        # Too few rows for the gate, which does not matter here: the model is registered all the same.
        assert run(["train", "--quick", "--project", str(folder / "shop")]) in (0, 1)
        yield folder / "shop"


def test_the_data_plane_reads_the_salt_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SALT", SECRET)
    monkeypatch.setenv("OTHER", "stays")
    process = spawn([sys.executable, "-c", _SAYS], stderr=subprocess.PIPE, salt=SECRET.encode())
    said = json.loads(process.communicate(timeout=60)[1])
    assert (said["salt"], said["hidden"]) == (SECRET, True)
    assert "OTHER" in said["names"]
    assert "SHOP_SALT" not in said["names"]
    with pytest.raises(UsageError, match="4096"):
        spawn([sys.executable, "-c", ""], stderr=subprocess.PIPE, salt=b"x" * 5000)


def test_options_reach_the_data_plane_under_the_same_names() -> None:
    given = {"access_log": True, "traces": "http://collector:4318", "salt_file": "salt"}
    line = folders_command(["model"], http="127.0.0.1:0", given=given)
    assert "--access-log" in line
    assert line[line.index("--traces") + 1] == "http://collector:4318"
    assert line[line.index("--salt-file") + 1] == "salt"
    assert not {"--access-log", "--traces", "--salt-file"} & set(
        folders_command(["model"], http="127.0.0.1:0", given={})
    )


@contextlib.contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "cumulant.cli", "serve", *words, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while not said.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            said += line
        yield process, json.loads(said)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.slow
def test_a_project_hashes_with_the_secret_of_its_environment(personal: Path, cumulant: Any) -> None:
    fields = cumulant("models", "show", "--project", str(personal), "--json").document["request"]
    row = {"channel": "search", "pages": 25, "began": "2026-01-29T10:00:00Z"}
    body = json.dumps({name: row[name] for name in (field["name"] for field in fields)}).encode()
    with serving("--project", str(personal), "--access-log") as (process, document):
        headers = {"content-type": "application/json", "x-request-id": "r1"}
        request = urllib.request.Request(f"{document['url']}/v1/models/shop/predict", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200
        server = Path(f"/proc/{document['pid']}")
        assert b"--access-log" in (server / "cmdline").read_bytes()
        assert SECRET.encode() not in (server / "cmdline").read_bytes() + (server / "environ").read_bytes()
        os.kill(process.pid, signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
        assert [(line["path"], line["request_id"]) for line in lines] == [("/v1/models/{model}/predict", "r1")]
    (one,) = find_predictions(folder_log(next(personal.rglob("predictions"))), "r1")
    assert json.loads(one.request)["pages"] == mask(25, SECRET.encode())


def test_what_is_packaged_tells_the_salt_of_its_environment(
    personal: Path, tmp_path: Path, cumulant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packaged(name: str) -> tuple[str, list[str]]:
        out = tmp_path / name
        ended = cumulant("package", "models:/shop/1", "--out", str(out), "--project", str(personal), "--json")
        assert ended.code == 0, ended.err
        return load_servable(out).salt_fingerprint, ended.document["notes"]

    assert packaged("here")[0] == fingerprint(SECRET.encode())
    monkeypatch.delenv("SHOP_SALT")
    found, notes = packaged("without")
    assert found == fingerprint(SECRET.encode())
    assert any("salt of this environment is not available" in note for note in notes)
    monkeypatch.setenv("SHOP_SALT", "another")
    assert packaged("elsewhere")[0] == fingerprint(b"another")
    with load(personal) as project:
        assert project.salt_source.fingerprint() == fingerprint(b"another")
