"""Release of free memory to the operating system."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Return free heap memory after a model was loaded: a tenth of an idle worker. Takes a few milliseconds.

    glibc keeps it for later allocations otherwise. No effect on other systems.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
