"""Faults of URLs of shared engines: what is wrong is named, with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.core.scope import Scope
from cumulant.drivers.valkey.location import parse_online_url
from cumulant.ports.plugins import Drivers
from cumulant.project.endpoints import endpoints
from cumulant.project.file.spec import EnvironmentSpec


@pytest.mark.parametrize(
    ("option", "hint"), [("project=shop", "an option of libpq"), ("sslmod=require", 'did you mean "sslmode"')]
)
def test_an_unknown_option_of_a_database_is_named(option: str, hint: str) -> None:
    location = pytest.importorskip("cumulant.drivers.postgres.location", reason='pip install "cumulant[postgres]"')
    with pytest.raises(UsageError, match=f'unknown option "{option.partition("=")[0]}"') as caught:
        location.parse_database_url(f"postgresql://ada:secret@127.0.0.1/shop?{option}")
    assert hint in str(caught.value.hint)


def test_options_of_a_database_are_accepted() -> None:
    location = pytest.importorskip("cumulant.drivers.postgres.location", reason='pip install "cumulant[postgres]"')
    found = location.parse_database_url("postgresql://ada@127.0.0.1/shop?schema=acme&sslmode=require&ssl=true")
    assert (found.schema, found.settings["sslmode"]) == ("acme", "require")


def test_the_password_option_takes_a_name_and_no_placeholder() -> None:
    with pytest.raises(UsageError, match="the name of a secret") as caught:
        parse_online_url("valkey://127.0.0.1/0?password=${secret:SHOP_ONLINE}")
    assert caught.value.hint == "write ?password=SHOP_ONLINE"


def test_a_missing_certificate_is_no_server_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        parse_online_url(f"rediss://127.0.0.1/0?ca={tmp_path / 'ca.pem'}")
    assert caught.value.subject == str(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").touch()
    assert parse_online_url(f"rediss://127.0.0.1/0?ca={tmp_path / 'ca.pem'}").encrypted


def test_a_store_takes_no_options(tmp_path: Path) -> None:
    """They stood before the port's folder, which was lost then."""
    tables = pytest.importorskip("cumulant.drivers.objectstore.tables", reason='pip install "cumulant[objects]"')
    scope = Scope(tenant="default", project="shop", environment="prod", region="local")
    spec = EnvironmentSpec(store="s3://acme/shop?project=x")
    url = endpoints(spec, drivers=Drivers.installed(), root=tmp_path, scope=scope).of("tables")
    assert url == "s3://acme/shop/tables?project=x"
    with pytest.raises(UsageError, match='no option "project"') as caught:
        tables.BucketTables(url, embedded=lambda folder: None)
    assert "leave out ?project;" in str(caught.value.hint)


def test_missing_credentials_are_named() -> None:
    faults = pytest.importorskip("cumulant.drivers.objectstore.faults", reason='pip install "cumulant[objects]"')
    fault = Exception("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token")
    error = faults.explain(fault, "s3://acme/logs/default")
    assert isinstance(error, EngineUnavailableError)
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(error.hint)


@pytest.mark.parametrize(("url", "tls"), [("valkey://127.0.0.1:1/0", False), ("rediss://127.0.0.1:1/0", True)])
def test_errors_of_the_online_store_name_the_next_step(url: str, tls: bool) -> None:
    node = pytest.importorskip("cumulant.drivers.valkey.node", reason='pip install "cumulant[valkey]"')
    explain = node.Node(parse_online_url(url), None).explain
    assert ("TLS" in str(explain(node.PeerTimeoutError("Timeout connecting to server")).hint)) == tls
    assert "end of the URL" in str(explain(node.ValkeyError("DB index is out of range")).hint)
