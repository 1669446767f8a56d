"""MLflow's registry in PostgreSQL, with its files in SeaweedFS and no server of MLflow."""

import itertools
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pandas as pd
import pytest
from mlflow import MlflowClient
from sqlalchemy import NullPool, create_engine, text

from cumulant.core.errors import CredentialsError, EngineUnavailableError, StorageError, UsageError
from cumulant.drivers.mlflow.artifacts import open_artifacts
from cumulant.drivers.mlflow.client import MlflowRegistry
from cumulant.drivers.mlflow.location import locate
from cumulant.drivers.mlflow.postgres_connection import connect
from cumulant.drivers.mlflow.postgres_schema import make_schema
from cumulant.testing.conformance.registry import RegistryConformance, register
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servables import build_servable
from cumulant.testing.servers.seaweedfs import BUCKET, KEY, SECRET, seaweed_server

# Plain MLflow speaks through warnings; the driver's own silence is tested beside it.
pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]

READ = """
import sys
from cumulant.drivers.mlflow.artifacts import open_artifacts
from cumulant.drivers.mlflow.client import MlflowRegistry
registry = MlflowRegistry(sys.argv[1])
print([version.uri for version in registry.versions("flight-late")], registry.metrics(sys.argv[2]))
print("mlflow" in sys.modules)
"""


class Databases:
    """Databases of one server with a bucket beside it; a full one is a copy of one whose tables were made once."""

    def __init__(self, server, endpoint):
        self.server, self._numbers = server, itertools.count()
        self.secrets = MemorySecrets(
            {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
            }
        )
        self.template = None

    def url(self, template=None):
        name = f"registry_{next(self._numbers)}"
        self.server.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        artifacts = f"s3://{BUCKET}/mlflow/{name}"
        return f"mlflow+{self.server.url(name)}?artifacts={artifacts}"

    def client(self, url):
        return MlflowRegistry(url, secrets=self.secrets)

    def registry(self):
        """A client of an empty registry."""
        if self.template is None:
            url = self.url()
            make_schema(locate(url).postgres)
            self.template = url.partition("?")[0].rpartition("/")[2]
        return self.client(self.url(self.template))


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    if server_programs() is None:
        pytest.skip(f"PostgreSQL is not installed: {INSTALL}")
    with ExitStack() as stack:
        try:
            endpoint = stack.enter_context(seaweed_server(tmp_path_factory.mktemp("weed"))).url
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield Databases(stack.enter_context(postgres_server("fsync = off")), endpoint)


@pytest.fixture
def servable(tmp_path):
    return build_servable(tmp_path)


@pytest.fixture
def example():
    return pd.DataFrame({"distance": [100.0, 2500.0]})


class TestMlflowInPostgres(RegistryConformance):
    @pytest.fixture
    def registry(self, databases):
        return databases.registry()

    @pytest.fixture
    def servable(self, servable):
        return servable

    @pytest.fixture
    def example(self, example):
        return example


def run_once(registry):
    with registry.run("flights", "train", key="k") as run:
        return run.id


def test_the_tables_are_made_once_whoever_comes_and_whatever_was_left_of_them(databases):
    url = databases.url()
    name = url.partition("?")[0].rpartition("/")[2]
    databases.server.execute("CREATE SCHEMA mlflow_draft", name)
    databases.server.execute("CREATE TABLE mlflow_draft.experiments (id int)", name)  # a process was killed meanwhile
    with ThreadPoolExecutor(2) as threads:
        [*threads.map(lambda _: make_schema(locate(url).postgres), range(2))]
    assert databases.server.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'mlflow%'", name).split() == [
        "mlflow"
    ]
    assert run_once(databases.client(url)) == run_once(databases.client(url))


def test_versions_and_metrics_are_read_without_mlflow(databases, servable, example):
    url = databases.url(databases.registry() and databases.template)
    registry = databases.client(url)
    version = register(registry, servable, example, key="one")
    with registry.run("flights", "train", key="one") as run:
        run.metrics({"log_loss": 0.25})
        run_id = run.id
    line = [sys.executable, "-c", READ, url, run_id]
    printed = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert printed == [f"['{version.uri}'] {{'log_loss': 0.25}}", "False"]


def role(databases, name, rights="", database="postgres"):
    databases.server.execute(f"CREATE ROLE {name} LOGIN")
    if rights:
        databases.server.execute(f"{rights} {name}", database)


def test_a_draft_that_another_user_left_does_not_matter(databases):
    url = databases.url()
    name = url.partition("?")[0].rpartition("/")[2]
    for user in ("anna", "bert"):
        role(databases, user, f"GRANT CREATE ON DATABASE {name} TO")
    databases.server.execute("CREATE SCHEMA anna_ml_draft AUTHORIZATION anna", name)  # a process was killed meanwhile
    url = url.replace("postgres@", "bert@", 1)
    make_schema(locate(f"{url}&schema=bert_ml").postgres)
    assert databases.server.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '_ml'", name).split() == [
        "anna_ml_draft",
        "bert_ml",
    ]


def test_a_user_who_may_not_use_the_schema_does_not_see_an_empty_registry(databases):
    url = databases.url()
    name = url.partition("?")[0].rpartition("/")[2]
    role(databases, "carl", "CREATE SCHEMA mlflow AUTHORIZATION", name)
    role(databases, "reader")
    make_schema(locate(url.replace("postgres@", "carl@", 1)).postgres)  # a schema of its own is enough
    registry = databases.client(url.replace("postgres@", "reader@", 1))
    for call in (run_once, lambda registry: list(registry.models())):
        with pytest.raises(StorageError, match="permission denied for schema mlflow"):
            call(registry)
    databases.server.execute("GRANT USAGE ON SCHEMA mlflow TO reader", name)
    with pytest.raises(StorageError, match="permission denied for table"):
        list(registry.models())


def test_runs_and_versions_of_another_address_are_read_and_written_by_the_port(databases, servable, example, tmp_path):
    """Such as those of a database that another `artifacts` was declared for, or that a server of MLflow used."""
    url = databases.url(databases.registry() and databases.template)
    address = f"s3://{BUCKET}/before/{url.rpartition('/')[2]}"
    MlflowClient(locate(url).tracking_uri).create_experiment("flights", artifact_location=address)
    registry = databases.client(url)
    version = register(registry, servable, example, key="one")
    assert registry.fetch(version, tmp_path / "copy").is_dir()
    assert registry.download(version.uri, tmp_path / "model").is_dir()
    registry.attach(version.run_id, servable / "servable.json", "report")
    stored = {entry.path.rpartition("/")[2] for entry in open_artifacts(address, databases.secrets).entries()}
    assert {"servable.json", "MLmodel"} <= stored


def test_files_whose_names_a_store_cannot_hold_are_refused(databases, tmp_path):
    registry = databases.registry()
    run_id = run_once(registry)
    (tmp_path / "a\tb").write_text("")
    (tmp_path / "a\\b").write_text("")
    (tmp_path / "report").write_text("")
    for path, folder in (("a\tb", None), ("a\\b", None), ("report", "../x"), ("report", "a//b"), ("report", "./a")):
        with pytest.raises(UsageError, match="cannot hold"):
            registry.attach(run_id, tmp_path / path, folder)


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        ("127.0.0.1:", "127.0.0.1:1", EngineUnavailableError, "does not answer"),
        ("registry_", "nowhere_", UsageError, "does not exist"),
        ("postgres@", "ada:hidden@", CredentialsError, "does not exist"),
    ],
)
def test_a_wrong_address_is_named_without_its_password(databases, before, after, kind, words):
    url = databases.url().replace(before, after, 1)
    if before == "127.0.0.1:":
        url = url.replace(f":1{databases.server.port}/", ":1/")
    for call in (run_once, lambda registry: list(registry.models())):
        with pytest.raises(kind, match=words) as raised:
            call(databases.client(url))
        assert "hidden" not in f"{raised.value} {raised.value.subject}"


def test_a_wrong_password_is_refused_and_not_shown(databases):
    url = databases.url()
    databases.server.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
    databases.server.require_password("guest", kind="host")
    with pytest.raises(CredentialsError, match="password authentication failed") as raised:
        run_once(databases.client(url.replace("postgres@", "guest:hidden@", 1)))
    assert "hidden" not in f"{raised.value} {raised.value.subject}"


def test_one_of_several_hosts_that_runs_is_used_and_options_have_their_spaces(databases):
    url = databases.url(databases.registry() and databases.template)
    here = f"127.0.0.1:{databases.server.port}"
    url = url.replace(here, f"127.0.0.1:1,{here}") + "&application_name=my%20app"
    registry = databases.client(url)
    run_once(registry)
    assert list(registry.models()) == []
    location = locate(url)
    with connect(location.postgres) as opened:
        assert opened.execute("SHOW application_name").fetchone() == ("my app",)
    mlflow = create_engine(location.tracking_uri, poolclass=NullPool)
    with mlflow.connect() as opened:
        assert opened.execute(text("SHOW application_name")).scalar() == "my app"


def test_a_server_that_is_silent_is_waited_for_once(databases):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mlflow+postgresql://ada@127.0.0.1:{silent.getsockname()[1]}/x?artifacts=s3://b&connect_timeout=2"
        with pytest.raises(EngineUnavailableError, match="timeout"):
            list(databases.client(url).models())
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # MLflow's client was not tried, which would wait as long again
            silent.accept()
