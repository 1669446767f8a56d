"""Online state on a real Valkey: the rules of the port, several processes, kills, an emptied store, a cluster."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from valkey_server import valkey

from cumulant.core.errors import EngineUnavailableError, StorageError, UsageError
from cumulant.core.scope import Scope
from cumulant.drivers.valkey.online import ValkeyOnline
from cumulant.testing.conformance.online import OnlineConformance
from cumulant.testing.secrets import MemorySecrets

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server():
    with valkey() as started:
        yield started


@pytest.fixture
def url(server):
    server.ask(b"FLUSHALL")
    return server.url


class TestValkeyOnline(OnlineConformance):
    @pytest.fixture
    def online(self, url):
        online = ValkeyOnline(url)
        yield online
        online.close()
