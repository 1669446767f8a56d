"""The embedded drivers keep the rules of their ports."""

import os
from functools import partial
from typing import ClassVar

import pytest

from cumulant.core.errors import RefusedError
from cumulant.drivers.local.access import OpenAccess
from cumulant.drivers.local.compute import InlineCompute, SubprocessCompute
from cumulant.drivers.local.files import LocalFiles
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.drivers.local.objects import FileObjects
from cumulant.drivers.local.online import SqliteOnline
from cumulant.drivers.local.secrets import EnvSecrets
from cumulant.drivers.local.tables import FileTables
from cumulant.ports.compute import StepCall
from cumulant.testing.conformance.access import AccessConformance
from cumulant.testing.conformance.compute import ComputeConformance
from cumulant.testing.conformance.files import FilesConformance
from cumulant.testing.conformance.gaps import Gap
from cumulant.testing.conformance.journal import JournalConformance
from cumulant.testing.conformance.objects import ObjectsConformance
from cumulant.testing.conformance.online import OnlineConformance
from cumulant.testing.conformance.secrets import VALUES, SecretsConformance
from cumulant.testing.conformance.tables import TablesConformance


def _made(kind, url, scope):
    return kind(url, scope=scope)


class TestSqliteJournal(JournalConformance):
    @pytest.fixture
    def journal(self, tmp_path):
        journal = SqliteJournal(f"sqlite://{tmp_path}/deep/journal.db")
        yield journal
        journal.close()

    @pytest.fixture
    def connect(self, tmp_path):
        return lambda scope: SqliteJournal(f"sqlite://{tmp_path}/deep/journal.db", scope=scope)


class TestFileTables(TablesConformance):
    @pytest.fixture
    def tables(self, tmp_path):
        return FileTables(f"file://{tmp_path}/tables")

    @pytest.fixture
    def tables_of(self, tmp_path):
        return partial(_made, FileTables, f"file://{tmp_path}/shared")


class TestFileObjects(ObjectsConformance):
    @pytest.fixture
    def objects(self, tmp_path):
        return FileObjects(f"file://{tmp_path}/objects")

    @pytest.fixture
    def objects_of(self, tmp_path):
        return partial(_made, FileObjects, f"file://{tmp_path}/shared")


class TestSqliteOnline(OnlineConformance):
    @pytest.fixture
    def online(self, tmp_path):
        online = SqliteOnline(f"sqlite://{tmp_path}/deep/online.db")
        yield online
        online.close()


class TestLocalFiles(FilesConformance):
    @pytest.fixture
    def files(self, tmp_path):
        return LocalFiles(f"file://{tmp_path}")

    @pytest.fixture
    def base(self, tmp_path):
        return f"{tmp_path}/"

    @pytest.fixture
    def write(self, tmp_path):
        def write(name, content):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{name}.new").write_bytes(content)
            (tmp_path / f"{name}.new").replace(tmp_path / name)

        return write

    @pytest.fixture
    def remove(self, tmp_path):
        return lambda name: (tmp_path / name).unlink()


class TestEnvSecretsFromVariables(SecretsConformance):
    @pytest.fixture
    def secrets(self, tmp_path):
        return EnvSecrets(f"env://{tmp_path}/none", environ={f"CUMULANT_SECRET_{n}": v for n, v in VALUES.items()})


class TestEnvSecretsFromPlainVariables(SecretsConformance):
    @pytest.fixture
    def secrets(self, tmp_path):
        return EnvSecrets(f"env://{tmp_path}/none", environ=VALUES)


class TestEnvSecretsFromFile(SecretsConformance):
    @pytest.fixture
    def secrets(self, tmp_path):
        path = tmp_path / "secrets"
        path.write_text("# comment\n\n" + "".join(f"{name} = {value}\n" for name, value in VALUES.items()))
        path.chmod(0o600)
        return EnvSecrets(f"env://{path}", environ={})


class TestOpenAccess(AccessConformance):
    gaps: ClassVar = {"refuses": Gap("one person's own machine: everything is allowed", RefusedError)}

    @pytest.fixture
    def access(self):
        return OpenAccess()


class TestInlineCompute(ComputeConformance):
    @pytest.fixture
    def compute(self):
        return InlineCompute()


class TestSubprocessCompute(ComputeConformance):
    @pytest.fixture
    def compute(self):
        return SubprocessCompute()

    def test_the_step_has_a_process_of_its_own(self, compute):
        assert compute.run(StepCall(f"{__name__}:my_process", {})) != {"pid": os.getpid()}


def my_process():
    return {"pid": os.getpid()}
