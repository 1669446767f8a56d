"""Access by Cedar policies keeps the rules of its port, whether a binding or a file allows."""

import pytest

from cumulant.ports.access import RoleBinding
from cumulant.testing.conformance.access import AccessConformance

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')
from cumulant.drivers.cedar.access import CedarAccess


class TestBindings(AccessConformance):
    @pytest.fixture
    def access(self):
        return CedarAccess(bindings=[RoleBinding(id="ada", role="developer", users=("user:ada",))])


class TestFiles(AccessConformance):
    @pytest.fixture
    def access(self, tmp_path):
        policy = 'permit(principal == Principal::"user:ada", action == Action::"model.train", resource);'
        (tmp_path / "team.cedar").write_text(policy)
        return CedarAccess(f"cedar://{tmp_path}")
