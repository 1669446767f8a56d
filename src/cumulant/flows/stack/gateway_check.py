"""Routes of the gateway to the servers of the book, and the check that a request reaches them."""

from __future__ import annotations

import os
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import msgspec

from cumulant.core.network.http_client import HttpClient, NoResponseError
from cumulant.core.traffic import CHAMPION, Arm, Routes
from cumulant.flows.stack.desired_state import Book
from cumulant.serving.access_token import read_token

_SECONDS = 5.0


def routes_to(book: Book, present: Routes | None, *, key: str | None) -> Routes | None:
    """The routes in force with the addresses that the book's servers have, one revision up where anything differs.

    An arm that the book does not serve gets nothing: without its champion all requests go to the book's. An arm whose
    version is an address of its own stays. None where the book serves nothing and there are no routes.
    """
    if book.champion is None:
        return present
    first = book.arm(book.champion, CHAMPION)
    if present is None:
        return Routes(model=book.model, revision=1, champion=first, key=key)
    champion = _with_present_address(book, present.champion)
    candidate = None if present.candidate is None else _with_present_address(book, present.candidate)
    if champion is None or candidate is None:
        wanted = present.all_to(champion or first, revision=present.revision)
    else:
        wanted = msgspec.structs.replace(present, champion=champion, candidate=candidate)
    return present if wanted == present else msgspec.structs.replace(wanted, revision=present.revision + 1)


def _with_present_address(book: Book, arm: Arm) -> Arm | None:
    if "://" in arm.version:  # a server that is not ours
        return arm
    if arm.version not in {book.champion, book.candidate} or arm.version not in book.versions:
        return None
    return msgspec.structs.replace(arm, endpoints=(book.versions[arm.version].endpoint,))


def is_reachable(url: str, model: str) -> bool:
    """Whether a request for `model` at the gateway's `url` gets the answer of a server.

    Only a server knows the model's description, and only a server refuses a token. A gateway that asks for certificates
    is not asked: only its callers have one.
    """
    if urlsplit(url).scheme != "http":
        return True
    token = read_token(None, os.environ)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        response = HttpClient(seconds=_SECONDS, max_bytes=0).get(f"{url}/v2/models/{quote(model, safe='')}", headers)
    except NoResponseError:
        return False
    return response.status in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED)
