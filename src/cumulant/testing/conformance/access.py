"""Rules of the port `access`."""

from __future__ import annotations

import pytest

from cumulant.core.errors import RefusedError
from cumulant.ports.access import Access, Principal
from cumulant.testing.conformance.gaps import Suite

ADA = Principal("user:ada", ("team:risk",))
EVE = Principal("user:eve")


class AccessConformance(Suite):
    """Give a fixture `access`: `ADA` may do `model.train`; `EVE` may not, unless there is a gap `refuses`."""

    @pytest.fixture
    def access(self) -> Access:
        raise NotImplementedError

    def test_what_is_allowed(self, access: Access) -> None:
        access.check(ADA, "model.train", "flight-late")

    def test_what_is_refused(self, access: Access) -> None:
        if "refuses" in self.gaps:
            access.check(EVE, "model.train", "flight-late")
            return
        with pytest.raises(RefusedError) as caught:
            access.check(EVE, "model.train", "flight-late")
        message = caught.value.message
        assert "user:eve" in message
        assert "model.train" in message
