"""What a user reads when an object store does not answer, refuses, or fails."""

import socket
import traceback
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cumulant.core.errors import CredentialsError, EngineUnavailableError, NotFoundError, StorageError, UsageError
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.programs import free_port

obstore = pytest.importorskip("obstore.store", reason='pip install "cumulant[objects]"')

PASSWORD = "hunter2"
CLOUDS = {
    "s3://bucket/x": {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "r",
        "AWS_ENDPOINT_URL": "",
    },
    "gs://bucket/x": {"GOOGLE_SKIP_SIGNATURE": "true", "GOOGLE_BASE_URL": ""},
    "az://bucket/x": {
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=signature",
        "AZURE_STORAGE_ENDPOINT": "",
    },
}


@contextmanager
def answering(status, body=b"", *, length=None, head=None):
    """The address of a server that gives every request the same answer; `head`: the status of requests for heads."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(status, body)

        def do_HEAD(self):
            self.answer(head or status, b"")

        do_POST = do_GET

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("etag", '"tag"')
            self.send_header("last-modified", "Mon, 30 Nov 2026 10:00:00 GMT")
            self.send_header("content-length", str(len(body) if length is None else length))
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


@contextmanager
def answering_other_protocol():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")

        Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def bucket(endpoint, **client):
    """A bucket whose calls are not repeated."""
    from cumulant.drivers.objectstore.bucket import Bucket

    config = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "aws_region": "r", "aws_endpoint_url": endpoint}
    retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}
    store = obstore.from_url(
        "s3://bucket/x", config=config, client_options={"allow_http": True, **client}, retry_config=retries
    )
    return Bucket(store, "s3://bucket/x")


@pytest.fixture
def opened(monkeypatch):
    """Opens the bucket of a cloud at an endpoint as a project does; calls are not repeated."""
    from cumulant.drivers.objectstore import bucket as module

    monkeypatch.setattr(module, "_RETRY", {"max_retries": 0, "retry_timeout": timedelta(seconds=5)})

    def open_at(url, endpoint, secrets=None):
        values = {name: value or endpoint for name, value in CLOUDS[url].items()}
        return module.open_bucket(url, MemorySecrets(values) if secrets is None else secrets)

    return open_at


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


def test_a_store_without_tls_at_an_https_address_is_reported():
    with answering(200) as address:
        error = fault(address.replace("http:", "https:"), EngineUnavailableError)
    assert error.message.endswith("it does not use TLS")


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


@pytest.mark.parametrize("url", CLOUDS)
def test_the_address_of_a_store_of_any_cloud_is_reported(opened, url):
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineUnavailableError) as caught:
        opened(url, address).read("a")
    assert caught.value.message == f"the object store at {address} does not answer: Connection refused"


def test_the_address_of_an_azure_account_is_that_of_its_name(opened):
    names = MemorySecrets({"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=a"})
    assert opened("az://bucket/x", "", names).address == "https://account.blob.core.windows.net"


@pytest.mark.parametrize("url", CLOUDS)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"code": 403, "message": "no \\"get\\" access", "errors": []}}', ': no "get" access'),
        (b"<html><body>\n<h1>Blocked</h1> by a proxy</body></html>", ": Blocked by a proxy"),
        (b"<Error><Code>Denied</Code><Message>no\nRequestId:1\nTime:2</Message></Error>", ", Denied: no"),
        (b"<Error><Code>Denied</Code></Error>", ", Denied"),
        (b"\x1b[31mno", ": [31mno"),
        (b"", ""),
    ],
)
def test_the_reason_of_a_refusal_is_reported(opened, url, body, reason):
    with answering(403, body) as address, pytest.raises(StorageError) as caught:
        opened(url, address).read("a")
    assert caught.value.message == f"the object store does not allow this: 403 Forbidden{reason}"
    assert "signature" not in caught.value.full_text


def test_a_long_reason_is_cut(opened):
    with answering(403, b"n" * 10_000) as address, pytest.raises(StorageError) as caught:
        opened("gs://bucket/x", address).read("a")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken"])
def test_credentials_that_a_store_calls_a_bad_request(code):
    with answering(400, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()) as address:
        error = fault(address, CredentialsError)
    assert error.message == f"the object store does not allow this: 400 Bad Request, {code}: no"
    assert "credentials" in error.hint


def test_credentials_that_a_service_of_tokens_refuses():
    from cumulant.drivers.objectstore.bucket import Bucket

    body = b'{"error": "invalid_client", "error_description": "no such secret"}'
    with answering(400, body) as address:
        config = {"azure_storage_account_name": "a", "azure_storage_tenant_id": "t", "azure_storage_client_id": "c"}
        config |= {"azure_storage_client_secret": "s", "azure_authority_host": address}
        options, retries = {"allow_http": True}, {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}
        store = obstore.from_url("az://c/x", config=config, client_options=options, retry_config=retries)
        with pytest.raises(CredentialsError, match="400 Bad Request: no such secret"):
            Bucket(store, "az://c/x").read("a")


def test_an_answer_that_cannot_be_read_is_no_missing_answer():
    with answering(301, b"<Error><Code>PermanentRedirect</Code></Error>") as address:
        error = fault(address, EngineUnavailableError)
    assert error.message.startswith(f"the object store at {address} gave an answer that cannot be read: ")
    assert "AWS_ENDPOINT_URL and the region" in error.hint
    with answering_other_protocol() as address:
        assert fault(address, EngineUnavailableError).message.endswith("cannot be read: it is not HTTP")


@pytest.mark.parametrize("url", CLOUDS)
def test_an_answer_that_is_cut_off_is_reported(opened, url):
    with answering(200, b"abc", length=100) as address, pytest.raises(EngineUnavailableError) as caught:
        opened(url, address).read("a")
    assert caught.value.message == f"the object store at {address} gave an answer that cannot be read: it was cut off"


@pytest.mark.parametrize("url", CLOUDS)
@pytest.mark.parametrize("body", [b"<html>login</html>", b""])
def test_a_page_of_a_proxy_is_no_empty_list(opened, url, body):
    with answering(200, body) as address:
        store = opened(url, address)
        for call in (lambda: list(store.entries("a")), store.folders):
            with pytest.raises(EngineUnavailableError) as caught:
                call()
            assert caught.value.message.startswith(f"the object store at {address} gave an answer that cannot be read")


@pytest.mark.parametrize("status", [403, 404])
def test_an_empty_list_is_one_where_no_object_may_be_read(opened, status):
    body = b"<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>"
    with answering(200, body, head=status) as address:
        store = opened("s3://bucket/x", address)
        assert (list(store.entries()), store.folders()) == ([], [])


@pytest.mark.parametrize("url", CLOUDS)
@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.1:x", "a/b"])
def test_an_endpoint_with_a_password_is_refused_and_not_printed(opened, url, host):
    with pytest.raises(UsageError, match="has a user name or a password") as caught:
        opened(url, f"http://user:{PASSWORD}@{host}")
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("url", "host"), [*((url, "127.0.0.1:1") for url in CLOUDS), ("az://bucket/x", "a:x")])
def test_a_password_in_an_endpoint_that_the_client_itself_reads_is_not_printed(opened, monkeypatch, url, host):
    (name,) = [name for name, value in CLOUDS[url].items() if not value]
    monkeypatch.setenv(name, f"http://user:{PASSWORD}@{host}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    others = {key: value for key, value in CLOUDS[url].items() if key != name}
    with pytest.raises((EngineUnavailableError, UsageError)) as caught:
        opened(url, "", MemorySecrets(others)).read("a")
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", CLOUDS)
@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:9", "ftp://127.0.0.1:9", "http://", "http://a:x", "http://a:99999", "http://[a", "http://a b"],
)
def test_an_endpoint_that_is_no_address_is_refused(opened, url, endpoint):
    with pytest.raises(UsageError, match=r"(AWS|GOOGLE|AZURE)_\w+ is no address") as caught:
        opened(url, endpoint)
    assert "http://HOST:PORT" in caught.value.hint
