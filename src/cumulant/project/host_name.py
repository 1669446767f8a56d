"""The name of this machine among those of a project."""

from __future__ import annotations

import os
import socket

VARIABLE = "CUMULANT_HOST_NAME"


def host_name() -> str:
    """The value of CUMULANT_HOST_NAME, else the name that the operating system has."""
    return declared_host_name() or socket.gethostname()


def declared_host_name() -> str:
    """The name in CUMULANT_HOST_NAME, for containers and several machines simulated on one; empty where it is unset."""
    return os.environ.get(VARIABLE, "").strip()
