"""Operations by subject. Each module has its own `OPERATIONS`, so that a command imports what it needs alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.server.operation import Operation


def find_operation(name: str) -> Operation:
    """The operation `SUBJECT.NAME`; imports the module of its subject. Raises KeyError."""
    module = importlib.import_module(f"{__name__}.{name.partition('.')[0]}")
    operations: tuple[Operation, ...] = module.OPERATIONS
    return {operation.name: operation for operation in operations}[name]
