"""The scope of everything that is stored: whose it is, of which project, in which environment and region."""

from __future__ import annotations

import re

import msgspec

from cumulant.core.errors import UsageError

#: a name of a tenant, project, environment or region: one part of a path in every store
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"
#: the message where a name does not fit `NAME`
NAME_SAYS = "a name: a letter, then letters, digits, - or _, at most 63 in all"
_NAME = re.compile(NAME[:-1] + r"\Z")
#: names of devices, which Windows refuses to files and folders
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Resolved once, when a project is loaded; every client of a port is made with it.

    Stores that several projects or environments share keep each one's keys below `prefix`: no client sees or deletes
    those of another. The environments of a project are apart too, since what one of them needs is in its own journal,
    which the cleanup of another does not read (ADR 17). The region says where it is, and names nothing.

    Raises:
        UsageError: a name that could not be one part of a path.
    """

    tenant: str = "default"
    project: str = "default"
    environment: str = "local"
    region: str = "local"

    def __post_init__(self) -> None:
        for part in self.__struct_fields__:
            name = getattr(self, part)
            if not _NAME.match(name):
                raise UsageError(f'"{name}" cannot name a {part}: write {NAME_SAYS}', subject=part)

    @property
    def prefix(self) -> str:
        """The beginning of every key in a store: `TENANT/PROJECT/ENVIRONMENT/`."""
        return f"{self.tenant}/{self.project}/{self.environment}/"

    @property
    def folder(self) -> str:
        """`prefix` as a relative folder that no file system confuses with another or refuses, without a last slash."""
        return "/".join(map(_folder_name, (self.tenant, self.project, self.environment)))


def _folder_name(name: str) -> str:
    """`name` without capitals, which many file systems do not distinguish, and no name of a device."""
    escaped = re.sub("[A-Z]", lambda letter: f"%{ord(letter[0]):02X}", name)
    return f"%{ord(escaped[0]):02X}{escaped[1:]}" if _DEVICE.fullmatch(escaped) else escaped
