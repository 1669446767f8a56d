"""Fakes of every port, and the conformance suites that hold drivers to the same rules.

from cumulant.testing import MemoryJournal
from cumulant.testing.conformance import JournalConformance

class TestMyJournal(JournalConformance):
    @pytest.fixture
    def journal(self, tmp_path):
        return MyJournal(f"my://{tmp_path}")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.testing.access import GrantedAccess
    from cumulant.testing.cache import MemoryCache
    from cumulant.testing.clock import ManualClock
    from cumulant.testing.compute import DirectCompute
    from cumulant.testing.files import MemoryFiles
    from cumulant.testing.journal import MemoryJournal
    from cumulant.testing.notifier import MemoryNotifier
    from cumulant.testing.objects import MemoryObjects
    from cumulant.testing.online import MemoryOnline
    from cumulant.testing.registry import MemoryRegistry
    from cumulant.testing.secrets import MemorySecrets
    from cumulant.testing.tables import MemoryTables
    from cumulant.testing.traffic import MemoryTraffic

__all__ = [
    "DirectCompute",
    "GrantedAccess",
    "ManualClock",
    "MemoryCache",
    "MemoryFiles",
    "MemoryJournal",
    "MemoryNotifier",
    "MemoryObjects",
    "MemoryOnline",
    "MemoryRegistry",
    "MemorySecrets",
    "MemoryTables",
    "MemoryTraffic",
]

_MODULES = {
    "DirectCompute": "compute",
    "GrantedAccess": "access",
    "ManualClock": "clock",
    "MemoryCache": "cache",
    "MemoryFiles": "files",
    "MemoryJournal": "journal",
    "MemoryNotifier": "notifier",
    "MemoryObjects": "objects",
    "MemoryOnline": "online",
    "MemoryRegistry": "registry",
    "MemorySecrets": "secrets",
    "MemoryTables": "tables",
    "MemoryTraffic": "traffic",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
