"""The console of a demo that is left up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from socket import socket

DEFAULT_PLACE = "127.0.0.1:8700"


def serve_demo_console(call: Invocation, folder: Path, address: tuple[str, int]) -> None:
    """The console of the project in `folder` until interrupted.

    Raises:
        MissingPartError: the extra `console` is not installed.
    """
    from cumulant.cli.project.api import load_served, serve_projects
    from cumulant.core.network.hosts import is_loopback

    with load_served(call, folder) as project, _listener(*address) as listener:
        serve_projects(call, {project.name: project}, listener, local=is_loopback(address[0]))


def _listener(host: str, port: int) -> socket:
    """A socket on the port, or on a free one: minutes of work must not end in an error about a port."""
    from cumulant.core.errors import PortInUseError
    from cumulant.serving.sockets import bind

    try:
        return bind(host, port, insecure=True, option="--console")
    except PortInUseError:
        return bind(host, 0, insecure=True, option="--console")
