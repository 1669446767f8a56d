"""What a caller of `cumulant serve` gives reaches the data plane, and goes before what the project file declares."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import msgspec

from cumulant.cli.app import run
from cumulant.core.errors import UsageError
from cumulant.flows.serving import serve as serving
from cumulant.flows.serving.serve import PreparedService, folders_command, server_command, service_of
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load
from cumulant.serving.__main__ import parse_options
from cumulant.serving.spec import FallbackSpec, ServingSpec

GIVEN = {
    "log": "there",
    "log_keep": "9d",
    "log_write": "durable",
    "fallback": ["cached", 'constant={"prediction":0}'],
    "queue": "7ms",
    "drain": "3s",
    "sequences": "s",
}


def read(line):
    found = parse_options(line[3:])
    return found.log, found.log_keep, found.log_write, found.fallback, found.queue, found.drain, found.sequences


def service(**declared):
    settings = msgspec.convert(declared, ServingSpec)

    return PreparedService(model=None, folder="m", uses="", log="own", settings=settings)


def test_what_is_given_of_folders():
    assert read(folders_command(["m"], http="127.0.0.1:0", given=GIVEN)) == (
        "there",
        "9d",
        "durable",
        ["cached", 'constant={"prediction":0}'],
        "7ms",
        "3s",
        "s",
    )
    assert read(folders_command(["m"], http="127.0.0.1:0", given={})) == (
        None,
        "90d",
        "background",
        [],
        "40ms",
        "10s",
        None,
    )


def test_what_is_given_goes_before_what_is_declared():
    declared = service(queue="11ms", drain="4s", fallback=msgspec.to_builtins(FallbackSpec(servable="cheap")))
    assert read(server_command(declared, http="127.0.0.1:0", given=GIVEN)) == (
        "there",
        "9d",
        "durable",
        ["cached", 'constant={"prediction":0}'],
        "7ms",
        "3s",
        "s",
    )
    assert "--access-log" not in server_command(declared, http="127.0.0.1:0", given={})
    lines = service(access_log=True)
    assert "--access-log" in server_command(lines, http="127.0.0.1:0", given={})
    assert read(server_command(declared, http="127.0.0.1:0", given={}))[:1] == ("own",)
    assert read(server_command(declared, http="127.0.0.1:0", given={}))[3:6] == (["servable=cheap"], "11ms", "4s")
    durable = service(log={"write": "durable"})
    assert read(server_command(durable, http="127.0.0.1:0", given={}))[1:3] == ("90d", "durable")


def test_who_may_do_what_and_where_reaches_the_server(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: shop}\nenvironments:\n"
        "  local: {}\n  prod: {tenant: acme, region: north, access: 'open://'}\n"
    )
    found = {}
    for name in ("local", "prod"):
        with load(tmp_path, environment=name) as project:
            served = service_of(
                project,
                ModelVersion(name="shop", version="1", uri="", run_id=None, created=datetime.now(UTC)),
                tmp_path,
            )
            own = msgspec.structs.replace(served, access="roles://a=b") if name == "prod" else served
            found[name] = parse_options(server_command(own, http="127.0.0.1:0", given={})[3:])
    local, prod = found["local"], found["prod"]
    assert (local.access, local.scope, local.region) == ("open://", None, "")
    assert (prod.access, prod.scope, prod.region) == ("roles://a=b", "acme/shop/prod", "north")
    assert (local.refusals, prod.refusals) == (
        str(tmp_path / ".cumulant/refusals"),
        str(tmp_path / ".cumulant/environments/prod/refusals"),
    )


def test_the_command_passes_them_on(tmp_path, monkeypatch):
    heard = []

    def listen(folders, *, http, given, ready):
        heard.append((folders, given))
        raise UsageError("that is enough")

    monkeypatch.setattr(serving, "folders_command", listen)
    given = ["--log", "there", "--log-keep", "9d", "--fallback", "cached", "--queue", "7ms", "--drain", "3s"]
    given += ["--log-write", "durable", "--fallback", 'constant={"prediction":0}', "--sequences", "s"]
    assert run(["serve", str(tmp_path), *given]) == 2
    ((folders, given),) = heard
    assert folders == [str(tmp_path)]
    assert {name: value for name, value in given.items() if name in GIVEN or value not in (None, False)} == {
        **GIVEN,
        "parent": os.getpid(),
    }
