"""Probe paths of MLflow and SageMaker: /ping, /health, /version."""

from __future__ import annotations

from collections.abc import Sequence

from cumulant.core.version import __version__
from cumulant.serving.http.messages import Response

#: answered without a token, as probes carry none
OPEN = (b"/v2/health/", b"/ping", b"/health")
_TEXT = b"text/plain; charset=utf-8"


def answer_probe(parts: Sequence[str], *, ready: bool) -> Response | None:
    """Response to a probe path; None for other paths."""
    match parts:
        case ["ping"] | ["health"]:
            return Response(200 if ready else 503, b"\n", _TEXT)
        case ["version"]:
            return Response(200, __version__.encode(), _TEXT)
        case _:
            return None
