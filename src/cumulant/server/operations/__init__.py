"""Operations by subject. Each module has its own `OPERATIONS`, so that a command imports what it needs alone."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from cumulant.server.operation import Operation


def find_operation(name: str) -> Operation:
    """The operation `SUBJECT.NAME`; imports the module of its subject. Raises UsageError where there is none."""
    subject = name.partition(".")[0]
    if subject not in {module.name for module in pkgutil.iter_modules(__path__)}:
        raise _unknown(name)
    module = importlib.import_module(f"{__name__}.{subject}")
    operations = {operation.name: operation for operation in module.OPERATIONS}
    if name not in operations:
        raise _unknown(name)
    operation: Operation = operations[name]
    return operation


def _unknown(name: str) -> UsageError:
    return UsageError(f'there is no operation "{name}"', hint="names are the operationIds of /v1/openapi.json")
