"""How much memory the work on a source may take, and where rows are set aside that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cumulant.core.system.memory import resident_memory

#: whatever is free, so much is used: less would be spent on files
_LEAST = 64 << 20


class MemoryBudget(NamedTuple):
    """The memory that the process may hold, in bytes, and where rows are set aside (None: a temporary folder)."""

    memory: int
    scratch: Path | None = None

    @property
    def free(self) -> int:
        """Bytes that may still be taken."""
        return max(self.memory - resident_memory(), _LEAST)
