"""Secrets from environment variables, or from a file that only its owner can read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cumulant.core.errors import NotFoundError, RefusedError, UsageError
from cumulant.drivers.local.location import locate

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvSecrets:
    """`env://` or `env:///project/.cumulant/secrets`.

    Sources, in this order: the variable `CUMULANT_SECRET_<NAME>`, the variable `<NAME>`, a line `NAME=value`
    of the file (default: `.cumulant/secrets` in the working directory), which must have mode 0600.
    """

    def __init__(self, url: str = "env://", *, environ: Mapping[str, str] | None = None) -> None:
        where = locate(url).path
        self._file = Path(".cumulant/secrets") if where == Path() else where
        self._environ = os.environ if environ is None else environ

    def get(self, name: str) -> str:
        """Raises UsageError for a name that no variable can have, RefusedError for a file open to others."""
        if not _NAME.fullmatch(name):
            raise UsageError(f'"{name}" cannot name a secret', hint="use letters, digits and _")
        for variable in (f"CUMULANT_SECRET_{name}", name):
            if variable in self._environ:
                return self._environ[variable]
        value = self._read().get(name)
        if value is None:
            raise NotFoundError(
                f"no secret named {name}: looked for the variables CUMULANT_SECRET_{name} and {name},"
                f" and in {self._file}",
                subject=name,
                hint=f"export CUMULANT_SECRET_{name}=... or add a line {name}=... to that file",
            )
        return value

    def _read(self) -> dict[str, str]:
        try:
            mode = self._file.stat().st_mode
            if os.name == "posix" and mode & 0o077:
                raise RefusedError(
                    "the secrets file can be read by others",
                    subject=str(self._file),
                    hint=f"chmod 600 {self._file}",
                )
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise UsageError(f"the secrets file cannot be read: {error.strerror}", subject=str(self._file)) from error
        pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
        return {name.strip(): value.strip() for name, _, value in pairs}
