"""The build of an image with an installed tool: buildah, podman or docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cumulant.core.errors import EngineUnavailableError, TerminalError, UsageError
from cumulant.flows.packaging.image.build_context import check_reference
from cumulant.flows.packaging.image.trim import WHEN

TOOLS = ("buildah", "podman", "docker")
_LINES = 15


def find_tool(requested: str | None) -> str:
    """The tool that builds: the requested one, else the first that is installed.

    Raises:
        UsageError: it is none of those known, or none is installed.
    """
    if requested is not None and requested not in TOOLS:
        raise UsageError(f'"{requested}" is no tool that builds images here', hint=f"use {', '.join(TOOLS)}")
    for tool in (requested,) if requested else TOOLS:
        if shutil.which(tool):
            return tool
    missing = requested or "buildah, podman or docker"
    raise UsageError(
        f"{missing} is not installed", hint="install one, or write the build folder with --dockerfile DIR instead"
    )


def build_image(folder: Path, reference: str, *, tool: str) -> str:
    """Build the image of the build folder under `reference`; returns its id.

    Raises:
        UsageError: `reference` names no image.
        TerminalError: the build failed; carries the last lines that the tool wrote.
    """
    check_reference(reference, "image")
    verb = "bud" if tool == "buildah" else "build"
    _run([tool, verb, "--tag", reference, *_date_options(tool), str(folder)], tool, "the image was not built")
    fields = ["--format", "{{.FromImageID}}"] if tool == "buildah" else ["--format", "{{.Id}}"]
    kind = ["--type", "image"]
    return _run([tool, "inspect", *fields, *kind, reference], tool, "the image was built but is not found").strip()


def _date_options(tool: str) -> list[str]:
    """Options so that the same input gives the same image, in a layer for the system and one for the model."""
    when = os.environ.get("SOURCE_DATE_EPOCH", str(WHEN))
    if tool == "docker":
        return ["--build-arg", f"SOURCE_DATE_EPOCH={when}"]
    return ["--layers", "--timestamp", when]


def _run(command: list[str], tool: str, failed: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise EngineUnavailableError(f"{tool} does not start: {error.strerror}", subject=tool) from None
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LINES:])
        hint = "the lines above are the tool's own; --dockerfile DIR writes the folder to build by hand"
        raise TerminalError(f"{failed}: {tool} ended with code {done.returncode}\n{output}", subject=tool, hint=hint)
    return done.stdout
