"""Errors of the system: of the disk, also where an engine repeats them as text; of memory and open files."""

from __future__ import annotations

import errno
import os
import re

#: errors of a disk that has no room, and of one that may not be written
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
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


def is_exhausted(error: BaseException) -> bool:
    """Whether the process lacked memory or open files: nothing is known of what it was to read then."""
    exhausted = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in exhausted)
