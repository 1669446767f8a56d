"""`/ready` of a gateway with an agent, as load balancers and anybody else may ask for it."""

import socket
import sys
from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gateways run on Linux and macOS")


@pytest.fixture
def path():
    with TemporaryDirectory(prefix="cr") as folder:  # names of sockets are short
        yield f"{folder}/s"


def connected(stack, path):
    caller = stack.enter_context(socket.socket(socket.AF_UNIX))
    caller.settimeout(20)
    caller.connect(path)
    return caller


def ask(path, method="GET"):
    with ExitStack() as stack:
        caller = connected(stack, path)
        caller.sendall(f"{method} /ready HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return b"".join(iter(lambda: caller.recv(4096), b""))


@pytest.mark.parametrize(("ready", "status"), [(True, b"HTTP/1.0 200"), (False, b"HTTP/1.0 503")])
def test_get_and_head_say_whether_it_is_ready(path, ready, status):
    from cumulant.drivers.envoy.readiness import serve_readiness

    with serve_readiness(path, lambda: ready):
        assert ask(path).startswith(status)
        head = ask(path, "HEAD")
    assert head.startswith(status)
    assert head.endswith(b"\r\n\r\n")


def test_many_callers_at_once_and_callers_who_leave_hold_up_no_probe(path, capfd):
    from cumulant.drivers.envoy.readiness import serve_readiness

    with serve_readiness(path, lambda: True), ExitStack() as stack:
        for _ in range(100):
            connected(stack, path).sendall(b"GET /re")
        for _ in range(20):
            with ExitStack() as brief:
                connected(brief, path).sendall(b"GET /ready HTTP/1.1\r\n\r\n")
        assert ask(path).startswith(b"HTTP/1.0 200")
    assert "Traceback" not in capfd.readouterr().err
