"""The storage classes of objects that exist, as their store names them.

The client of the stores has no class in a list or a head of an object (its list of attributes has one for uploads
alone). So the client signs the address of each object, and the header of the answer is read: `x-amz-storage-class` of
S3, which leaves it out for STANDARD, `x-ms-access-tier` of Azure Blob, `x-goog-storage-class` of Google Cloud Storage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import obstore
from obstore.exceptions import BaseError

from cumulant.core.network.http_client import HttpClient, HttpResponse, NoResponseError
from cumulant.ports.objects import FileClasses

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_HEADERS = {"s3": "x-amz-storage-class", "az": "x-ms-access-tier", "gs": "x-goog-storage-class"}
#: what an answer without the header means
_DEFAULTS = {"s3": "STANDARD"}
#: how long a signed address is good for, and requests at once
_SIGNED, _AT_ONCE = timedelta(minutes=10), 8
#: status of an object that was deleted after it was listed
_DELETED = 404
#: for each part of a response, and for all requests of a call
_SECONDS, _ALL_SECONDS = 10.0, 30.0


def read_classes(
    store: ObjectStore, scheme: str, paths: Sequence[str], *, seconds: float = _ALL_SECONDS
) -> FileClasses:
    """The class of each object; empty where the store does not say, does not answer within `seconds`, or an address
    cannot be signed: by a token of Azure (SAS), or an identity of a machine that may not sign.
    """
    unknown = [""] * len(paths)
    if scheme not in _HEADERS or not paths:
        return FileClasses(unknown)
    deadline = time.monotonic() + seconds
    urls = _signed(store, scheme, paths, seconds)
    if isinstance(urls, str):
        return FileClasses(unknown, urls)
    client = HttpClient(seconds=_SECONDS, use_proxies=True)
    try:
        responses, cause = client.head_all(urls, at_once=_AT_ONCE, seconds=deadline - time.monotonic())
    except (NoResponseError, OSError, ValueError) as error:
        return FileClasses(unknown, f"no request can be sent ({type(error).__name__})")
    refused = [response.status for response in responses if response is not None and not response.ok]
    refused = [status for status in refused if status != _DELETED]
    if refused and not cause:
        cause = f"{len(refused)} requests were answered with status {refused[0]}"
    return FileClasses([class_in(scheme, response) for response in responses], cause)


def _signed(store: ObjectStore, scheme: str, paths: Sequence[str], seconds: float) -> list[str] | str:
    """Addresses of objects, or why there are none. The client asks some identities for each signature, without an end
    of its own.
    """
    client: Any = store  # a cloud's
    # A signature of Azure is of what may be done, not of the method, and the client knows of none for HEAD.
    method: Literal["GET", "HEAD"] = "GET" if scheme == "az" else "HEAD"
    urls: list[str] = []
    faults: list[str] = []

    def sign() -> None:
        try:
            urls.extend(obstore.sign(client, method, [*paths], _SIGNED))
        except (BaseError, OSError, ValueError) as error:  # their texts may have parts of credentials
            faults.append(f"the identity cannot sign addresses ({type(error).__name__})")

    thread = threading.Thread(target=sign, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return f"signing addresses took longer than {seconds:.0f} s"
    if faults or len(urls) < len(paths):
        return faults[0] if faults else "the identity cannot sign addresses"
    return urls


def class_in(scheme: str, response: HttpResponse | None) -> str:
    """The class that a response to HEAD names; empty: none."""
    if response is None or not response.ok:
        return ""
    return response.headers.get(_HEADERS[scheme]) or _DEFAULTS.get(scheme, "")
