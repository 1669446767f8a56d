"""The options of a server's command line, derived from the declarations of its settings.

A setting of the project file is declared in `serving.spec`, one of the command line alone in `ServerOptions`. From
these follow the options of `python -m cumulant.serving` and of `cumulant serve`, and the words by which the second
starts the first. Values are texts here; `serving.__main__` makes numbers of them for `serving.settings`.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import inspect

from cumulant.serving.spec import FallbackSpec, ServingSpec, setting

#: the driver of access that allows everything
OPEN_ACCESS = "open://"
#: values by the names of options: `{"log_keep": "90d", "fallback": ("cached",), "insecure": True}`
Values = Mapping[str, Any]


class ServerOptions(ServingSpec, frozen=True, kw_only=True):
    """Options of a server: the section `serving`, and those of its command line alone."""

    name: Annotated[str, setting("name NAME", "What the server calls itself.")] = "cumulant"
    online: Annotated[str | None, setting("online URL", "The store of the features that plans read.")] = None
    table: Annotated[
        str | None, setting("state-table NAME", "The name of the stored features there. Default: that of the servable.")
    ] = None
    scope: Annotated[
        str | None,
        setting(
            "scope TENANT/PROJECT/ENVIRONMENT",
            "Whose server it is: in a store of features that several projects share, and for `--access`.",
        ),
    ] = None
    secrets: Annotated[
        str, setting("secrets URL", "Where the secret is looked up that `--online` names by `?password=NAME`.")
    ] = "env://"
    control: Annotated[
        Literal["none", "explicit"],
        setting("model-control none|explicit", "`explicit`: load and unload models by request."),
    ] = "none"
    access: Annotated[
        str, setting("access URL", "The driver that decides what callers may do; `open://` allows everything.")
    ] = OPEN_ACCESS
    access_bindings: Annotated[
        str | None,
        setting("access-bindings FILE", "Who has which role, as `cumulant up` writes it, for `--access cedar://`."),
    ] = None
    refusals: Annotated[
        str | None,
        setting("refusals DIR|URL", "Record refused requests, counted, in the log there, for events of the project."),
    ] = None
    behind_gateway: Annotated[
        bool,
        setting(
            "behind-gateway",
            "A gateway is in front: with its token, the headers by which it names arm, copy and request are logged.",
        ),
    ] = False
    gateway_key_file: Annotated[
        str | None,
        setting(
            "gateway-key-file FILE",
            "Holds the key that the gateway makes its token with; goes with `--behind-gateway`.",
        ),
    ] = None
    insecure: Annotated[bool, setting("insecure", "Allow an address that others can reach without a token.")] = False
    caches: Annotated[
        list[str],
        setting(
            "cache auto|on|off|URL",
            "Answers kept for equal requests: `auto`, `on` or `off`; `valkey://HOST:PORT/DB`, `redis://` or"
            " `rediss://` is shared with other servers, its password in `CUMULANT_CACHE_PASSWORD`. Default: `auto`.",
            sections="serving.cache and serving.shared_cache",
        ),
    ] = msgspec.field(default_factory=list)
    fallbacks: Annotated[
        list[str],
        setting(
            "fallback KIND",
            'When there is no time: `cached`, `servable=DIR`, `constant={"prediction": false}`.',
            sections="serving.fallback",
        ),
    ] = msgspec.field(default_factory=list)
    sequences: Annotated[
        str | None,
        setting(
            "sequences DIR",
            "Keep the state of sequences there, also when the server ends. Default: as long as it lives.",
        ),
    ] = None
    sequence_count: Annotated[int, setting("sequence-count N", "Most sequences.")] = 10_000
    sequence_bytes: Annotated[str, setting("sequence-bytes SIZE", "Most bytes of their state.")] = "256MiB"
    log_folder: Annotated[
        str | None, setting("log DIR", "Keep a prediction log there. Default: a project's own; none of folders.")
    ] = None
    log_upload: Annotated[
        str | None,
        setting("log-upload URL", "Upload the prediction log there; the folder then holds what is not uploaded yet."),
    ] = None
    labels: Annotated[
        str | None,
        setting("labels DIR|URL", "Accept posted labels, and store them in the log there until they are ingested."),
    ] = None
    salt_file: Annotated[
        str | None,
        setting(
            "salt-file FILE",
            "Holds the key of the hashes of personal values in the log; `CUMULANT_SALT` does the same."
            " Without one they are hidden; in a project the default is its own.",
        ),
    ] = None
    region: Annotated[str, setting("region NAME", "As it stands in the log.")] = ""
    traces: Annotated[
        str | None,
        setting(
            "traces URL",
            "Send OpenTelemetry spans there (OTLP over HTTP). Default: `OTEL_EXPORTER_OTLP_ENDPOINT`, else none.",
        ),
    ] = None
    parent: Annotated[
        int | None, setting("parent PID", "End when that process is no longer the parent of this one.")
    ] = None
    ready_file: Annotated[str | None, setting("ready-file FILE", "Write the ready line to this file too.")] = None


class Option(NamedTuple):
    """One option. `key`: its name in Python; `section`: the settings of the project file that it overrides, if any;
    `path`: where `ServerOptions` has its value; `text`: the form of its value, such as `duration`.
    """

    name: str
    key: str
    path: tuple[str, ...]
    section: str | None
    help: str
    metavar: str
    kind: Literal["flag", "number", "text", "several"]
    default: Any
    choices: tuple[str, ...] | None
    text: str | None


@cache
def options() -> tuple[Option, ...]:
    """Every option of a server, those of the project file's settings first."""
    return tuple(_options(ServerOptions, (), set(ServingSpec.__struct_fields__)))


def _options(struct: type[msgspec.Struct], path: tuple[str, ...], of_file: set[str]) -> Iterator[Option]:
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        here, bare = (*path, field.encode_name), field.type
        bare = bare.type if isinstance(bare, inspect.Metadata) else bare
        if isinstance(bare, inspect.StructType):
            yield from _options(bare.cls, here, {*bare.cls.__struct_fields__})
        elif isinstance(field.type, inspect.Metadata) and "option" in (field.type.extra or {}):
            section = f"serving.{'.'.join(here)}" if field.name in of_file else None
            yield _option(field, field.type, here, section)


def _option(field: inspect.Field, meta: inspect.Metadata, path: tuple[str, ...], section: str | None) -> Option:
    extra, schema = meta.extra or {}, meta.extra_json_schema or {}
    kinds = {type(member) for member in (meta.type.types if isinstance(meta.type, inspect.UnionType) else (meta.type,))}
    kind: Literal["flag", "number", "text", "several"] = "text"
    if inspect.BoolType in kinds:
        kind = "flag"
    elif inspect.IntType in kinds:
        kind = "number"
    elif inspect.ListType in kinds:
        kind = "several"
    return Option(
        name=f"--{extra['option']}",
        key=extra["option"].replace("-", "_"),
        path=path,
        section=extra.get("sections", section),
        help=str(schema.get("description", "")).replace("`", ""),
        metavar=extra["metavar"],
        kind=kind,
        default=None if field.default is msgspec.NODEFAULT else field.default,
        choices=tuple(extra["metavar"].split("|")) if inspect.LiteralType in kinds else None,
        text=extra.get("text"),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let the parser take every option of a server."""
    for item in options():
        shown = item.help if item.default in (None, "") else f"{item.help} Default: {item.default}."
        text, shown = item.help.replace("%", "%%"), shown.replace("%", "%%")
        if item.kind == "flag":
            parser.add_argument(item.name, action="store_true", help=text)
        elif item.kind == "several":
            parser.add_argument(
                item.name, metavar=item.metavar, action="append", default=[], help=f"{text} May be repeated."
            )
        else:
            parser.add_argument(
                item.name,
                metavar=None if item.choices else item.metavar,
                type=int if item.kind == "number" else Path if item.metavar == "FILE" else str,
                choices=item.choices,
                default=item.default,
                help=shown,
            )


def declared(spec: ServingSpec) -> dict[str, Any]:
    """The values of the options that the section `serving` declares; `overridden` makes a server's of them."""
    values: dict[str, Any] = {}
    for item in options():
        if item.section is not None and item.path[0] in ServingSpec.__struct_fields__:
            value: Any = spec
            for part in item.path:
                value = getattr(value, part)
            values[item.key] = tuple(value) if item.kind == "several" else value
    return values | {"cache": _caches(spec), "fallback": _fallbacks(spec.fallback)}


def overridden(values: Values, given: Values) -> dict[str, Any]:
    """The values with those that are given in place of them. The mode of the cache and the shared one each replace
    their own, and where the mode is off nothing is shared.
    """
    cache = given.get("cache") or ()
    urls, modes = [word for word in cache if "://" in word], [word for word in cache if "://" not in word]
    known = values.get("cache", ())
    modes = modes or [word for word in known if "://" not in word]
    if not urls and modes != ["off"]:
        urls = [word for word in known if "://" in word]
    return {**values, **{key: value for key, value in given.items() if _is_given(value)}, "cache": (*modes, *urls)}


def words(values: Values) -> list[str]:
    """The command line's words for the values; what is missing, false or empty has none.

    Raises:
        KeyError: a value of no option.
    """
    known = {item.key: item for item in options()}
    line = list[str]()
    for key, value in values.items():
        item = known[key]
        if not _is_given(value):
            continue
        several: Sequence[Any] = value if item.kind == "several" else (value,)
        line += [item.name] if item.kind == "flag" else [word for each in several for word in (item.name, str(each))]
    return line


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value not in ((), [])


def _caches(spec: ServingSpec) -> tuple[str, ...]:
    return (spec.cache,) if spec.shared_cache is None else (spec.cache, spec.shared_cache)


def _fallbacks(spec: FallbackSpec) -> tuple[str, ...]:
    kinds = ["cached"] if spec.cached else []
    if spec.servable is not None:
        kinds.append(f"servable={spec.servable}")
    if spec.constant is not None:
        kinds.append(f"constant={msgspec.json.encode(spec.constant).decode()}")
    return tuple(kinds)
