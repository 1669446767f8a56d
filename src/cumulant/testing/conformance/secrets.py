"""Rules of the port `secrets`."""

from __future__ import annotations

import pytest

from cumulant.core.errors import NotFoundError
from cumulant.ports.secrets import Secrets
from cumulant.testing.conformance.gaps import Suite

VALUES = {"API_TOKEN": "s3cret-värde =#", "EMPTY_LOOKING": "0"}


class SecretsConformance(Suite):
    """Give a fixture `secrets` that holds `VALUES`."""

    @pytest.fixture
    def secrets(self) -> Secrets:
        raise NotImplementedError

    @pytest.mark.parametrize("name", list(VALUES))
    def test_a_value(self, secrets: Secrets, name: str) -> None:
        assert secrets.get(name) == VALUES[name]

    def test_a_missing_secret(self, secrets: Secrets) -> None:
        with pytest.raises(NotFoundError) as caught:
            secrets.get("NOT_THERE")
        error = str(caught.value.as_dict())
        assert "NOT_THERE" in error
        assert "looked" in error
        assert not any(value in error for value in VALUES.values() if len(value) > 1)

    def test_no_value_in_the_representation(self, secrets: Secrets) -> None:
        secrets.get("API_TOKEN")
        assert VALUES["API_TOKEN"] not in repr(secrets)
