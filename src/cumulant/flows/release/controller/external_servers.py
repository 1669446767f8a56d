"""Releases of external servers: two URLs are compared instead of two versions of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.authorities import check_authority
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm
from cumulant.release.policy import check_approval_stage

if TYPE_CHECKING:
    from cumulant.release.policy import ReleasePolicy


class ExternalServers(msgspec.Struct, frozen=True, kw_only=True):
    """Two external servers, by base URL, which a release is to compare.

    authority: PEM file of those who may have signed the certificates of servers of https; None: those that the project
    file names, else those that the system trusts.
    """

    champion: str
    candidate: str
    authority: str | None = None


def without_shadow(policy: ReleasePolicy, notes: list[str]) -> ReleasePolicy:
    """The policy without mirroring: mirrored answers are read from a prediction log, which external servers lack.

    Raises:
        UsageError: an approval waits before the canary, and the shadow was the only stage to wait in.
    """
    if any(step.stage == "shadow" for step in policy.steps):
        notes.append(
            "the stage shadow is left out: external servers keep no prediction log to compare mirrored answers in"
        )
    if policy.holdback is not None:
        notes.append("the holdback is left out: no labels come of external servers' answers")
    steps = tuple(msgspec.structs.replace(step, mirror=0.0) for step in policy.steps if step.stage in ("ab", "canary"))
    check_approval_stage(steps, policy.approval)
    return msgspec.structs.replace(policy, steps=steps)


def external_arms(outside: ExternalServers, declared: Path | None = None) -> tuple[Arm, Arm]:
    """Champion and candidate; their URLs are their versions. `declared`: the authorities of the project file.

    Raises:
        UsageError: they are no two URLs of servers, or the authorities cannot be used.
    """
    urls = {CHAMPION: outside.champion.rstrip("/"), CANDIDATE: outside.candidate.rstrip("/")}
    for name, url in urls.items():
        if not url.startswith(("http://", "https://")):
            raise UsageError(
                f'"{url}" is no URL of the {name}\'s server',
                subject=f"--{name}-url",
                hint=f"write --{name}-url http://HOST:PORT",
            )
    if urls[CHAMPION] == urls[CANDIDATE]:
        raise UsageError(
            "champion and candidate have the same URL",
            subject=urls[CANDIDATE],
            hint="name two servers; to see what a release says of two equal ones, start the server twice",
        )
    champion, candidate = urls[CHAMPION], urls[CANDIDATE]
    authority = _authority(outside, declared)
    return (
        Arm(name="champion", version=champion, endpoints=(champion,), authority=authority),
        Arm(name="candidate", version=candidate, endpoints=(candidate,), authority=authority),
    )


def _authority(outside: ExternalServers, declared: Path | None) -> str | None:
    """The file of authorities, absolute: the gateway reads it too, also when it starts again."""
    encrypted = any(url.startswith("https://") for url in (outside.champion, outside.candidate))
    if outside.authority is None and (declared is None or not encrypted):
        return None
    path = (Path(outside.authority) if outside.authority is not None else declared or Path()).absolute()
    option = "--authority" if outside.authority is not None else "release.authority"
    if not encrypted:
        raise UsageError(
            "authorities are given, and no server of https whose certificate they could vouch for",
            subject=option,
            hint=f"leave {option} out, or write https:// in the URLs",
        )
    check_authority(str(path), named=option)
    return str(path)
