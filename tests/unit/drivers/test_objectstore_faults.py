"""What a user reads when an object store does not answer, refuses, or fails."""

import socket
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cumulant.core.errors import CredentialsError, EngineUnavailableError, NotFoundError, StorageError
from cumulant.testing.servers.programs import free_port

obstore = pytest.importorskip("obstore.store", reason='pip install "cumulant[objects]"')


@contextmanager
def answering(status, body=b""):
    """The address of a server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def bucket(endpoint, **client):
    """A bucket whose calls are not repeated."""
    from cumulant.drivers.objectstore.bucket import Bucket

    config = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "aws_region": "r", "aws_endpoint_url": endpoint}
    retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}
    store = obstore.from_url(
        "s3://bucket/x", config=config, client_options={"allow_http": True, **client}, retry_config=retries
    )
    return Bucket(store, "s3://bucket/x")


def fault(endpoint, kind, **client):
    with pytest.raises(kind) as caught:
        bucket(endpoint, **client).read("a")
    assert caught.value.subject == "s3://bucket/x/a"
    text = caught.value.full_text
    assert not any(word in text for word in ("Generic", "retries", "Debug", "performing", "<"))
    return caught.value


def test_a_store_that_does_not_run_is_named_with_its_address_and_what_to_check():
    address = f"http://127.0.0.1:{free_port()}"
    error = fault(address, EngineUnavailableError)
    assert error.message == f"the object store at {address} does not answer: Connection refused"
    assert "AWS_ENDPOINT_URL" in error.hint
    assert error.message == fault(address, EngineUnavailableError).message  # a repeated report is the same text


def test_a_host_without_an_address_is_reported():
    assert "the name of its host is not known" in fault("http://store.invalid:9", EngineUnavailableError).message


def test_a_store_that_takes_too_long_is_reported():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = fault(f"http://127.0.0.1:{silent.getsockname()[1]}", EngineUnavailableError, timeout="200ms")
    assert error.message.endswith("does not answer: no answer came in time")


def test_a_store_that_is_asked_by_tls_and_speaks_none_is_reported():
    with answering(200) as address:
        error = fault(address.replace("http:", "https:"), EngineUnavailableError)
    assert error.message.endswith("it does not speak TLS")


def test_a_store_that_fails_is_reported_with_its_answer():
    with answering(503, b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>") as address:
        error = fault(address, EngineUnavailableError)
    assert error.message == (
        f"the object store at {address} does not answer as it should: 503 Service Unavailable, SlowDown:"
        " Reduce your rate"
    )


@pytest.mark.parametrize(
    ("code", "kind"), [("AccessDenied", StorageError), ("SignatureDoesNotMatch", CredentialsError)]
)
def test_a_refusal_is_one_of_the_bucket_or_of_the_credentials(code, kind):
    body = f"<?xml version='1.0'?>\n<Error>\n<Code>{code}</Code>\n<Message>no</Message></Error>".encode()
    with answering(403, body) as address:
        error = fault(address, kind)
    assert error.message == f"the object store does not allow this: 403 Forbidden, {code}: no"
    assert "credentials" in error.hint


def test_a_missing_bucket_is_no_missing_object():
    with answering(404, b"<Error><Code>NoSuchBucket</Code></Error>") as address:
        assert "no such bucket" in fault(address, NotFoundError).message
    with answering(404, b"<Error><Code>NoSuchKey</Code></Error>") as address:
        assert bucket(address).read("a") is None
