"""The key of personal values' hashes: given in secret, checked at the start, and nowhere to be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from serving_models import ROW, servable
from test_serving_fleet import children, serving

from cumulant.core.errors import UsageError
from cumulant.core.masking import HIDDEN, fingerprint, mask
from cumulant.servable.folder import load_servable, with_salt, with_version
from cumulant.serving.prediction_log.salt import VARIABLE, choose_salt, read_salts
from cumulant.serving.prediction_log.storage.log_reader import find_predictions
from cumulant.testing.log import folder_log

pytestmark = pytest.mark.slow

SALT = b"pepper-and-more-pepper"
PREDICT = "/v1/models/flight-late/predict"


def made(folder, salt=SALT, **more):
    return servable(folder, salt_fingerprint=fingerprint(salt), **more)


def ask(url, number=1):
    headers = {"x-request-id": f"r{number}"}
    return httpx.post(url + PREDICT, json=ROW | {"tail": "N-secret"}, headers=headers).status_code


def logged(log):
    (one,) = find_predictions(folder_log(log), "r1")
    return json.loads(one.request)["tail"]


def test_a_fingerprint_tells_salts_apart_and_is_no_hash_of_a_value():
    assert fingerprint(b"a") != fingerprint(b"b")
    assert fingerprint(b"") == ""
    assert len(fingerprint(SALT)) == 16
    assert not mask("cumulant salt", SALT)[1:].startswith(fingerprint(SALT)[:12])


def test_the_variable_is_taken_away_and_the_file_comes_first(tmp_path):
    file = tmp_path / "salt"
    file.write_bytes(b"of the file\r\n")
    environment = {VARIABLE: "of the variable", "OTHER": "x"}
    assert read_salts(None, environment) == (b"of the variable",)
    assert environment == {"OTHER": "x"}
    environment = {VARIABLE: "of the variable"}
    assert read_salts(file, environment) == (b"of the file\r\n", b"of the file")
    assert environment == {}
    assert read_salts(None, {VARIABLE: ""}) == read_salts(None, {}) == ()


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), (b"", "empty"), (b"\n", "empty")])
def test_a_file_without_a_salt_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "salt").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_salts(tmp_path / "salt", {})


def test_the_salt_that_the_models_were_made_for_is_chosen(tmp_path):
    one, free = load_servable(made(tmp_path / "one")), load_servable(servable(tmp_path / "free", name="free"))
    other = load_servable(made(tmp_path / "other", b"salt", name="other"))
    assert choose_salt((SALT + b"\n", SALT), [one, free]) == SALT
    assert choose_salt((SALT + b"\n", SALT), [free]) == SALT + b"\n"
    assert choose_salt((), [one]) == b""
    with pytest.raises(UsageError, match=r"personal values of other are"):
        choose_salt((SALT,), [one, other])
    with pytest.raises(UsageError, match="different salts"):
        choose_salt((SALT, b"salt"), [one, other])


@pytest.mark.parametrize("given", ["variable", "file"])
@pytest.mark.parametrize("workers", [1, 2])
def test_values_are_hashed_and_the_salt_is_nowhere_to_be_seen(tmp_path, given, workers):
    made(tmp_path / "models" / "one")
    (tmp_path / "salt").write_bytes(SALT + b"\n")
    option, env = ((), {VARIABLE: SALT.decode()}) if given == "variable" else (("--salt-file", tmp_path / "salt"), {})
    log = tmp_path / "log"
    with serving(tmp_path / "models", "--workers", workers, "--log", log, *option, env=env) as (process, ready):
        assert ask(ready["url"]) == 200
        below = children(process)
        assert below
        seen = [Path(f"/proc/{pid}/{what}").read_bytes() for pid in below for what in ("cmdline", "environ")]
        seen += [Path(f"/proc/{process.pid}/cmdline").read_bytes(), httpx.get(ready["url"] + "/metrics").content]
        seen.append(httpx.get(f"{ready['url']}/v2/models/flight-late/config").content)
        assert not any(SALT in one or b"pepper" in one for one in seen)
        process.terminate()
        assert "pepper" not in process.stderr.read()
    assert logged(log) == mask("N-secret", SALT)


def test_the_log_process_gets_it_again_when_it_is_started_again(tmp_path):
    made(tmp_path / "models" / "one")
    log = tmp_path / "log"
    with serving(tmp_path / "models", "--log", log, env={VARIABLE: SALT.decode()}) as (process, ready):
        (scribe,) = children(process)
        os.kill(scribe, 9)
        deadline = time.monotonic() + 60
        while not set(children(process)) - {scribe} and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ask(ready["url"]) == 200
    assert logged(log) == mask("N-secret", SALT)


def test_without_one_values_are_hidden_and_it_is_said(tmp_path):
    made(tmp_path / "models" / "one")
    with serving(tmp_path / "models", "--log", tmp_path / "log") as (process, ready):
        assert ask(ready["url"]) == 200
        process.terminate()
        said = process.stderr.read()
    assert "personal values of flight-late are hidden in the prediction log" in said
    assert VARIABLE in said
    assert logged(tmp_path / "log") == HIDDEN


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wrong_one_is_refused_at_the_start(tmp_path, workers):
    made(tmp_path / "models" / "one")
    words = [sys.executable, "-m", "cumulant.serving", tmp_path / "models", "--http", "127.0.0.1:0"]
    done = subprocess.run(
        [*words, "--workers", workers],
        env={**os.environ, VARIABLE: "vinegar"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "the salt is not the one that personal values of flight-late are hashed with" in done.stderr
    assert "vinegar" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_version_for_another_salt_is_not_loaded(tmp_path, workers):
    folder = made(tmp_path / "models" / "one")
    options = ("--workers", workers, "--model-control", "explicit")
    with serving(tmp_path / "models", *options, env={VARIABLE: SALT.decode()}) as (_, ready):
        load = f"{ready['url']}/v2/repository/models/flight-late/load"
        with_version(folder, "2")
        with_salt(folder, fingerprint(b"vinegar"))
        answer = httpx.post(load)
        assert (answer.status_code, "the salt is not the one" in answer.json()["error"]) == (400, True)
        assert ask(ready["url"]) == 200
        with_salt(folder, fingerprint(SALT))
        assert httpx.post(load).status_code == 200
