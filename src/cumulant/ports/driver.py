"""The record of a driver: one for each entry point in the group `cumulant.drivers`.

The record is importable without its engine; the client is imported on first use. Clients are made as
`Client(url)`, with `secrets=...`, `scope=...`, `journal=...` and `bindings=...` where the client has such parameters:
it needs credentials, stores what belongs to one project, works through the project's journal, or decides by roles.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: how a backup copies a part of a store: as it is, whole with all files below it, or as SQLite copies its database
PartKind = Literal["file", "folder", "sqlite"]


class Need(msgspec.Struct, frozen=True):
    """A capability that a flow needs of the driver of `port`, and what for, in words. `url`: of that client alone.

    Capabilities: `processes` and `hosts` (several may use one store at once), `swap` (a table is replaced whole while
    it is read), `chain` (events are chained by hashes), `partition_by`, `glob`, `isolated` (steps run in processes of
    their own), `resources` (where a step runs is chosen by what it needs), `datasets`, `embedded`.
    """

    port: str
    capability: str
    reason: str
    url: str | None = None


class Driver(msgspec.Struct, frozen=True):
    """One technology, reached by the URL scheme that names its entry point.

    `clients` maps a port's name (`journal`, `tables`, `objects`, `files`, `log`, `artifacts`, `online`, `registry`,
    `compute`, `secrets`, `access`, `cache`, `traffic`, `notifier`, `streams`, `schemas`, `history`,
    `stream_engine`) to `module:Class`.
    `capabilities` maps a port's name to what the driver can do of the optional parts; what is missing is refused when a
    plan is made. `extra` installs the engine.

    `path` says that the URL's path is a file or a folder on this machine: a project takes a relative one from its own
    folder. `default_paths` maps a port's name to where a URL without a path (`envoy://`) leads, below the state of the
    project's environment. `stored` maps a port's name to what a backup copies, by its place relative to the URL's path,
    whose name is written `{name}`: `{"journal": {"{name}": "sqlite", "{name}.head": "file"}}`. `{scope}` is the folder
    of the project's scope, in a store that projects may share.

    `embeds` maps a port's name to the scheme of the embedded driver whose clients of the same port this one keeps its
    copies in: its own client is made with `embedded=`, which makes one in a folder. `aliases` maps the beginning of a
    URL, as other programs write it, to the driver's own: used where the driver of that scheme does not serve the port.

    `options` maps a port's name to the options that a URL of it may have after `?`; a client of a port that is not
    named checks them itself. `bare` says that a URL is the scheme alone: what follows it is refused.

    `own_backup` is the command that backs up what the driver stores elsewhere than on this machine.
    """

    clients: dict[str, str]
    capabilities: dict[str, frozenset[str]] = {}
    extra: str | None = None
    path: Literal["file", "folder"] | None = None
    default_paths: dict[str, str] = {}
    stored: dict[str, dict[str, PartKind]] = {}
    embeds: dict[str, str] = {}
    aliases: dict[str, str] = {}
    options: dict[str, frozenset[str]] = {}
    bare: bool = False
    own_backup: str = "its own tools"
