"""One suite a port. A driver's test module subclasses it with a fixture named after the port.

What a driver cannot do stands in `gaps`, with the reason and the error it raises instead; the suite then checks
that this error is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.testing.conformance.access import AccessConformance
    from cumulant.testing.conformance.cache import CacheConformance
    from cumulant.testing.conformance.compute import ComputeConformance
    from cumulant.testing.conformance.files import FilesConformance
    from cumulant.testing.conformance.gaps import Gap
    from cumulant.testing.conformance.journal import JournalConformance
    from cumulant.testing.conformance.notifier import NotifierConformance
    from cumulant.testing.conformance.objects import ObjectsConformance
    from cumulant.testing.conformance.online import OnlineConformance
    from cumulant.testing.conformance.registry import RegistryConformance
    from cumulant.testing.conformance.routes import RoutesConformance
    from cumulant.testing.conformance.secrets import SecretsConformance
    from cumulant.testing.conformance.tables import TablesConformance
    from cumulant.testing.conformance.traffic import TrafficConformance

__all__ = [
    "AccessConformance",
    "CacheConformance",
    "ComputeConformance",
    "FilesConformance",
    "Gap",
    "JournalConformance",
    "NotifierConformance",
    "ObjectsConformance",
    "OnlineConformance",
    "RegistryConformance",
    "RoutesConformance",
    "SecretsConformance",
    "TablesConformance",
    "TrafficConformance",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    module = "gaps" if name == "Gap" else name.removesuffix("Conformance").lower()
    return getattr(import_module(f"{__name__}.{module}"), name)
