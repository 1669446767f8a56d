"""Cumulant: a model's whole life from one project file.

In a notebook: `cumulant.open("churn")` or `cumulant.new(frame, target="churned", name="churn")` gives a `Project`
with the same verbs as the command line. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cumulant.core.version import __version__

if TYPE_CHECKING:
    from cumulant.api import Project, connect, new, new_from_template, open, register  # noqa: A004 - `cumulant.open` is the name that reads well

# onnxruntime reads it when it is first imported, wherever that is; unset, it sends events to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Project", "__version__", "connect", "new", "new_from_template", "open", "register"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from cumulant import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
