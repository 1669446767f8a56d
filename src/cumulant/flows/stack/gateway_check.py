"""Routes of the gateway to the servers of the desired state, and the check that a request reaches them."""

from __future__ import annotations

import os
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import msgspec

from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.traffic import CHAMPION, Arm, Routes
from cumulant.flows.stack.desired_state import DesiredState
from cumulant.serving.access_token import read_token

_SECONDS = 5.0


def routes_to(desired: DesiredState, present: Routes | None, *, key: str | None) -> Routes | None:
    """The routes in force with the addresses of the desired servers, one revision up where anything differs.

    An arm that is not to be served gets nothing: without its champion all requests go to the desired one. An arm whose
    version is an address of its own stays. None where nothing is to be served and there are no routes.
    """
    if desired.champion is None:
        return present
    first = desired.arm(desired.champion, CHAMPION)
    if present is None:
        return Routes(model=desired.model, revision=1, champion=first, key=key)
    champion = _with_present_address(desired, present.champion)
    candidate = None if present.candidate is None else _with_present_address(desired, present.candidate)
    if champion is None or candidate is None:
        wanted = present.all_to(champion or first, revision=present.revision)
    else:
        wanted = msgspec.structs.replace(present, champion=champion, candidate=candidate)
    return present if wanted == present else msgspec.structs.replace(wanted, revision=present.revision + 1)


def _with_present_address(desired: DesiredState, arm: Arm) -> Arm | None:
    if "://" in arm.version:  # a server that is not ours
        return arm
    if arm.version not in {desired.champion, desired.candidate} or arm.version not in desired.versions:
        return None
    return msgspec.structs.replace(arm, endpoints=(desired.versions[arm.version].endpoint,))


def is_reachable(url: str, model: str) -> bool:
    """Whether a request for `model` at the gateway's `url` gets the answer of a server.

    A gateway that requires client certificates is not tried: only its callers have one.
    """
    if urlsplit(url).scheme != "http":
        return True
    token = read_token(None, os.environ)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        response = HttpClient(seconds=_SECONDS, max_bytes=0).get(f"{url}/v2/models/{quote(model, safe='')}", headers)
    except NoResponseError:
        return False
    return response.status in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
