"""Route table of the server: paths, methods, and path templates for logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.network.path_template import fits_template
from cumulant.serving.http.messages import Response

Method = Literal["GET", "POST"]
#: of a path that there is not; its text is the caller's and stays out of logs
UNKNOWN = "(unknown)"


class Route(msgspec.Struct, frozen=True):
    """One path; a part in braces stands for any text. A path that takes GET takes HEAD too.

    `action`: what a caller does there, one of the declared actions; None where there is nothing to allow: probes.
    """

    template: str
    method: Method
    action: str | None
    summary: str

    @property
    def parts(self) -> list[str]:
        return self.template.strip("/").split("/") if self.template != "/" else []

    @property
    def model(self) -> int | None:
        """The place of the model's name among the parts of a path; None where it names no model."""
        return self.parts.index("{model}") if "{model}" in self.parts else None

    @property
    def takes(self) -> bytes:
        """The methods, as the header Allow lists them."""
        return allow_header(self.method)


def allow_header(method: str) -> bytes:
    """Header Allow of a path that takes `method`."""
    return b"GET, HEAD, OPTIONS" if method == "GET" else b"POST, OPTIONS"


def _of_model(api: str, verb: str, method: Method, action: str, summary: str) -> tuple[Route, Route]:
    end = f"/{verb}" if verb else ""
    return (
        Route(f"/{api}/models/{{model}}{end}", method, action, summary),
        Route(f"/{api}/models/{{model}}/versions/{{version}}{end}", method, action, summary),
    )


ROUTES: tuple[Route, ...] = (
    Route("/", "GET", "server.show", "Name and version of the server, and links."),
    Route("/openapi.json", "GET", "server.show", "This document."),
    Route("/ping", "GET", None, "Readiness probe of SageMaker."),
    Route("/health", "GET", None, "Readiness probe of MLflow."),
    Route("/version", "GET", None, "Version of the server, as text."),
    Route("/metrics", "GET", "server.show", "Counts and durations of all workers, for Prometheus."),
    Route("/v2", "GET", "server.show", "Server metadata."),
    Route("/v2/health/live", "GET", None, "Whether the server runs."),
    Route("/v2/health/ready", "GET", None, "Whether the server takes requests."),
    Route("/v2/models/stats", "GET", "server.show", "Statistics of all models."),
    *_of_model("v2", "", "GET", "server.show", "Inputs and outputs of the model as tensors."),
    *_of_model("v2", "ready", "GET", "server.show", "Whether the model takes requests."),
    *_of_model("v2", "config", "GET", "server.show", "Configuration of the model."),
    *_of_model("v2", "stats", "GET", "server.show", "Statistics of the model."),
    *_of_model("v2", "infer", "POST", "model.predict", "Predictions for tensors."),
    Route("/v1/models", "GET", "server.show", "The models, with request fields and an example each."),
    *_of_model("v1", "", "GET", "server.show", "Request fields, threshold and an example."),
    *_of_model("v1", "predict", "POST", "model.predict", "Predictions for plain JSON rows."),
    *_of_model("v1", "invocations", "POST", "model.predict", "Predictions in MLflow's formats."),
    Route("/invocations", "POST", "model.predict", "Predictions in MLflow's formats, of the only model."),
    Route("/v1/events", "POST", "events.post", "Post events: rows of a source that models have windows over."),
    Route("/v1/labels", "POST", "labels.post", "Post labels of predictions, by their id or by key and time."),
    Route(
        "/v2/repository/index",
        "POST",
        "server.show",
        "The servables of the server's folders, and whether they are served.",
    ),
    Route("/v2/repository/models/{model}/load", "POST", "model.load", "Load a model, or what replaced its folder."),
    Route("/v2/repository/models/{model}/unload", "POST", "model.load", "Unload a model."),
)


_TEMPLATES = [(route.parts, route) for route in ROUTES]


def find_route(parts: Sequence[str]) -> Route | None:
    """The route of a path in its parts; of two that fit, the one with fewer braces."""
    routes = [route for template, route in _TEMPLATES if fits_template(template, parts)]
    return min(routes, key=lambda route: route.template.count("{"), default=None)


def path_template(target: bytes) -> str:
    """The template of a request's target; `UNKNOWN` where there is nothing."""
    route = find_route(split_path(target))
    return UNKNOWN if route is None else route.template


def split_path(target: bytes) -> list[str]:
    """The parts of a target's path, decoded after they are taken apart."""
    path = target.partition(b"?")[0].decode("latin-1").rstrip("/").removeprefix("/")
    return [unquote(part, errors="replace") for part in path.split("/")] if path else []


def answer_options(target: bytes) -> Response:
    """The answer to OPTIONS: the methods that the path takes.

    Raises:
        NotFoundError: there is nothing at the path.
    """
    if target == b"*":
        return Response(200, b"", headers=((b"allow", b"GET, HEAD, POST, OPTIONS"),))
    route = find_route(split_path(target))
    if route is None:
        raise NotFoundError("there is nothing at this path", hint="see /openapi.json")
    return Response(200, b"", headers=((b"allow", route.takes),))
