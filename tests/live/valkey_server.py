"""A real Valkey of a test, which can be stopped, killed and started again; the test skips where none is installed."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from cumulant.testing.servers.programs import free_port, required_program
from cumulant.testing.servers.valkey import valkey_server

__all__ = ["free_port", "valkey"]


@contextmanager
def valkey(*options):
    try:
        required_program("valkey-server")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with valkey_server(*options) as server:
        yield server
