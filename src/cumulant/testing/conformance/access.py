"""Rules of the port `access`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from cumulant.ports.access import Access, Principal, Resource
from cumulant.testing.conformance.gaps import Suite

ADA = Principal("user:ada", ("team:risk",))
EVE = Principal("user:eve")
PROJECT = Resource(kind="project", name="flight-late", labels={"project": "flight-late", "environment": "local"})
#: ids that are text of a policy, of JSON or of a shell, or nearly ADA's
NEAR_ADA = (
    'user:ada"',
    'user:ada" || true || "',
    "user:ada\n",
    "user:ada\x00",
    "user:ada ",
    "User:ada",
    "user:аda",  # a Cyrillic letter
    "user:ada\ud800",  # half a character
    "ada",
    "*",
    "",
    'user:"; permit(principal, action, resource); //',
)


class AccessConformance(Suite):
    """Give a fixture `access`: `ADA` may do `model.train`; nobody else may do anything, unless there is a gap
    `refuses`.
    """

    @pytest.fixture
    def access(self) -> Access:
        raise NotImplementedError

    def test_what_is_allowed(self, access: Access) -> None:
        assert access.check(ADA, "model.train", PROJECT).allowed

    def test_what_is_refused(self, access: Access) -> None:
        decision = access.check(EVE, "model.train", PROJECT)
        assert decision.allowed == ("refuses" in self.gaps)
        assert decision.allowed or decision.hint

    @pytest.mark.parametrize("name", NEAR_ADA)
    def test_an_id_is_a_value(self, access: Access, name: str) -> None:
        refuses = "refuses" not in self.gaps
        assert access.check(Principal(name), "model.train", PROJECT).allowed != refuses
        assert access.check(Principal("user:eve", (name, ADA.id)), "model.train", PROJECT).allowed != refuses
        assert access.check(EVE, name, PROJECT).allowed != refuses

    def test_decisions_of_threads(self, access: Access) -> None:
        with ThreadPoolExecutor(4) as pool:
            who = [ADA, EVE] * 200
            decisions = list(pool.map(lambda each: access.check(each, "model.train", PROJECT).allowed, who))
        assert decisions == [True, "refuses" in self.gaps] * 200
