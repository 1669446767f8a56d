"""The storage classes of objects that exist, as their store names them.

The client of the stores has no class in a list or a head of an object (its list of attributes has one for uploads
alone). So the client signs the address of each object, and the header of the answer is read: `x-amz-storage-class` of
S3, which leaves it out for STANDARD, `x-ms-access-tier` of Azure Blob, `x-goog-storage-class` of Google Cloud Storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import obstore
from obstore.exceptions import BaseError

from cumulant.core.network.http_client import HttpClient, HttpResponse, NoResponseError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_HEADERS = {"s3": "x-amz-storage-class", "az": "x-ms-access-tier", "gs": "x-goog-storage-class"}
#: what an answer without the header means
_DEFAULTS = {"s3": "STANDARD"}
#: how long a signed address is good for, and requests at once
_SIGNED, _AT_ONCE = timedelta(minutes=10), 8
_SECONDS = 10.0


def read_classes(store: ObjectStore, scheme: str, paths: Sequence[str]) -> list[str]:
    """The class of each object; empty where the store does not say, does not answer, or an address cannot be signed:
    by a token of Azure (SAS), or an identity of a machine that may not sign.
    """
    if scheme not in _HEADERS or not paths:
        return [""] * len(paths)
    client: Any = store  # a cloud's
    # A signature of Azure is of what may be done, not of the method, and the client knows of none for HEAD.
    method: Literal["GET", "HEAD"] = "GET" if scheme == "az" else "HEAD"
    try:
        urls = obstore.sign(client, method, [*paths], _SIGNED)
        responses = HttpClient(seconds=_SECONDS, use_proxies=True).head_all(urls, at_once=_AT_ONCE)
    except (BaseError, NoResponseError, OSError, ValueError):
        return [""] * len(paths)
    return [class_in(scheme, response) for response in responses]


def class_in(scheme: str, response: HttpResponse | None) -> str:
    """The class that a response to HEAD names; empty: none."""
    if response is None or not response.ok:
        return ""
    return response.headers.get(_HEADERS[scheme]) or _DEFAULTS.get(scheme, "")
