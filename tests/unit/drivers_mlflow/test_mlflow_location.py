"""Addresses of MLflow's registry."""

from __future__ import annotations

import traceback

import pytest
from sqlalchemy.engine import make_url

from cumulant.core.errors import UsageError
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.location import PostgresTablesLocation, locate

parse_database_url = pytest.importorskip(
    "cumulant.drivers.postgres.location", reason='pip install "cumulant[postgres]"'
).parse_database_url
PARSERS = {"mlflow+postgresql": lambda url: locate(f"{url}artifacts=s3://b"), "postgresql": parse_database_url}
START = "mlflow+postgresql://ada:hidden@"


def tables(url: str) -> PostgresTablesLocation:
    location = locate(url).postgres
    assert location is not None
    return location


def mlflow_settings(url: str) -> dict[str, object]:
    """What MLflow's client gives psycopg."""
    address = make_url(locate(url).tracking_uri)
    (_, settings) = address.get_dialect()().create_connect_args(address)
    return dict(settings)


@pytest.mark.parametrize(
    "url",
    [
        f"{START}db.internal:5433/ml?artifacts=s3://acme/mlflow/&application_name=a%20b",
        f"{START}db.internal/ml?artifacts=s3://acme&sslrootcert=/etc/my%20certs/a+b.pem",
        f"{START}h1:5433,h2:5434/ml?artifacts=s3://acme&target_session_attrs=read-write",
        f"{START}[::1]:5433/ml?artifacts=s3://acme",
        f"{START}/ml?artifacts=s3://acme&host=/run/postgresql",
        "mlflow+postgresql://a%40b:p%40%2F%25%3A%20s@db/m%20l?artifacts=gs://acme",
        "mlflow+postgresql://db/ml?artifacts=gs://acme&user=ada&password=a%20b",
    ],
)
def test_mlflow_and_the_driver_connect_with_the_same_settings(url: str) -> None:
    given, own = mlflow_settings(url), tables(url).settings
    assert given.pop("options") == "-csearch_path=mlflow"
    assert {name: str(value) for name, value in given.items()} == own


def test_a_database_is_named_without_its_password() -> None:
    location = locate(f"{START}h1:5433,h2:5434/ml?artifacts=s3://acme/mlflow/&application_name=a%20b+c")
    assert location.postgres is not None
    assert location.postgres.artifacts == "s3://acme/mlflow"
    assert location.postgres.settings["application_name"] == "a b+c"
    assert location.name == "h1,h2:5433,5434/ml"
    assert locate("https://ci:hidden@mlflow.example.com/a").name == "https://mlflow.example.com/a"


def test_a_connection_of_this_machine_or_with_sslmode_is_left_as_it_is() -> None:
    for address, sslmode in (
        ("localhost/ml?", None),
        ("db/ml?sslmode=verify-full&", "verify-full"),
        ("db/ml?", "require"),
    ):
        location = tables(f"{START}{address}artifacts=gs://acme&schema=public")
        assert location.schema == "public"
        assert location.settings.get("sslmode") == sslmode


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("/ml?artifacts=s3://b", "no host"),
        ("db?artifacts=s3://b", "no database"),
        ("db/?artifacts=s3://b", "no database"),
        ("db/ml", "where its files go"),
        ("db/ml?artifacts=file:///tmp", "where its files go"),
        ("db/ml?artifacts=az://b", "where its files go"),
        ("db/ml?artifacts", "no address"),
        ("db/ml?artifacts=s3://b&schema=A;B", "no name of a schema"),
        ("db/ml?artifacts=s3://b&options=-c%20x", "may not have the option"),
        ("db/ml?artifacts=s3://b&sslmod=require", 'unknown option "sslmod"'),
    ],
)
def test_an_address_that_is_not_whole_is_refused_without_its_password(rest: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as raised:
        locate(f"{START}{rest}")
    assert "hidden" not in shown(raised.value)


@pytest.mark.parametrize(
    "password", ["p@hidden", "p/hidden", "1/hidden", "p?hidden", "1?hidden", "100%zzhidden", "p hidden"]
)
@pytest.mark.parametrize("scheme", PARSERS)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(scheme: str, password: str) -> None:
    with pytest.raises(UsageError) as raised:
        PARSERS[scheme](f"{scheme}://ada:{password}@db/ml?")
    assert "hidden" not in shown(raised.value)


@pytest.mark.parametrize("port", ["port", "99999", "99999999", "0"])
def test_a_port_that_is_none_is_refused_without_the_password(port: str) -> None:
    for url in (f"{START}db:{port}/ml?artifacts=s3://b", f"https://ada:hidden@db:{port}"):
        if port != "0" or url.startswith("mlflow"):
            with pytest.raises(UsageError) as raised:
                list(MlflowRegistry(url).models())
            assert "hidden" not in f"{raised.value} {raised.value.subject} {raised.value.hint}"


def test_a_value_of_an_option_that_libpq_refuses_is_no_server_that_is_down() -> None:
    with pytest.raises(UsageError, match="invalid target_session_attrs value"):
        list(MlflowRegistry(f"{START}127.0.0.1:1/ml?artifacts=s3://b&target_session_attrs=x").models())


def shown(error: UsageError) -> str:
    """What a log, the journal and a terminal can show of it, and of its causes."""
    return f"{error.subject} {error.hint} {''.join(traceback.format_exception_only(error))} {error.__cause__}"
