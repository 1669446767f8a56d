"""What Envoy's gateway does beyond the rules of the port."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from urllib.parse import unquote

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cumulant.core.errors import EngineUnavailableError, MissingPartError, UsageError
from cumulant.core.traffic import FORCE_HEADER, KEY_HEADER, Certificates, Limits
from cumulant.drivers.envoy import engine
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.ports.traffic import ListenOptions
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.routes import CALM, MODEL, routes_of
from cumulant.testing.gateways import Caller, Reader, running, wait_for


def missing():
    try:
        engine.find_program()
    except MissingPartError as error:
        return f"{error.message}: {error.hint}"
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "present")


@pytest.fixture
def traffic(tmp_path):
    return EnvoyTraffic(f"envoy://{tmp_path}/gateway")


@pytest.fixture
def opening(tmp_path):
    (tmp_path / "log.key").write_bytes(b"k" * 32)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return ListenOptions(http=f"127.0.0.1:{free.getsockname()[1]}", key_file=str(tmp_path / "log.key"))


@pytest.fixture
def gateway(traffic, opening, tmp_path):
    with (tmp_path / "out").open("wb") as output, running(traffic, opening, output) as gateway:
        yield gateway


@pytest.fixture
def arms():
    found = [ArmServer(name).start() for name in ("champion", "candidate")]
    yield found
    for arm in found:
        arm.stop()


def send(url, body, headers=(), path=f"/v1/models/{MODEL}/predict"):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_no_text_in_a_body_ends_a_header(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url, key="card"))
    assert send(gateway.url, b'{"card": "a\r\ncumulant-shadow: 1\r\n\x00\xff%"}') == 200
    [sent] = arms[0].posts()
    assert sent.headers[KEY_HEADER] == "a%0D%0Acumulant-shadow:%201%0D%0A%00%FF%25"
    assert send(gateway.url, json.dumps({"card": "k" * 100_000})) == 200
    assert len(arms[0].posts()[1].headers[KEY_HEADER]) == 512


def test_a_column_may_have_any_name(traffic, gateway, arms):
    for revision, column in enumerate(["größe", 'a "b" \\', "%d[a-z]*"]):
        traffic.apply(routes_of(arms[0].url, key=column, revision=revision))
        for ascii_only in (True, False):
            row = json.dumps({"x": 1, column: "k7"}, ensure_ascii=ascii_only).encode()
            tensors = {"inputs": [{"name": "x", "data": [1]}, {"name": column, "data": ["k7"]}]}
            for body in (row, json.dumps(tensors, ensure_ascii=ascii_only).encode()):
                assert send(gateway.url, body) == 200
                assert arms[0].posts()[-1].headers.get(KEY_HEADER) == "k7", body


def test_a_request_without_a_body_is_no_error_of_the_script(traffic, gateway, arms, tmp_path):
    traffic.apply(routes_of(arms[0].url, key="card"))
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/models/{MODEL}")
        connection.getresponse().read()
    assert send(gateway.url, b'{"card": "k7"}') == 200
    assert arms[0].posts()[-1].headers[KEY_HEADER] == "k7"
    assert "script log" not in (tmp_path / "out").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b'{"card',
        b'{"card":',
        b"[[[[",
        b'{"card": [',
        b'{"inputs":[{"name":"card","data":[',
        b'"',
        b"\xff",
        b'{"a":1,}',
        b"[",
    ],
)
def test_broken_bodies_reach_the_server(traffic, gateway, arms, body):
    traffic.apply(routes_of(arms[0].url, key="card"))
    assert send(gateway.url, body) == 200
    assert arms[0].posts()[0].body == body
    assert KEY_HEADER not in arms[0].posts()[0].headers


def value(random, depth=0):
    kind = random.randrange(8 if depth < 3 else 5)
    if kind < 5:
        return random.choice(["card", 'a"b', "\\", "ä, ]}", "", 7, -1.5e300, True, False, None, "x" * 50])
    if kind < 7:
        return {random.choice(["card", "x", "rows", 'q"', "name", "data"]): value(random, depth + 1) for _ in range(3)}
    return [value(random, depth + 1) for _ in range(random.randrange(4))]


def wanted(body):
    """The key that a body has, by a parser that builds everything."""

    def first(found):
        while isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, (dict, list)) or found in {None, ""}:
            return None
        return found if isinstance(found, str) else json.dumps(found)

    def of(rows):
        row = rows[0] if isinstance(rows, list) and rows else rows
        return first(row["card"]) if isinstance(row, dict) and "card" in row else None

    if isinstance(body, dict) and "card" in body:
        return of(body)
    if isinstance(body, dict):
        return of(body["rows"]) if isinstance(body.get("rows"), (list, dict)) else None
    return of(body) if isinstance(body, list) else None


def test_keys_are_those_that_a_full_parser_finds(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url, key="card"))
    random = Random(7)
    found = 0
    with Caller(gateway.url, MODEL) as caller:
        for number in range(400):
            body = {f"f{number}": value(random), "rows": [value(random)], "y": value(random)}
            if number % 2:
                body = {"z": value(random), "card": value(random), **body}
            if number % 5 == 0:
                body = [body]
            caller.post(body)
            key = arms[0].posts()[-1].headers.get(KEY_HEADER)
            assert (unquote(key) if key else None) == wanted(body), body
            found += key is not None
    assert 50 < found < 350


@pytest.mark.parametrize("value", ["k7", "größe 😀", 'a "b" \\ /\t', 7, -7, True, 2.5])
def test_a_key_is_the_same_in_each_form(traffic, gateway, arms, value):
    traffic.apply(routes_of(arms[0].url, key="card"))
    tensor = {"name": "card", "shape": [2], "datatype": "BYTES", "data": [value, "other"]}
    bodies = [
        {"card": value},
        [{"card": value}],
        {"rows": [{"card": value}, {"card": "other"}]},
        {"dataframe_records": [{"a": 1, "card": value}]},
        {"dataframe_split": {"columns": ["a", "card"], "data": [[1, value], [2, "other"]]}},
        {"dataframe_split": {"data": [[[1, {"card": 2}], value]], "index": [0], "columns": ["a", "card"]}},
        {"instances": [{"card": value}]},
        {"inputs": {"card": [value, "other"], "a": [1, 2]}},
        {"inputs": [{"card": value}]},
        {"inputs": [{"name": "a", "data": [1]}, tensor]},
        {"inputs": [{**tensor, "data": [[[value]]]}]},
    ]
    with Caller(gateway.url, MODEL) as caller:
        for body in bodies:
            caller.post(body)
    for ascii_only in (False, True):
        assert send(gateway.url, json.dumps({"card": value}, ensure_ascii=ascii_only).encode()) == 200
    expected = {value if isinstance(value, str) else json.dumps(value)}
    assert {unquote(sent.headers[KEY_HEADER]) for sent in arms[0].posts()} == expected


def test_numbers_have_one_text(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url, key="card"))
    for text in ("7", "7.0", '"7"', "70e-1", "0.7E1"):
        assert send(gateway.url, f'{{"card": {text}}}'.encode()) == 200
    assert [sent.headers[KEY_HEADER] for sent in arms[0].posts()] == ["7"] * 5


def test_bodies_that_are_too_long_for_keys_pass(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url, arms[1].url, weight=50.0, key="card"))
    body = b'{"card": "a", "x": "' + b"x" * 12_000_000 + b'"}'
    assert send(gateway.url, body) == 200
    assert send(gateway.url, iter([body[:5_000_000], body[5_000_000:]])) == 200
    assert [len(sent.body) for arm in arms for sent in arm.posts()] == [len(body)] * 2


def test_several_models(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url))
    assert send(gateway.url, b"{}", path="/anything") == 200
    other = msgspec.structs.replace(routes_of(arms[1].url, revision=4), model="other.model")
    traffic.apply(other)
    assert send(gateway.url, b"{}", path="/v2/models/other.model/infer") == 200
    assert send(gateway.url, b"{}", path="/v1/models/otherXmodel/predict") == 404
    assert send(gateway.url, b"{}", path="/v1/models/other.model2/predict") == 404
    assert send(gateway.url, b"{}", path=f"/v1/models/{MODEL}/versions/1/predict") == 200
    told = Reader(traffic).until(3)
    assert [(exchange.model, exchange.revision) for exchange in told] == [(MODEL, 1), ("other.model", 4), (MODEL, 1)]
    assert len(arms[1].posts()) == 1


def test_no_key_of_a_caller_stands_on_disk(traffic, gateway, arms, tmp_path):
    traffic.apply(routes_of(arms[0].url, key="card"))
    with Caller(gateway.url, MODEL) as caller:
        caller.post({"card": "4556737586899855"})
        caller.post(headers={KEY_HEADER: "4556737586899855"})
    told = Reader(traffic).until(2)
    assert len({exchange.key for exchange in told}) == 1
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"4556737586899855" not in path.read_bytes(), path


def test_what_envoy_refuses_changes_nothing(traffic, gateway, arms, monkeypatch):
    monkeypatch.setattr(Limits, "check", lambda _: None)  # another Envoy may refuse what this one takes
    routes = routes_of(arms[0].url)
    traffic.apply(routes)
    wrong = routes_of(arms[1].url, revision=2, limits=msgspec.structs.replace(CALM, retry_budget=500.0))
    with pytest.raises(EngineUnavailableError, match="refuses these servers"):
        traffic.apply(wrong)
    assert traffic.in_force(MODEL) == routes
    traffic.apply(routes_of(arms[1].url, revision=2))
    assert traffic.in_force(MODEL) == routes_of(arms[1].url, revision=2)
    gateway.kill()
    gateway.start()
    assert send(gateway.url, b"{}") == 200
    assert len(arms[1].posts()) == 1


@pytest.mark.parametrize("url", ["ftp://a", "127.0.0.1:80", "http://a:1/path", "http://"])
def test_addresses_that_are_none_are_refused(traffic, url):
    with pytest.raises(UsageError, match="no address"):
        traffic.apply(routes_of(url))
    assert traffic.in_force(MODEL) is None


def test_a_server_may_have_a_name(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url.replace("127.0.0.1", "localhost")))
    assert send(gateway.url, b"{}") == 200
    assert arms[0].posts()[0].headers["host"].startswith("localhost")
    assert [health.url for health in traffic.health(MODEL)] == [arms[0].url.replace("127.0.0.1", "localhost")]


def error(url, path=f"/v1/models/{MODEL}/predict"):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST", path, b"{}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers.get("retry-after")
    finally:
        connection.close()


def test_errors_look_like_those_of_servers(traffic, gateway, arms):
    limits = msgspec.structs.replace(CALM, rate=1, deadline=0.3)
    traffic.apply(msgspec.structs.replace(routes_of(arms[1].url), model="other"))
    traffic.apply(routes_of(arms[0].url, limits=limits))
    arms[0].delay = 2.0
    late = {"code": "deadline", "error": "no server of the model answered in time", "retryable": True}
    assert error(gateway.url) == (504, late, None)
    refused = {"code": "overloaded", "error": "more requests a second than this gateway takes", "retryable": True}
    assert wait_for(lambda: (found := error(gateway.url))[0] == 429 and found) == (429, refused, "1")
    nowhere = {"code": "not-found", "error": "no model of this gateway has this path", "retryable": False}
    assert error(gateway.url, "/v1/models/nope/predict") == (404, nowhere, None)
    arms[1].stop()
    dead = {"code": "engine-unavailable", "error": "no server of the model answers", "retryable": True}
    assert error(gateway.url, "/v1/models/other/predict") == (503, dead, "1")


def test_no_header_hides_a_request_from_the_log(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url))
    where = gateway.url.removeprefix("http://").split(":")
    values = [b"\xff\xfe", b'"},{', b"\xc3\xa4\t", b"\\u0000", b"a" * 50_000, b"-", b""]
    for value in values:
        with socket.create_connection((where[0], int(where[1]))) as sent:
            head = (
                b"POST /v1/models/flight-late/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n"
            )
            sent.sendall(head + b"x-request-id: " + value + b"\r\ncumulant-key: " + value[:5000] + b"\r\n\r\n{}")
            assert sent.recv(1000).startswith(b"HTTP/1.1 200 ")
    told = Reader(traffic).until(len(values))
    assert {exchange.status for exchange in told} == {200}
    assert max(len(exchange.request) for exchange in told) <= 256


def test_more_at_once_than_allowed(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url, limits=msgspec.structs.replace(CALM, connections=1, pending=1)))
    arms[0].delay = 1.0
    found = []
    threads = [threading.Thread(target=lambda: found.append(send(gateway.url, b"{}"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(503) >= 4
    assert found.count(200) == 8 - found.count(503) >= 1
    assert sum(exchange.fault == "overflow" for exchange in Reader(traffic).until(8)) == found.count(503)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_envoy_never_outlives_its_supervisor(traffic, gateway):
    [envoy] = children(traffic.address().pid)
    assert alive(envoy)
    gateway.kill()
    wait_for(lambda: not alive(envoy))


def test_the_gateway_ends_where_envoy_does(traffic, gateway):
    [envoy] = children(traffic.address().pid)
    os.kill(envoy, signal.SIGKILL)
    process = gateway._process
    assert process.wait(30) == 1
    gateway._process = None
    assert traffic.address() is None


def test_starting_twice_says_so(traffic, gateway, opening):
    address = traffic.address()
    second = subprocess.run(traffic.command(opening), check=False, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "a gateway runs in this folder already" in second.stderr
    assert traffic.address() == address


def test_an_address_that_is_taken(traffic, opening, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = msgspec.structs.replace(opening, http=f"127.0.0.1:{taken.getsockname()[1]}")
        ended = subprocess.run(traffic.command(other), check=False, capture_output=True, text=True, timeout=90)
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr


def test_a_request_whose_caller_left_is_told(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url))
    arms[0].delay = 1.0
    where = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((where[0], int(where[1]))) as sent:
        sent.sendall(b"POST /v1/models/flight-late/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}")
        wait_for(arms[0].posts)
    [told] = Reader(traffic).until(1)
    assert (told.status, told.served, told.fault) == (499, "", "")


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture
def signed(tmp_path):
    """Paths of an authority's certificate and of one that it signed for 127.0.0.1, with its key."""
    folder = tmp_path / "tls"
    folder.mkdir()
    ca, ca_key, key, request, leaf = (str(folder / name) for name in ("ca.pem", "ca.key", "key", "csr", "leaf.pem"))
    short = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *short, "-keyout", ca_key, "-out", ca, "-subj", "/CN=test authority", "-days", "2")
    openssl("req", *short, "-keyout", key, "-out", request, "-subj", "/CN=gateway")
    extension = folder / "ext"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ["-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", str(extension)]
    openssl("x509", "-req", "-in", request, *sign, "-out", leaf)
    return ca, leaf, key


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(traffic, opening, arms, signed, tmp_path, mutual):
    ca, leaf, key = signed
    tls = Certificates(certificate=leaf, private_key=key, authority=ca if mutual else None)
    traffic.apply(routes_of(arms[0].url))
    with (tmp_path / "out").open("wb") as output, running(traffic, msgspec.structs.replace(opening, tls=tls), output):
        assert traffic.address().url == f"https://{opening.http}"
        trusted = ssl.create_default_context(cafile=ca)
        if mutual:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                secure(opening, trusted)
            trusted.load_cert_chain(leaf, key)
        assert secure(opening, trusted) == 200
        assert [exchange.status for exchange in Reader(traffic).until(1)] == [200]


def test_old_versions_and_ciphers_of_tls_are_refused(traffic, opening, arms, signed, tmp_path):
    """Of the versions that this machine's OpenSSL still speaks if it is asked to, the gateway takes 1.2 and 1.3, and of the ciphers of 1.2
    those that are recommended.
    """
    ca, leaf, key = signed
    tls = Certificates(certificate=leaf, private_key=key, authority=None)
    traffic.apply(routes_of(arms[0].url))
    with (tmp_path / "out").open("wb") as output, running(traffic, msgspec.structs.replace(opening, tls=tls), output):
        for version, accepted in VERSIONS.items():
            context = ssl.create_default_context(cafile=ca)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
            if accepted:
                assert secure(opening, context) == 200, version
                continue
            with pytest.raises((ssl.SSLError, ConnectionError)):
                secure(opening, context)
        known = [each["name"] for each in ciphers(ca, "ALL:@SECLEVEL=0").get_ciphers() if each["protocol"] != "TLSv1.3"]
        accepted = {name for name in known if agrees(opening, ciphers(ca, f"{name}:@SECLEVEL=0"))}
        assert len(known) > 20
        assert accepted == RECOMMENDED_CIPHERS


#: of RFC 9325, for the certificate of the test: forward secrecy, and encryption that authenticates
RECOMMENDED_CIPHERS = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
}


def ciphers(ca, names):
    """What speaks TLS 1.2 with these ciphers alone."""
    context = ssl.create_default_context(cafile=ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(names)
    return context


def agrees(opening, context):
    host, _, port = opening.http.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=30) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except (ssl.SSLError, ConnectionError):
        return False
    return True


VERSIONS = {
    ssl.TLSVersion.TLSv1: False,
    ssl.TLSVersion.TLSv1_1: False,
    ssl.TLSVersion.TLSv1_2: True,
    ssl.TLSVersion.TLSv1_3: True,
}


def secure(opening, context):
    connection = http.client.HTTPSConnection(opening.http, context=context, timeout=30)
    try:
        connection.request("POST", f"/v1/models/{MODEL}/predict", b"{}")
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_requests_under_way_end_on_servers_that_routes_do_not_name_any_more(traffic, gateway, arms):
    traffic.apply(routes_of(arms[1].url, revision=1))
    arms[1].delay = 2.0
    status = []
    thread = threading.Thread(target=lambda: status.append(send(gateway.url, b"{}")))
    thread.start()
    wait_for(arms[1].posts)
    for revision in range(2, 6):
        limits = msgspec.structs.replace(CALM, eject_after=revision)
        traffic.apply(routes_of(arms[0].url, revision=revision, limits=limits))
        time.sleep(0.1)
    thread.join()
    assert status == [200]


def requests_by_class(admin):
    """What Envoy counts, by model and class of status; None: all."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.labels["envoy_virtual_cluster"], sample.labels.get("envoy_response_code_class")): sample.value
        for family in families
        if family.name in {"envoy_vhost_vcluster_upstream_rq_xx", "envoy_vhost_vcluster_upstream_rq_completed"}
        for sample in family.samples
        if sample.value and sample.labels["envoy_virtual_cluster"] != "no prediction"
    }


def test_the_requests_of_a_model_are_counted_as_exchanges_count_them(traffic, gateway, arms):
    traffic.apply(routes_of(arms[0].url))
    traffic.apply(msgspec.structs.replace(routes_of(arms[1].url), model="other"))
    path = f"/v1/models/{MODEL}/predict"
    assert [send(gateway.url, b"{}", path=path) for _ in range(3)] == [200] * 3
    assert send(gateway.url, b"{}", {FORCE_HEADER: "champion"}, path) == 200
    assert send(gateway.url, b"{}", path="/v1/models/other/predict?x=1") == 200
    assert send(gateway.url, b"{}", path=f"/v2/repository/models/{MODEL}/load") == 200
    arms[0].stop()
    assert send(gateway.url, b"{}", path=path) == 503
    admin = traffic.address().admin
    expected = {(MODEL, "2"): 3, (MODEL, "5"): 1, (MODEL, None): 4, ("other", "2"): 1, ("other", None): 1}
    wait_for(lambda: requests_by_class(admin) == expected)
    wait_for(lambda: len(traffic.exchanges()[0]) == 7)
    counted = [one for one in traffic.exchanges()[0] if one.predicts and not one.forced]
    assert Counter((one.model, one.status) for one in counted) == {(MODEL, 200): 3, (MODEL, 503): 1, ("other", 200): 1}
