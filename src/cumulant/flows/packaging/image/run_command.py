"""The command that runs an image, and what its server needs beside the image."""

from __future__ import annotations

import os
import shlex

import msgspec

from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.packaging.image.dockerfile import Serving

#: what is written in the container; podman mounts it by itself
_SCRATCH = "/tmp"  # noqa: S108
_TOKEN = "16 characters or more in CUMULANT_TOKEN: export CUMULANT_TOKEN=$(openssl rand -hex 32)"  # noqa: S105
_STORE = "the store of the features: its URL in ONLINE, as the container reaches it"


class RunCommand(msgspec.Struct, frozen=True):
    command: str
    needs: tuple[str, ...] = ()


def build_run_command(reference: str, servable: Servable | GraphServable, options: Serving, *, tool: str) -> RunCommand:
    """How the image `reference` with `servable` is run by docker, else by podman, for the user of this process."""
    program = "docker" if tool == "docker" else "podman"
    words, needs, store = [program, "run", "--read-only"], [], ""
    if program == "docker":
        words += ["--tmpfs", _SCRATCH]
    if not options.authenticated:
        words += ["-e", "CUMULANT_TOKEN"]
        needs.append(_TOKEN)
    for port in options.ports:
        words += ["-p", f"{port}:{port}"]
    if options.paths:
        words += _as_this_user(program)
    for option, inside in options.paths.items():
        words += ["--volume", f"./{option}:{inside}"]
        needs.append(f"./{option} here, which is mounted at {inside} for --{option}")
    if isinstance(servable, Servable) and servable.plan.needs_state and not options.online:
        needs.append(_STORE)
        store = ' --online "$ONLINE"'
    return RunCommand(shlex.join([*words, reference]) + store, tuple(needs))


def _as_this_user(program: str) -> list[str]:
    """What this user mounts is read and written by no other; podman without root maps users by default."""
    user = ["--user", f"{os.getuid()}:{os.getgid()}"]
    return ["--userns", "keep-id", *user] if program == "podman" and os.getuid() else user
