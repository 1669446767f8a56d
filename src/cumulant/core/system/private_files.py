"""Files of secrets, which only their owner may read."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from pathlib import Path

from cumulant.core.errors import RefusedError

#: where container engines mount secrets, often with mode 0444 for a user that is not known in advance
_MOUNTED = (Path("/run/secrets"), Path("/var/run/secrets"))


def check_private(path: Path, *, what: str = "the tokens") -> None:
    """Refuse a file of secrets, `what` in a message, that its owner, who runs this, has left open to other users.

    A file of another owner, on a read-only file system or below `/run/secrets` is left to whoever mounted it.

    Raises:
        RefusedError: other users can read or write it.
        OSError: there is no such file.
    """
    status = path.stat()
    if sys.platform == "win32" or not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return
    mounted = any(path.absolute().is_relative_to(place) for place in _MOUNTED)
    if status.st_mode & 0o077 and not mounted and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"other users can read or write {what} in {path} (mode {stat.S_IMODE(status.st_mode):04o})",
            subject=str(path),
            hint=f"chmod 600 {path}",
        )


def create_private(path: Path, content: bytes) -> None:
    """Make a file that its owner alone may read. Of processes that do so at the same time the first one names it.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)  # unlike a rename, this never replaces another process's file
    finally:
        aside.unlink(missing_ok=True)
