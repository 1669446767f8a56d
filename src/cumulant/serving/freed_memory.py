"""Release of free memory to the operating system."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Return free heap memory to the system, which glibc else keeps: a tenth of an idle worker. No effect elsewhere."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
