"""What `serving` may not say because no server would start by it, as far as no model is needed to see it.

A project with such a fault loads, so that what runs of it can be stopped; `plan` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError
from cumulant.core.units import duration, size
from cumulant.project.file.gate_rules import Fault
from cumulant.project.file.training_rules import refuse
from cumulant.serving.sockets import split_address
from cumulant.serving.spec import ServingSpec

if TYPE_CHECKING:
    from cumulant.project.project import Project

_CACHES = ("valkey", "redis", "rediss")


def check_serving(project: Project) -> None:
    """Refuse what no server would start by, or what would keep nothing.

    Raises:
        ProjectFileError: every fault found, with file and line.
    """
    refuse(project, serving_faults(project.policies.serving))


def serving_faults(serving: ServingSpec) -> Iterator[Fault]:
    yield from _addresses(serving)
    if serving.shared_cache is not None and urlsplit(serving.shared_cache).scheme not in _CACHES:
        text = f'"{serving.shared_cache}" is no cache; write valkey://HOST:PORT/DB, redis:// or rediss://'
        yield ("serving", "shared_cache"), f"serving.shared_cache: {text}"
    if not duration(serving.log.keep):
        text = (
            "may not be 0: each prediction would be deleted at once; write how long labels take and more, such as 90d"
        )
        yield ("serving", "log", "keep"), f"serving.log.keep {text}"
    for name, text in (("body_limit", serving.body_limit), ("labels_size", serving.labels_size)):
        if not size(text):
            yield ("serving", name), f"serving.{name} may not be 0: every post would be refused; write 8MiB"


def _addresses(serving: ServingSpec) -> Iterator[Fault]:
    seen: list[tuple[str, int]] = []
    for name, address in (("http", serving.http), ("grpc", serving.grpc)):
        if address is None:
            continue
        try:
            host, port = split_address(address)
        except UsageError as error:
            yield ("serving", name), f"serving.{name}: {error.full_text}"
            continue
        if port and (host, port) in seen:
            yield ("serving", name), f"serving.{name}: {address} is the address of serving.http; write another port"
        seen.append((host, port))
