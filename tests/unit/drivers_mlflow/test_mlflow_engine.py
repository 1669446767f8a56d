"""Errors of MLflow's clients and stores, as the driver maps them."""

from __future__ import annotations

import errno

import pytest
import requests

from cumulant.core.errors import EngineUnavailableError, StorageError
from cumulant.drivers.mlflow.engine import engine


def test_a_store_of_artifacts_that_does_not_answer_may_answer_later():
    with (
        pytest.raises(EngineUnavailableError, match=r"files does not answer as it should: .*refused") as caught,
        engine("m/1"),
    ):
        requests.get("http://127.0.0.1:1/artifacts", timeout=10)
    assert "store of its artifacts" in (caught.value.hint or "")


def test_a_full_disk_is_no_store_that_does_not_answer():
    with pytest.raises(StorageError, match="cannot write: No space left"), engine("m/1"):
        raise OSError(errno.ENOSPC, "No space left on device")
