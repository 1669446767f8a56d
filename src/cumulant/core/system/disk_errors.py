"""Disk errors of the system, also where an engine repeats them as text."""

from __future__ import annotations

import errno
import os
import re

_SYSTEM_ERROR = re.compile(r"os error (\d+)")
#: the message of Polars where the end of a Parquet file cannot be written
_CUT_SHORT = "transport error"


def disk_error(error: Exception) -> OSError | None:
    """The error of the system behind `error`, which may quote it (`os error 28`); None without one."""
    if isinstance(error, OSError) and error.errno:
        return error
    if match := _SYSTEM_ERROR.search(str(error)):
        return OSError(int(match[1]), os.strerror(int(match[1])))
    return OSError(errno.ENOSPC, "no space is left, or the file is too large") if _CUT_SHORT in str(error) else None
