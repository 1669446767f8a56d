"""What else decides a result besides the data: the code's commit, the Python environment, and who acts."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from cumulant.core.ids import digest
from cumulant.core.system.saved_tokens import saved_token
from cumulant.ports.access import Principal, Via
from cumulant.project.host_name import host_name

_GIT_SECONDS = 10.0


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the repository that holds the project. `commit` is None outside of one."""

    commit: str | None = None
    #: files below the project's folder differ from the commit
    dirty: bool = False


class PythonEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter and the packages that Cumulant declares, by installed version."""

    python: str
    platform: str
    packages: dict[str, str]

    @property
    def identity(self) -> str:
        return digest(msgspec.to_builtins(self))


def code_of(root: Path) -> Code:
    """The commit that `root` stands at, and whether its files differ from it. Never fails: no git, no commit."""
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return Code()
    changes = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    return Code(commit=commit, dirty=bool(changes))


def _git(root: Path, *arguments: str) -> str | None:
    # Optional locks stay off, so that looking never disturbs a git command of the user.
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=quiet,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def python_environment() -> PythonEnvironment:
    """Versions of Python, of Cumulant and of each package that it declares, where installed."""
    return PythonEnvironment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}".lower(),
        packages={name: version for name in _declared() if (version := _version(name)) is not None},
    )


def _declared() -> list[str]:
    try:
        required = metadata.requires("cumulant") or []
    except metadata.PackageNotFoundError:
        required = []
    names = {requirement.split(";")[0].strip() for requirement in required}
    bare = {name[: next((i for i, c in enumerate(name) if c in " <>=!~[("), len(name))] for name in names}
    return sorted(bare | {"cumulant"})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def api_token(url: str, variables: Mapping[str, str] = os.environ) -> str:
    """The token for the API of the server at `url`: of this program's variable, else the saved one; empty: none."""
    return variables.get("CUMULANT_API_TOKEN", "").strip() or saved_token(url, variables)


def principal(variables: Mapping[str, str], *, tenant: str, via: Via) -> Principal:
    """Who acts: `CUMULANT_USER` (`user:ada`, `service:ci`, or a bare name), else the user of this machine.

    `CUMULANT_GROUPS` names the groups, with commas between them. The claim `os_user` is the account that this process
    runs as, whatever variables say.
    """
    groups = tuple(filter(None, (name.strip() for name in variables.get("CUMULANT_GROUPS", "").split(","))))
    user = variables.get("CUMULANT_USER", "").strip()
    name = user or _system_user()
    return Principal(
        name if ":" in name else f"user:{name}",
        groups,
        tenant=tenant,
        claims={"os_user": _account()},
        via=via,
        source=host_name(),
    )


def _account() -> str:
    try:
        import pwd
    except ImportError:  # Windows
        return os.getlogin()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.getuid())


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
