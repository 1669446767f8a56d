"""What servers know of callers: tokens of a file that the project file names, else of a variable; and their roles."""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.serving.access.bindings_file import write_bindings
from cumulant.serving.access.callers import read_holders
from cumulant.serving.access_token import read_token
from cumulant.serving.options import OPEN_ACCESS
from cumulant.serving.spec import ServingSpec

if TYPE_CHECKING:
    from cumulant.project.project import Project


def with_token_file(project: Project) -> ServingSpec:
    """The section `serving`, whose file of tokens is found from any folder."""
    path = _path(project)
    return msgspec.structs.replace(project.policies.serving, token_file=None if path is None else str(path))


def needs_token(project: Project) -> bool:
    """Whether the servers take requests with a token only. The file need not be on this machine.

    Raises:
        UsageError: the token in CUMULANT_TOKEN cannot be used.
    """
    return _path(project) is not None or read_token(None, os.environ) is not None


def check_tokens(project: Project) -> None:
    """Refuse tokens with which no server would start.

    Raises:
        UsageError: the file cannot be read or has an invalid line, or a token is invalid.
        RefusedError: others can read the file.
    """
    read_holders(_path(project), os.environ)


def tokens_fingerprint(project: Project) -> str:
    """16 hexadecimal digits that differ between sets of tokens and reveal nothing; empty without a token.

    Raises:
        CumulantError: as `check_tokens`; the secret of the salt does not exist.
    """
    tokens = sorted(holder.token for holder in read_holders(_path(project), os.environ))
    return hmac.digest(project.salt(), "\n".join(tokens).encode(), "sha256").hex()[:16] if tokens else ""


def bindings_file(project: Project) -> str | None:
    """The file with who has which role, where an access driver may decide by it."""
    bindings = project.policies.bindings
    if not bindings or project.endpoints.access == OPEN_ACCESS:
        return None
    return str(write_bindings(project.state / "access", bindings))


def _path(project: Project) -> Path | None:
    named = project.policies.serving.token_file
    return None if named is None else project.root / named
