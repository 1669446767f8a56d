"""The fakes that ship keep the rules of their ports."""

from typing import ClassVar

import pandas as pd
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.scope import Scope
from cumulant.testing.access import GrantedAccess
from cumulant.testing.compute import DirectCompute
from cumulant.testing.conformance.access import ADA, AccessConformance
from cumulant.testing.conformance.compute import ComputeConformance
from cumulant.testing.conformance.files import FilesConformance
from cumulant.testing.conformance.gaps import Gap
from cumulant.testing.conformance.journal import JournalConformance
from cumulant.testing.conformance.objects import ObjectsConformance, folder_of
from cumulant.testing.conformance.online import OnlineConformance
from cumulant.testing.conformance.registry import RegistryConformance
from cumulant.testing.conformance.routes import GatewayRoutesConformance
from cumulant.testing.conformance.secrets import VALUES, SecretsConformance
from cumulant.testing.conformance.tables import TablesConformance
from cumulant.testing.files import MemoryFiles
from cumulant.testing.journal import MemoryJournal
from cumulant.testing.objects import MemoryObjects
from cumulant.testing.online import MemoryOnline
from cumulant.testing.registry import MemoryRegistry
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.tables import MemoryTables
from cumulant.testing.traffic import MemoryTraffic


class TestMemoryJournal(JournalConformance):
    gaps: ClassVar = {"processes": Gap("it is in the memory of one process", UsageError)}

    @pytest.fixture
    def journal(self):
        return MemoryJournal()

    @pytest.fixture
    def connect(self, journal):
        others = {}
        return lambda scope: journal if scope == Scope() else others.setdefault(scope, MemoryJournal(scope=scope))


class TestMemoryTables(TablesConformance):
    @pytest.fixture
    def tables(self):
        return MemoryTables()

    @pytest.fixture
    def tables_of(self):
        return MemoryTables().of


class TestMemoryObjects(ObjectsConformance):
    @pytest.fixture
    def objects(self):
        return MemoryObjects()

    @pytest.fixture
    def objects_of(self):
        return MemoryObjects().of


class TestMemoryOnline(OnlineConformance):
    @pytest.fixture
    def online(self):
        return MemoryOnline()


class TestMemoryFiles(FilesConformance):
    @pytest.fixture
    def files(self):
        return MemoryFiles({})

    @pytest.fixture
    def base(self):
        return "mem://"

    @pytest.fixture
    def write(self, files, base):
        return lambda name, content: files.contents.update({base + name: content})

    @pytest.fixture
    def remove(self, files, base):
        return lambda name: files.contents.pop(base + name)


class TestMemorySecrets(SecretsConformance):
    @pytest.fixture
    def secrets(self):
        return MemorySecrets(VALUES)


class TestGrantedAccess(AccessConformance):
    @pytest.fixture
    def access(self):
        return GrantedAccess({(ADA.id, "model.train")})


class TestDirectCompute(ComputeConformance):
    @pytest.fixture
    def compute(self):
        return DirectCompute()


class TestMemoryRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self):
        return MemoryRegistry()

    @pytest.fixture
    def servable(self, tmp_path):
        return folder_of(tmp_path / "servable", {"servable.json": b"{}", "model.txt": b"x"})

    @pytest.fixture
    def example(self):
        return pd.DataFrame({"a": [1.0]})


class TestMemoryTraffic(GatewayRoutesConformance):
    @pytest.fixture
    def connect(self):
        traffic = MemoryTraffic()
        return lambda: traffic
