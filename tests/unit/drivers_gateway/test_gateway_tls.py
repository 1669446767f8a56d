"""Certificates towards callers, and of callers."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from servers import served

from cumulant.core.traffic import Arm, Certificates, Routes
from cumulant.drivers.local.gateway.client import LocalTraffic
from cumulant.ports.traffic import Opening
from cumulant.testing.gateways import running

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A certificate of its own authority, for the gateway and for a caller."""
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {tmp_path}/key.pem -out {tmp_path}/cert.pem".split(),
        check=True,
        capture_output=True,
    )
    return tmp_path


def test_only_callers_with_a_certificate_are_answered(files: Path) -> None:
    certificate, key = str(files / "cert.pem"), str(files / "key.pem")
    traffic = LocalTraffic(f"local://{files}/gateway")
    opening = Opening(
        http="127.0.0.1:0", tls=Certificates(certificate=certificate, private_key=key, authority=certificate)
    )
    with served() as server, (files / "out").open("wb") as output, running(traffic, opening, output):
        champion = Arm(name="champion", version="1", endpoints=(server.url,))
        traffic.apply(Routes(model="m", revision=1, champion=champion))
        door = traffic.door()
        assert door is not None
        assert door.url.startswith("https://")
        stranger, known = ssl.create_default_context(cafile=certificate), ssl.create_default_context(cafile=certificate)
        known.load_cert_chain(certificate, key)
        assert ask(door.url, known) == 200
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            ask(door.url, stranger)
        assert ask(door.url, known) == 200


def ask(url: str, context: ssl.SSLContext) -> int:
    port = int(url.rpartition(":")[2])
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/models/m/predict", b"{}")
        return connection.getresponse().status


def test_certificates_that_are_none_are_told(files: Path) -> None:
    traffic = LocalTraffic(f"local://{files}/gateway")
    key = str(files / "key.pem")
    command = traffic.program(Opening(http="127.0.0.1:0", tls=Certificates(certificate=key, private_key=key)))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "the certificates cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr
