"""What a driver says it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import msgspec
import pytest

from cumulant.core.errors import CumulantError


class Gap(msgspec.Struct, frozen=True):
    """A part of a port that a driver lacks: why, and the error it raises."""

    reason: str
    raises: type[CumulantError]


class Suite:
    """What the suites share."""

    gaps: ClassVar[Mapping[str, Gap]] = {}

    def can(self, part: str) -> AbstractContextManager[object]:
        """The block works, or raises what the driver's gap says."""
        return pytest.raises(self.gaps[part].raises) if part in self.gaps else nullcontext()
