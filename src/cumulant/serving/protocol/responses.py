"""What the server answers with, as types: bodies are made of them, and the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class ErrorResponse(msgspec.Struct):
    error: str


class EmptyResponse(msgspec.Struct, forbid_unknown_fields=True):
    pass


class ServerResponse(msgspec.Struct):
    name: str
    version: str
    links: list[str]


class MetadataResponse(msgspec.Struct):
    name: str
    version: str
    extensions: list[str]


class LiveResponse(msgspec.Struct):
    live: bool


class ReadyResponse(msgspec.Struct, omit_defaults=True):
    """`unreachable`: names of stores without which requests of some model are refused. `overloaded`: in the last minute
    requests were refused that would have waited too long. Everybody may see it: it names no model.
    """

    ready: bool
    unreachable: list[Literal["online"]] = []
    overloaded: bool = False


class ModelReadyResponse(msgspec.Struct):
    name: str
    ready: bool


class TensorDescription(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class ModelResponse(msgspec.Struct):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]


class CardResponse(msgspec.Struct):
    name: str
    version: str
    request: list[Any]
    example: dict[str, Any]


class CardsResponse(msgspec.Struct):
    models: list[CardResponse]


class ConfigurationResponse(msgspec.Struct):
    name: str
    input: list[Any]
    output: list[Any]


class ModelStatistics(msgspec.Struct):
    name: str
    version: str
    inference_stats: dict[str, Any]


class StatisticsResponse(msgspec.Struct):
    model_stats: list[ModelStatistics]


class IndexResponse(msgspec.Struct):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class DocumentResponse(msgspec.Struct):
    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


class LabelsResponse(msgspec.Struct):
    accepted: int
    duplicates: int


class EventsResponse(msgspec.Struct, omit_defaults=True):
    """`future`, `early`: rows that were not stored, because they are dated too far ahead or were not known yet."""

    accepted: int
    duplicates: int
    unkeyed: int
    future: int = 0
    early: int = 0
    warnings: list[str] = []
