"""The records of the embedded drivers. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

_HERE = "cumulant.drivers.local"

sqlite = Driver(
    clients={"journal": f"{_HERE}.journal:SqliteJournal", "online": f"{_HERE}.online:SqliteOnline"},
    capabilities={"journal": frozenset({"processes", "chain"}), "online": frozenset({"swap", "processes"})},
    path="file",
    default_paths={"journal": "journal.db", "online": "online.db"},
    stored={"journal": {"{name}.head": "file", "{name}": "sqlite"}, "online": {"{name}": "sqlite"}},
    options={"journal": frozenset({"adopt"}), "online": frozenset()},
)
file = Driver(
    clients={
        "tables": f"{_HERE}.tables:FileTables",
        "objects": f"{_HERE}.objects:FileObjects",
        "files": f"{_HERE}.files:LocalFiles",
        "log": f"{_HERE}.log:FileLog",
    },
    capabilities={
        "tables": frozenset({"partition_by", "processes"}),
        "objects": frozenset({"processes"}),
        "files": frozenset({"glob"}),
    },
    extra="local",
    path="folder",
    default_paths={"tables": "tables", "objects": "objects", "log": "."},
    stored={"tables": {"{name}/{scope}": "folder"}, "objects": {"{name}/{scope}": "folder"}},
    options={"tables": frozenset(), "objects": frozenset(), "log": frozenset()},
)
env = Driver(clients={"secrets": f"{_HERE}.secrets:EnvSecrets"}, path="folder", options={"secrets": frozenset()})
open = Driver(clients={"access": f"{_HERE}.access:OpenAccess"}, bare=True)  # noqa: A001 - the scheme's own name
inline = Driver(clients={"compute": f"{_HERE}.compute:InlineCompute"}, bare=True)
subprocess = Driver(
    clients={"compute": f"{_HERE}.compute:SubprocessCompute"},
    capabilities={"compute": frozenset({"isolated"})},
    bare=True,
)
