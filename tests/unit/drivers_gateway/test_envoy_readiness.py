"""`/ready` of a gateway, as load balancers and anybody else may ask for it."""

import gc
import socket
import sys
import threading
from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pytest

from cumulant.core.errors import EngineUnavailableError

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


@pytest.mark.parametrize(("fault", "status"), [("", b"HTTP/1.0 200"), ("no routes: größe", b"HTTP/1.0 503")])
def test_get_and_head_say_whether_it_is_ready(path, fault, status):
    from cumulant.drivers.envoy.readiness import serve_readiness

    with serve_readiness(path, lambda: fault):
        answer = ask(path)
        assert answer.startswith(status)
        assert answer.decode().endswith(f"\r\n\r\n{fault or 'LIVE'}\n")
        head = ask(path, "HEAD")
    assert head.startswith(status)
    assert head.endswith(b"\r\n\r\n")


def test_an_envoy_that_is_away_or_ends_is_an_error_and_leaves_no_socket(path):
    from cumulant.drivers.envoy.admin import Admin

    def end_while_answering():
        taken, _ = listener.accept()
        with taken:
            taken.recv(4096)
            taken.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nLI")

    def check(reason):
        with pytest.raises(EngineUnavailableError, match=reason):
            Admin(path).request("/ready")
        gc.collect()  # a socket that is left open is a warning here, and warnings are errors

    check("No such file")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        check("refused")
        listener.listen()
        thread = threading.Thread(target=end_while_answering)
        thread.start()
        check("IncompleteRead")
        thread.join()


def test_many_callers_at_once_and_callers_who_leave_hold_up_no_probe(path, capfd):
    from cumulant.drivers.envoy.readiness import serve_readiness

    with serve_readiness(path, str), ExitStack() as stack:
        for _ in range(100):
            connected(stack, path).sendall(b"GET /re")
        for _ in range(20):
            with ExitStack() as brief:
                connected(brief, path).sendall(b"GET /ready HTTP/1.1\r\n\r\n")
        assert ask(path).startswith(b"HTTP/1.0 200")
    assert "Traceback" not in capfd.readouterr().err


def test_a_gateway_is_ready_for_as_long_as_its_agent_confirmed(tmp_path):
    from cumulant.drivers.envoy.folder import Folder, Readiness

    folder = Folder(tmp_path)
    assert folder.readiness().fault == "the agent does not confirm the routes"
    for readiness, fault in [
        (Readiness.lasting(60.0), ""),
        (Readiness.lasting(0.0, "the gateway has no routes yet"), "the gateway has no routes yet"),
        (Readiness.lasting(-1.0), "the agent does not confirm the routes"),
        # of another life of the machine, whose clock began anew
        (Readiness(until=1e12, seconds=60.0), "the agent does not confirm the routes"),
    ]:
        folder.write_readiness(readiness)
        assert folder.readiness().fault == fault
