"""Declared gaps of a driver."""

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
    """The base of the suites."""

    gaps: ClassVar[Mapping[str, Gap]] = {}

    def can(self, part: str) -> AbstractContextManager[object]:
        """The block works, or raises the error of the driver's gap."""
        return pytest.raises(self.gaps[part].raises) if part in self.gaps else nullcontext()
