"""What holds for the tests of the server."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import httpx._transports.default as transports
import pytest


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """Read once: each client of httpx reads the certificates of all authorities, for 25 ms of processor time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transports, "create_ssl_context", functools.cache(transports.create_ssl_context))  # type: ignore[attr-defined]
        yield
