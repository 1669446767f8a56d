"""URLs of Flink's SQL gateway, and answers that are not those of Flink."""

from __future__ import annotations

import pytest

from cumulant.core.errors import EngineUnavailableError, StorageError, UsageError
from cumulant.drivers.flink.engine import FlinkEngine
from cumulant.drivers.flink.location import parse_flink_url
from cumulant.drivers.flink.rest import FlinkRest
from cumulant.ports.compute import JobState
from cumulant.testing.servers.programs import free_port


def test_a_url_names_the_gateway_and_the_folder_of_checkpoints(tmp_path):
    plain = parse_flink_url("flink://flink.acme.com?checkpoints=s3://acme/a+b/")
    assert (plain.gateway, plain.checkpoints, plain.interval_ms, plain.jobmanager, plain.encrypted) == (
        "http://flink.acme.com:8083",
        "s3://acme/a+b",
        10_000,
        None,
        False,
    )
    (tmp_path / "ca.pem").touch()
    options = f"checkpoints=file:///mnt/flink&interval=1m&jobmanager=jobs.acme.com&token=FLINK&ca={tmp_path}/ca.pem"
    encrypted = parse_flink_url(f"flinks://[::1]:443?{options}")
    assert (encrypted.gateway, encrypted.jobmanager) == ("https://[::1]:443", "https://jobs.acme.com:8081")
    assert (encrypted.interval_ms, encrypted.token, encrypted.encrypted) == (60_000, "FLINK", True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("flink://?checkpoints=s3://a/b", "names no host"),
        ("flink://ana:x@a?checkpoints=s3://a/b", "names no host"),
        ("flink://a:99999?checkpoints=s3://a/b", "names no host"),
        ("flink://a", "folder for checkpoints"),
        ("flink://a?checkpoints=/mnt/shared", "folder for checkpoints"),
        ("flink://a?checkpoints=s3://a/b&interval=1ms", "cannot be 1ms apart"),
        ("flink://a?checkpoints=s3://a/b&user=b", 'no option "user"'),
        ("flink://a?checkpoints=s3://a/b&token=X", "encrypted connections only"),
        ("flinks://a?checkpoints=s3://a/b&token=${secret:X}", "name of a secret"),
        ("flinks://a?checkpoints=s3://a/b&ca=/none.pem", "does not exist"),
    ],
)
def test_an_invalid_url_is_refused(url, says):
    with pytest.raises(UsageError, match=says):
        parse_flink_url(url)


def test_a_gateway_that_is_away_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")  # no proxy is asked for this machine
    monkeypatch.delenv("no_proxy", raising=False)
    port = free_port()
    engine = FlinkEngine(f"flink://127.0.0.1:{port}?checkpoints=file:///tmp/flink")
    with pytest.raises(
        EngineUnavailableError,
        match=rf"the SQL gateway of Flink does not answer at 127.0.0.1:{port}: Connection refused",
    ):
        engine.jobs()


@pytest.mark.parametrize(
    "answer",
    [
        {"latest": {"completed": {"id": 3, "external_path": None, "trigger_timestamp": 1}}},
        {"latest": {"completed": {"id": 3, "trigger_timestamp": 1}}},
        {"latest": {"restored": {"external_path": "s3://a/chk-3", "restore_timestamp": None}}},
        {"latest": 7, "counts": {"restored": "two"}},
    ],
)
def test_an_answer_with_other_fields_is_refused(answer, monkeypatch):
    engine = FlinkEngine("flink://a?checkpoints=s3://a/b&jobmanager=a")
    monkeypatch.setattr(FlinkRest, "call", lambda *_: answer)
    with pytest.raises(StorageError, match="the answer of the JobManager is not that of Flink"):
        engine.job_state("a" * 32)
    monkeypatch.setattr(FlinkRest, "call", lambda *_: {"latest": None, "counts": None})
    assert engine.job_state("a" * 32) == JobState()
