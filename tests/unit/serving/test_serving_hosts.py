"""Pages of other sites, and names that were made to lead to a server on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from serving_models import ROW, servable

from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.ports.traffic import ListenOptions
from cumulant.testing.gateways import running as gateway
from cumulant.testing.gateways import wait_for

PREDICT = "/v1/models/flight-late/predict"
PATHS = [
    ("POST", PREDICT),
    ("POST", "/v2/models/flight-late/infer"),
    ("POST", "/invocations"),
    ("POST", "/v1/labels"),
    ("POST", "/v1/events"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/flight-late/unload"),
    ("GET", "/v1/models"),
    ("GET", "/v2"),
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("OPTIONS", PREDICT),
]
EVIL = {"origin": "https://evil.example"}
REBOUND = {"host": "evil.example:8080"}


@contextmanager
def server(folder, *options):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", *options]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return servable(tmp_path_factory.mktemp("hosts") / "servable")


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    labels = tmp_path_factory.mktemp("labels")
    with server(
        folder, "--model-control", "explicit", "--labels", str(labels), "--allow-host", "models.example:8443"
    ) as url:
        yield url


@pytest.mark.parametrize("headers", [EVIL, REBOUND, {"origin": "null"}])
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_pages_of_other_sites_are_refused_at_every_path(url, method, path, headers):
    answer = httpx.request(method, url + path, headers=headers, content=b"{}" if method == "POST" else None)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "models.example"},
        {"host": "models.example:8443"},
        {"host": "localhost"},
        {"origin": "https://models.example"},
        {"host": "[::1]:8080"},
    ],
)
def test_callers_that_mean_well_are_answered(url, headers):
    assert httpx.post(url + PREDICT, json=ROW, headers=headers).status_code == 200
    assert httpx.post(url + PREDICT, json=ROW, headers={"origin": url}).status_code == 200


def test_a_server_does_not_start_with_a_name_that_never_matches(folder):
    line = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0"]
    line += ["--allow-host", "https://models.example"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "is no host" in ended.stderr


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/ping", "/health"])
def test_probes_are_answered_by_any_name(url, path):
    assert httpx.get(url + path, headers={"host": "10.0.0.7:8080"}).status_code == 200


def test_a_token_is_proof_enough(folder, tmp_path):
    (tmp_path / "token").write_text("t0123456789abcdef")
    (tmp_path / "token").chmod(0o600)
    with server(folder, "--token-file", str(tmp_path / "token")) as url:
        known = {"authorization": "Bearer t0123456789abcdef"}
        assert httpx.post(url + PREDICT, json=ROW, headers=EVIL | REBOUND | known).status_code == 200
        assert httpx.post(url + PREDICT, json=ROW, headers=EVIL).status_code == 401


def test_off_loopback_any_name_is_good_but_no_page_of_another_site(folder):
    with server(folder, "--http", "0.0.0.0:0", "--insecure") as given:
        url = given.replace("0.0.0.0", "127.0.0.1")
        assert httpx.post(url + PREDICT, json=ROW, headers=REBOUND).status_code == 200
        assert httpx.post(url + PREDICT, json=ROW, headers=EVIL).status_code == 403


def test_a_gateway_passes_on_who_calls_and_shows_figures_to_nobody_else(url, tmp_path):
    pytest.importorskip("envoy")
    traffic = EnvoyTraffic(f"envoy://{tmp_path}/gateway")
    arm = Arm(name="champion", version="1", endpoints=(url,))
    with (tmp_path / "out").open("wb") as output, gateway(traffic, ListenOptions(http="127.0.0.1:0"), output):
        traffic.apply(Routes(model="flight-late", revision=1, champion=arm))
        address = traffic.address()
        wait_for(lambda: httpx.post(address.url + PREDICT, json=ROW).status_code == 200)
        for headers, status in (({}, 200), (EVIL, 403), (REBOUND, 403), ({"origin": address.url}, 200)):
            assert httpx.post(address.url + PREDICT, json=ROW, headers=headers).status_code == status
        for headers, status in (({}, 200), ({"host": "localhost:1"}, 200), (EVIL, 403), (REBOUND, 403)):
            for path in ("/metrics", "/health"):
                assert httpx.get(address.admin + path, headers=headers).status_code == status
        assert httpx.get(address.admin + "/config_dump").status_code == 404
