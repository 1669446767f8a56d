"""Rules of the port `access`."""

from __future__ import annotations

import pytest

from cumulant.ports.access import Access, Principal, Resource
from cumulant.testing.conformance.gaps import Suite

ADA = Principal("user:ada", ("team:risk",))
EVE = Principal("user:eve")
PROJECT = Resource(kind="project", name="flight-late")


class AccessConformance(Suite):
    """Give a fixture `access`: `ADA` may do `model.train`; `EVE` may not, unless there is a gap `refuses`."""

    @pytest.fixture
    def access(self) -> Access:
        raise NotImplementedError

    def test_what_is_allowed(self, access: Access) -> None:
        assert access.check(ADA, "model.train", PROJECT).allowed

    def test_what_is_refused(self, access: Access) -> None:
        assert access.check(EVE, "model.train", PROJECT).allowed == ("refuses" in self.gaps)
