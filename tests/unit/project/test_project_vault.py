"""Secrets are read once, or again where one may have been replaced."""

from __future__ import annotations

import pytest

from cumulant.core.errors import EngineUnavailableError, NotFoundError
from cumulant.project.vault import Vault


class Store:
    def __init__(self):
        self.value, self.asked, self.fault = "first", 0, None

    def get(self, name):
        self.asked += 1
        if self.fault:
            raise self.fault
        return self.value


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def age():
    return [0.0]


@pytest.fixture
def vault(store, age):
    return Vault(lambda: store, seconds=lambda: age[0])


def test_a_secret_is_read_once_or_when_it_is_old(vault, store, age):
    assert vault.reveal("a ${secret:X}") == "a first"
    store.value, age[0] = "second", 59.0
    assert vault.reveal("${secret:X}", within=60) == "first"
    age[0] = 60.0
    assert vault.reveal("${secret:X}") == "first", "unless it is asked for"
    assert vault.reveal("${secret:X}", within=60) == "second"
    assert vault.reveal("${secret:X}") == "second"
    assert store.asked == 2
    assert vault.redact("first and second") == "${secret:X} and ${secret:X}", "the old one is a secret still"


def test_while_the_store_does_not_answer_the_known_value_stands(vault, store, age):
    vault.reveal("${secret:X}")
    store.fault, age[0] = EngineUnavailableError("it does not answer"), 100.0
    assert vault.reveal("${secret:X}", within=60) == "first"
    store.fault = NotFoundError("no secret named X")
    age[0] = 200.0
    with pytest.raises(NotFoundError):
        vault.reveal("${secret:X}", within=60)
    store.fault = EngineUnavailableError("it does not answer")
    with pytest.raises(EngineUnavailableError):
        vault.reveal("${secret:Y}", within=60)
