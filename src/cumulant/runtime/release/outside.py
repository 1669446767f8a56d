"""A release of servers that are not ours: two URLs are compared instead of two versions of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm

if TYPE_CHECKING:
    from cumulant.release.spec import ReleaseSpec


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """Two servers of somebody else's, by base URL, which a release is to compare."""

    champion: str
    candidate: str


def without_shadow(spec: ReleaseSpec, notes: list[str]) -> ReleaseSpec:
    """Answers to mirrored requests are read from our servers' prediction log, which others do not write."""
    if spec.stages.shadow is None:
        return spec
    notes.append(
        "the stage shadow is left out: servers of others keep no prediction log to compare mirrored answers in"
    )
    return msgspec.structs.replace(spec, stages=msgspec.structs.replace(spec.stages, shadow=None))


def outside_arms(outside: Outside) -> tuple[Arm, Arm]:
    """Champion and candidate; their URLs are their versions.

    Raises:
        UsageError: they are no two URLs of servers.
    """
    found = {CHAMPION: outside.champion.rstrip("/"), CANDIDATE: outside.candidate.rstrip("/")}
    for name, url in found.items():
        if not url.startswith(("http://", "https://")):
            raise UsageError(
                f'"{url}" is no URL of the {name}\'s server',
                subject=f"--{name}-url",
                hint=f"write --{name}-url http://HOST:PORT",
            )
    if found[CHAMPION] == found[CANDIDATE]:
        raise UsageError(
            "champion and candidate have the same URL",
            subject=found[CANDIDATE],
            hint="name two servers; to see what a release says of two equal ones, start the server twice",
        )
    champion, candidate = found[CHAMPION], found[CANDIDATE]
    return (
        Arm(name="champion", version=champion, endpoints=(champion,)),
        Arm(name="candidate", version=candidate, endpoints=(candidate,)),
    )
