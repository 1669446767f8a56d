"""HTTP/1.1 on asyncio: connections, messages, bodies. It knows nothing of models."""

from cumulant.serving.http.bodies import compressed, decompressed
from cumulant.serving.http.connection import Connection
from cumulant.serving.http.limits import Limits
from cumulant.serving.http.messages import Request, Response, encode, error_response, json_response
from cumulant.serving.http.refusals import Reason, Refusal, Refusals
from cumulant.serving.http.site import Handler, Site

__all__ = [
    "Connection",
    "Handler",
    "Limits",
    "Reason",
    "Refusal",
    "Refusals",
    "Request",
    "Response",
    "Site",
    "compressed",
    "decompressed",
    "encode",
    "error_response",
    "json_response",
]
