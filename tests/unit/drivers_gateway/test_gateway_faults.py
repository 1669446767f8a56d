"""Servers that hang, break off and talk nonsense; callers that mean harm; a gateway that is killed."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from servers import OK, says, served, status, talk

from cumulant.core.traffic import ARM_HEADER, Arm, Exchange, Limits, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.ports.traffic import ListenOptions
from cumulant.testing.certificates import Authority
from cumulant.testing.gateways import GatewayProcess, Reader, running, wait_for

LIMITS = Limits(deadline=20.0, health_every=0.2, eject_after=1000)
POST = b"POST /v1/models/m/predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"


def routes(champion: str, candidate: str | None = None, *, limits: Limits = LIMITS, **more: object) -> Routes:
    second = Arm(name="candidate", version="2", endpoints=(candidate,)) if candidate else None
    first = Arm(name="champion", version="1", endpoints=(champion,))
    return Routes(model="m", champion=first, candidate=second, limits=limits, **({"revision": 1} | more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def traffic(folder: Path) -> EnvoyTraffic:
    return EnvoyTraffic(f"envoy://{folder}")


@pytest.fixture(scope="module")
def gateway(traffic: EnvoyTraffic, folder: Path) -> Iterator[GatewayProcess]:
    pytest.importorskip("envoy")
    with (folder / "out").open("wb") as output, running(traffic, ListenOptions(http="127.0.0.1:0"), output) as gateway:
        yield gateway
    told = [line for line in (folder / "out").read_text().splitlines() if "caught ENVOY_SIGTERM" not in line]
    assert told == []


@pytest.fixture
def address(gateway: GatewayProcess, traffic: EnvoyTraffic) -> str:
    address = traffic.address()
    assert address is not None
    return address.url.removeprefix("http://")


class Applied:
    """Counts the revisions up, and reads what was told since."""

    def __init__(self, traffic: EnvoyTraffic) -> None:
        self._traffic, self._cursor, self._revision = traffic, "", 0

    def __call__(self, champion: str, candidate: str | None = None, **more: object) -> None:
        self._revision += 1
        self._traffic.apply(routes(champion, candidate, revision=self._revision, **more))  # type: ignore[arg-type]

    def told(self) -> Exchange:
        """The first one by the present routes."""

        def find() -> Exchange | None:
            found = self._traffic.exchanges(self._cursor)[0]
            return next((one for one in found if one.revision == self._revision), None)

        return wait_for(find)


@pytest.fixture(scope="module")
def apply(traffic: EnvoyTraffic, gateway: GatewayProcess) -> Applied:
    return Applied(traffic)


def post(body: bytes = b"{}", more: bytes = b"") -> bytes:
    return POST + more + b"content-length: %d\r\n\r\n" % len(body) + body


BROKEN = {
    "nothing": b"",
    "no http": b"SSH-2.0-OpenSSH_9\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 600_000,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_none_is_a_reset(answer: bytes, apply: Applied, address: str) -> None:
    with served(says(answer)) as server:
        apply(server.url)
        assert status(talk(address, post())) == 503
        told = apply.told()
        assert (told.status, told.fault, told.served, told.assigned) == (503, "reset", "", "champion")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\nzz",
    ],
    ids=["length", "chunks"],
)
def test_half_an_answer_is_broken_off_for_the_caller_too(answer: bytes, apply: Applied, address: str) -> None:
    with served(says(answer)) as server:
        apply(server.url)
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        with contextlib.closing(connection), pytest.raises((http.client.HTTPException, OSError)):  # noqa: PT012
            connection.request("POST", "/v1/models/m/predict", b"{}")
            connection.getresponse().read()
        told = apply.told()
        assert (told.fault, told.assigned) == ("reset", "champion")


def test_after_bytes_were_sent_nothing_is_tried_again(apply: Applied, address: str) -> None:
    with served(says(b"")) as bad, served() as good:
        apply(good.url, bad.url, weight=100.0)
        assert status(talk(address, post())) == 503
        assert (len(bad.requests), len(good.requests)) == (1, 0)


def test_a_server_that_takes_no_connection_leaves_time_for_another(apply: Applied, address: str) -> None:
    limits = msgspec.structs.replace(LIMITS, deadline=20.0, retries=49, health_every=3600.0)
    with served() as gone, served() as good:
        apply(gone.url, good.url, weight=0.0, limits=limits)
        gone.clog()
        for _ in range(5):
            assert status(talk(address, post())) == 200
        assert apply.told().rescued
        assert len(good.requests) == 5


GOOD = {
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n{}", b"{}"),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nx: y\r\n\r\n", b"{}"),
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"{}"),
    "nothing to say": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "more than was asked": (OK + OK, b"{}"),
}


@pytest.mark.parametrize(("answer", "body"), GOOD.values(), ids=GOOD)
def test_answers_of_every_form_pass(answer: bytes, body: bytes, apply: Applied, address: str) -> None:
    # A server that ended its connection without a word may do so as the next request is sent, which no gateway can mend.
    with served(says(answer, ends=answer == GOOD["until the end"][0])) as server:
        apply(server.url)
        host, _, port = address.rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            for _ in range(2):
                connection.request("POST", "/v1/models/m/predict", b"{}")
                got = connection.getresponse()
                assert (got.status, got.read()) == (204 if not body else 200, body)
                assert got.getheader(ARM_HEADER) == "champion"


def test_head_has_no_body_and_the_connection_goes_on(apply: Applied, address: str) -> None:
    with served(
        lambda s, r: s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + b"{}" * (r[:4] != b"HEAD")) or True
    ) as server:
        apply(server.url)
        host, _, port = address.rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            for method in ("HEAD", "GET", "HEAD", "GET"):
                connection.request(method, "/v2/models/m")
                got = connection.getresponse()
                assert (got.status, got.read()) == (200, b"" if method == "HEAD" else b"{}")


HOSTILE = {
    "length and chunks": (POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ", 400),
    "the same length twice": (POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 400),
    "a negative length": (POST + b"content-length: -2\r\n\r\n{}", 400),
    "a length with a sign": (POST + b"content-length: +2\r\n\r\n{}", 400),
    "a huge length": (POST + b"content-length: 99999999999999999999999\r\n\r\n{}", 400),
    "another coding": (POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "an odd coding": (POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "a space before the colon": (POST + b"content-length : 2\r\n\r\n{}", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "bytes": (bytes(range(256)), 400),
    "a tunnel": (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 404),
    "a long path": (b"GET /" + b"x" * 80_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 431),
    "many headers": (POST + b"".join(b"x%d: y\r\n" % n for n in range(500)) + b"\r\n", 431),
    "a header without end": (POST + b"x: " + b"y" * 2_000_000, 431),
    "a bad chunk": (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
}


@pytest.mark.parametrize(("request_bytes", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_requests_are_refused(request_bytes: bytes, expected: int, apply: Applied, address: str) -> None:
    with served() as server:
        apply(server.url)
        assert status(talk(address, request_bytes)) == expected
        assert [one for one in server.requests if one.endswith(b"{}")] == []
        assert status(talk(address, post())) == 200


#: by what a server is sent of each: it reads them in one way only
MENDED = {
    "chunks in 1.0": (
        POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b" HTTP/1.1\r\n",
    ),
    "a folded header": (POST + b"x: a\r\n b: c\r\ncontent-length: 2\r\n\r\n{}", b"\r\nx: a b: c\r\n"),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", b"\r\nhost: a,b\r\n"),
    "trailers": (
        POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\ncumulant-arm: candidate\r\n\r\n",
        b"\r\ncumulant-arm: champion\r\n",
    ),
}


@pytest.mark.parametrize(("request_bytes", "received"), MENDED.values(), ids=MENDED)
def test_what_could_be_read_in_two_ways_reaches_a_server_in_one(
    request_bytes: bytes, received: bytes, apply: Applied, address: str
) -> None:
    with served() as server:
        apply(server.url)
        assert talk(address, request_bytes).split(b" ", 2)[1] == b"200"
        [one] = server.requests
        assert received in one
        assert b"candidate" not in one
        assert one.lower().count(b"\r\nhost:") == one.count(b"\r\ncumulant-arm:") == 1


def test_an_offer_of_another_protocol_is_passed_over(apply: Applied, address: str) -> None:
    with served() as server:
        apply(server.url)
        offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
        request = b"POST /v1/models/m/predict HTTP/1.1\r\nhost: a\r\n" + offer + b"content-length: 2\r\n\r\n{}"
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(request)
            assert status(connection.recv(65536)) == 200
        assert b"upgrade" not in server.requests[0].lower()


def test_requests_behind_one_another_are_answered_in_order(apply: Applied, address: str) -> None:
    def echo(connection: socket.socket, request: bytes) -> bool:
        body = request.partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        return True

    with served(echo) as server:
        apply(server.url)
        one = b"POST /v1/models/m/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n%04d"
        found = talk(address, b"".join(one % n for n in range(200)), post(b"last"))
        bodies = [part.partition(b"\r\n\r\n")[2] for part in found.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [b"%04d" % n for n in range(200)] + [b"last"]


def test_large_bodies_stream_both_ways(apply: Applied, address: str) -> None:
    size = 64 * 1024 * 1024

    def echo(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        block = b"y" * 65536
        for _ in range(size // len(block)):
            connection.sendall(block)
        return True

    with served(echo) as server:
        apply(server.url, key="card")
        host, _, port = address.rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
            parts = (b"x" * 65536 for _ in range(64))
            connection.request(
                "POST",
                "/v1/models/m/predict",
                parts,
                encode_chunked=True,
                headers={"transfer-encoding": "chunked", "content-type": "application/json"},
            )
            got = connection.getresponse()
            assert sum(len(part) for part in iter(lambda: got.read(65536), b"")) == size
        assert len(server.requests[0]) > 64 * 65536


def test_a_server_that_hangs_is_a_timeout_and_its_connection_is_not_used_again(apply: Applied, address: str) -> None:
    calls = iter((True, False, False))

    def hang(connection: socket.socket, request: bytes) -> bool:
        if next(calls):
            time.sleep(1.5)
        connection.sendall(OK)
        return True

    with served(hang) as server:
        apply(server.url, limits=msgspec.structs.replace(LIMITS, deadline=0.5))
        assert status(talk(address, post())) == 504
        assert apply.told().fault == "timeout"
        apply(server.url)
        assert talk(address, post()).endswith(b"{}")


@pytest.mark.parametrize(
    "limits", [Limits(deadline=0.1, retries=2), Limits(deadline=5e-5)], ids=["a third", "an exponent"]
)
def test_short_deadlines_of_a_model_hold_no_other_up(tmp_path: Path, limits: Limits) -> None:
    ready, answer = first_answers(tmp_path, lambda url: routes(url, limits=limits))
    assert status(ready) == status(answer) == 200


def test_a_gateway_whose_envoy_refuses_what_is_stored_is_not_ready(tmp_path: Path) -> None:
    authority = Path(Authority(tmp_path / "authority").file)
    arm = Arm(name="champion", version="1", endpoints=("https://127.0.0.1:9",), authority=str(authority))
    ready, answer = first_answers(
        tmp_path, lambda url: msgspec.structs.replace(routes(url), champion=arm), stored=authority.unlink
    )
    assert (status(ready), status(answer)) == (503, 200), "it serves what Envoy took"
    assert b"Envoy has not taken the servers" in ready


def first_answers(
    folder: Path, other: Callable[[str], Routes], stored: Callable[[], object] = lambda: None
) -> tuple[bytes, bytes]:
    """What a gateway that starts answers to `/ready`, and to a request of one model beside another with these routes.

    stored: is called between.
    """
    pytest.importorskip("envoy")
    traffic = EnvoyTraffic(f"envoy://{folder}")
    opening = ListenOptions(http="127.0.0.1:0", admin="127.0.0.1:0")
    with served() as server, (folder / "out").open("wb") as output:
        traffic.apply(routes(server.url))
        traffic.apply(msgspec.structs.replace(other(server.url), model="other"))
        stored()
        with running(traffic, opening, output):
            address = traffic.address()
            assert address is not None
            probe = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            ready = talk(address.admin.removeprefix("http://"), probe)
            return ready, talk(address.url.removeprefix("http://"), post())


def test_many_requests_at_once_for_a_dead_arm_are_all_rescued(apply: Applied, address: str) -> None:
    with served() as good, served() as dead:
        url = dead.url
        apply(good.url, url, weight=100.0, limits=msgspec.structs.replace(LIMITS, health_every=60.0, retry_budget=0.0))
        dead.close()
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(status(talk(address, post())))) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [200] * 40


def test_a_failing_candidate_is_ejected_and_rescued(apply: Applied, address: str) -> None:
    with served() as good, served(says(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", ends=False)) as bad:
        apply(good.url, bad.url, weight=100.0, limits=msgspec.structs.replace(LIMITS, eject_after=3, eject_for=60.0))
        failed = 0
        while status(talk(address, post())) == 503:  # Envoy's threads learn of it one after the other
            failed += 1
            assert failed < 50
        assert failed >= 3
        assert [status(talk(address, post())) for _ in range(3)] == [200] * 3
        assert len(bad.requests) == failed


def test_killed_under_load_it_comes_back_and_tells_nothing_twice(tmp_path: Path) -> None:
    traffic = EnvoyTraffic(f"envoy://{tmp_path}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        opening = ListenOptions(http=f"127.0.0.1:{free.getsockname()[1]}")
    answered: set[str] = set()
    done = threading.Event()

    def call(number: int) -> None:
        count = 0
        while not done.is_set():
            count += 1
            name = f"c{number}-{count}"
            with contextlib.suppress(OSError):
                if status(talk(opening.http, post(more=b"x-request-id: " + name.encode() + b"\r\n"))) == 200:
                    answered.add(name)

    with served() as server, (tmp_path / "out").open("wb") as output:
        traffic.apply(routes(server.url))
        with running(traffic, opening, output) as gateway:
            threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            reader = Reader(traffic)
            try:
                for revision in range(2, 5):
                    wait_for(lambda: reader.read() and reader.exchanges[-1].revision == revision - 1)  # noqa: B023
                    time.sleep(0.7)
                    reader.read()
                    gateway.kill()
                    traffic.apply(routes(server.url, revision=revision))
                    gateway.start()
                    assert traffic.in_force("m") == routes(server.url, revision=revision)
                wait_for(lambda: reader.read() and reader.exchanges[-1].revision == 4)
            finally:
                done.set()
                for thread in threads:
                    thread.join()
        reader.read()
    told = [one.caller_id for one in reader.exchanges]
    assert len(told) == len(set(told))
    # Only the last answers before a kill may be missing: the next that is told is of the gateway after it.
    revisions = {one.caller_id: one.revision for one in reader.exchanges}
    for number in range(3):
        names = [f"c{number}-{count}" for count in range(1, 10_000)]
        lives = [revisions.get(name) for name in names if name in answered]
        known = [life for life in lives if life is not None]
        assert known == sorted(known)
        for life in range(1, 5):
            of_it = [place for place, one in enumerate(lives) if one == life]
            assert not of_it or None not in lives[of_it[0] : of_it[-1]]
    assert {one.revision for one in reader.exchanges} == {1, 2, 3, 4}


def test_the_answer_to_a_body_that_is_still_coming(apply: Applied, address: str) -> None:
    """Refused early, the answer comes; the connection is not used again."""

    with served() as server:
        server._serve = _refuse  # type: ignore[method-assign]
        apply(server.url)
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(POST.replace(b"close", b"keep-alive") + b"content-length: 100000\r\n\r\n{")
            found = b""
            while part := connection.recv(65536):
                found += part
        assert status(found) == 413
        assert b"connection: close" in found


def _refuse(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        while (first := connection.recv(65536)).startswith(b"GET"):
            connection.sendall(OK)
        if first:
            connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")
            time.sleep(0.5)


def test_expected_bodies_are_requested(apply: Applied, address: str) -> None:
    with served() as server:
        apply(server.url, key="card")
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"{}")
            assert status(connection.recv(65536)) == 200
        assert b"expect" not in server.requests[0]


def test_metrics_count(apply: Applied, address: str, traffic: EnvoyTraffic) -> None:
    with served() as server:
        apply(server.url)
        assert status(talk(address, post())) == 200
        gateway = traffic.address()
        assert gateway is not None
        text = talk(
            gateway.admin.removeprefix("http://"),
            b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        assert b'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="m|champion' in text
        assert b"envoy_cluster_upstream_rq_time_bucket" in text
        health = talk(
            gateway.admin.removeprefix("http://"),
            b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        assert (status(health), b"LIVE" in health) == (200, True)


def test_a_request_whose_body_never_came_burdens_the_arms_by_their_weights(apply: Applied, address: str) -> None:
    host, _, port = address.rpartition(":")
    with served() as one, served() as other:
        apply(one.url, other.url, weight=100.0, key="card")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(POST + b"content-length: 90\r\n\r\n{")
            time.sleep(0.2)
        told = apply.told()
    assert (told.status, told.assigned, told.key) == (499, "candidate", "")
