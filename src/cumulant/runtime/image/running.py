"""The command that runs an image here, and what its server needs that no image holds."""

from __future__ import annotations

import os
import shlex
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from cumulant.core.servable import GraphServable, Servable
from cumulant.runtime.image.dockerfile import Serving

#: in the container: where the folder of an embedded store is, and what is written there (podman mounts it by itself)
_FOLDER, _SCRATCH = "/online", "/tmp"  # noqa: S108
_TOKEN = "16 characters or more in CUMULANT_TOKEN: export CUMULANT_TOKEN=$(openssl rand -hex 32)"  # noqa: S105


class Running(msgspec.Struct, frozen=True):
    """What a person types, and what has to be there before."""

    command: str
    needs: tuple[str, ...] = ()


def running(
    reference: str, servable: Servable | GraphServable, options: Serving, *, tool: str, online: str | None = None
) -> Running:
    """How the image `reference` with `servable` is run by docker, else by podman, for the user of this process.

    `online` is the URL of the project's online store; without one the command asks for it in a variable.
    """
    program = "docker" if tool == "docker" else "podman"
    mounts = [(f"./{PurePosixPath(folder).name}", folder) for folder in options.folders]
    needs = [f"the folder {host} here, which is mounted at {inside}" for host, inside in mounts]
    behind = ""
    if isinstance(servable, Servable) and servable.plan.needs_state and not options.online:
        store = _store(online)
        mounts, needs, behind = [*mounts, *store.mounts], [*needs, store.need], f" --online {store.url}"
    words = [program, "run", "--read-only"]
    if program == "docker":
        words += ["--tmpfs", _SCRATCH]
    if not options.authenticated:
        words += ["-e", "CUMULANT_TOKEN"]
        needs = [_TOKEN, *needs]
    for port in options.ports:
        words += ["-p", f"{port}:{port}"]
    if mounts:
        words += _as_this_user(program)
    for host, inside in mounts:
        words += ["--volume", f"{host}:{inside}"]
    return Running(shlex.join([*words, reference]) + behind, tuple(needs))


class _Store(NamedTuple):
    """The store of the features as the container meets it. `url` is quoted for a shell."""

    need: str
    url: str
    mounts: tuple[tuple[str, str], ...] = ()


def _store(online: str | None) -> _Store:
    if online is None:
        return _Store("the store of the features: its URL in ONLINE, as the container reaches it", '"$ONLINE"')
    parts = urlsplit(online)
    if parts.scheme != "sqlite":
        return _Store(f"the store of the features at {parts.scheme}://{parts.hostname or ''}", shlex.quote(online))
    folder, _, name = parts.path.rpartition("/")
    url = shlex.quote(f"sqlite://{_FOLDER}/{name}")
    return _Store(f"the store of the features in {folder}, which is mounted", url, ((folder, _FOLDER),))


def _as_this_user(program: str) -> list[str]:
    """Folders of this user are read and written by no other; podman without root maps users unless told."""
    user = ["--user", f"{os.getuid()}:{os.getgid()}"]
    return ["--userns", "keep-id", *user] if program == "podman" and os.getuid() else user
