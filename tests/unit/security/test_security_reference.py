"""The inventories of docs/reference/security.md are those of the code."""

from __future__ import annotations

import ast
import importlib
import math
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cumulant.flows.identities.device_logins import _LENGTH, _LETTERS
from cumulant.flows.identities.records import _BYTES
from cumulant.server.sign_in.authentication import OPEN_PATHS, OPEN_POSTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/security.md").read_text()
SOURCES = sorted((ROOT / "src/cumulant").rglob("*.py"))
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "s": 1, "min": 60, "d": 86_400}
#: modules of which each use is cryptography, or could be taken for it
_CRYPTOGRAPHIC = {"hashlib", "hmac", "zlib", "uuid"}
_LIBRARIES = {"joserfc", "ssl", "secrets"}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def limits() -> list[tuple[str, str, str]]:
    return [(what, limit, place.strip("`")) for what, limit, place in rows("Limits")[1:]]


@pytest.mark.parametrize(("what", "limit", "place"), limits(), ids=lambda text: text)
def test_limits_in_the_documents_are_those_of_the_code(what, limit, place):
    module, _, name = place.partition(":")
    value = getattr(importlib.import_module(module), name)
    number, _, unit = limit.partition(" ")
    assert (value.total_seconds() if isinstance(value, timedelta) else value) == int(number) * UNITS[unit], what


def trees_that_name(*words: str) -> Iterator[ast.Module]:
    """Of the modules with one of the words: most of the time would go into parsing the others."""
    for path in SOURCES:
        text = path.read_text()
        if any(word in text for word in words):
            yield ast.parse(text)


def names(tree: ast.AST) -> Iterator[str]:
    """What a module uses of the modules of cryptography, as `MODULE.NAME`, or as the name of a library."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _CRYPTOGRAPHIC:
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            for module in modules:
                top = module.partition(".")[0]
                if top in _LIBRARIES:
                    yield top
                elif top == "cryptography":
                    imported = [each.name for each in node.names] if isinstance(node, ast.ImportFrom) else [module]
                    yield module.rpartition(".")[2] if module.endswith("ed25519") else ",".join(imported)
                elif isinstance(node, ast.ImportFrom) and top in _CRYPTOGRAPHIC:
                    yield from (f"{top}.{each.name}" for each in node.names)


#: of these modules neither keys nor hashes, but helpers
HELPERS = {"hmac.compare_digest", "uuid.UUID", "serialization", "InvalidSignature", "zlib.error", "zlib.decompressobj"}


def test_the_inventory_of_cryptography_is_that_of_the_code():
    used = {name for tree in trees_that_name(*_CRYPTOGRAPHIC, *_LIBRARIES, "cryptography") for name in names(tree)}
    listed = {name for algorithm, _ in rows("Cryptography")[1:10] for name in re.findall(r"`([\w.]+)`", algorithm)}
    assert listed == {name for each in used for name in each.split(",")} - HELPERS - COMPRESSION
    assert not {"md5", "sha1", "new"} & {name.partition(".")[2] for name in used if name.startswith("hashlib")}


#: compression, not check sums
COMPRESSION = {"zlib.compress", "zlib.decompress", "zlib.compressobj", "zlib.MAX_WBITS", "zlib.Z_BEST_SPEED"}


def test_hmac_is_always_with_sha_256():
    functions = [
        ast.unparse(node.args[2])
        for tree in trees_that_name("hmac")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hmac.new", "hmac.digest")
    ]
    assert {*functions} == {"'sha256'", "hashlib.sha256"}


def test_codes_have_as_many_bits_as_documented():
    assert _BYTES * 8 == 256
    assert "256 random bits" in section("Ways to sign in")
    assert _LENGTH * math.log2(len(_LETTERS)) > 34, "of the code that users compare, of which few are waited for"


def test_every_way_to_sign_in_is_documented():
    """What is open to those without an identity, and which ways lead from there to one."""
    assert {"/login", "/login/start", "/login/callback", "/v1/health/live", "/v1/openapi.json"} == OPEN_PATHS
    assert {"/v1/sign-in/token", "/v1/sign-in/device", "/v1/sign-in/device/token"} == OPEN_POSTS
    ways = [row[0] for row in rows("Ways to sign in")[1:]]
    assert ways == ["one-time link", "OpenID provider", "API token", "device flow", "token exchange", "token file"]
    guide = (ROOT / "docs/how-to/sign-in.md").read_text()
    for heading in ("API tokens", "On one machine", "By a provider", "Command lines", "Jobs of a CI", "Sessions"):
        assert f"\n## {heading}\n" in guide
    assert "after 12 hours (`sign_in.longest`)" in guide
    assert "`sign_in.recheck`" in guide


def test_connections_are_documented():
    """Every driver with a port to a network is in the table; a new one fails here until it is."""
    named = section("Connections").lower()
    drivers = {path.name for path in (ROOT / "src/cumulant/drivers").iterdir() if (path / "__init__.py").exists()}
    of_this_machine = {"local", "folder", "cedar", "worker", "envoy"}
    words = {"mlflow": "mlflow", "objectstore": "object stores", "postgres": "postgresql", "valkey": "valkey"}
    words |= {"webhook": "webhook", "mail": "mail", "kafka": "kafka", "confluent": "schema registry"}
    words |= {"kinesis": "kinesis", "spark": "spark", "flink": "flink"}
    assert drivers - of_this_machine == set(words)
    assert all(word in named for word in words.values())


def test_logs_are_documented():
    named = [row[0] for row in rows("Logs")[1:]]
    assert named == [
        "events of the journal",
        "prediction log",
        "exchanges of the gateway",
        "log of refusals of servers",
        "standard error",
        "checkpoints",
    ]
    loggers = [path for path in SOURCES if re.search(r"logging\.(getLogger|basicConfig|FileHandler)", path.read_text())]
    assert {path.relative_to(ROOT / "src/cumulant").parts[0] for path in loggers} <= LOGGERS, "they would be one more"


#: packages that set the loggers of libraries, to silence them
LOGGERS = {"cli", "core", "drivers", "flows", "training", "packaging"}


def test_classes_of_data_are_documented():
    assert [row[0] for row in rows("Classes of data")[1:]] == ["secret", "personal", "internal", "open"]
    assert all(row[2] for row in rows("Classes of data"))
    for path in OPEN_PATHS - {"/login", "/login/start", "/login/callback"}:
        assert f"`{path}`" in section("Classes of data")


def test_time_frames_of_updates_are_documented():
    days = [int(number) for number in re.findall(r"within (\d+)", section("Updates"))]
    assert days == sorted(days)
    assert days[0] <= 7


def test_every_package_is_pinned_with_its_hashes():
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", file.read_text()).strip())
        assert len(entries) > 3
        for entry in entries:
            assert re.match(r"[\w.\[\]-]+==\S+", entry), f"{file.name}: {entry[:60]}"
            assert "--hash=sha256:" in entry, f"{file.name}: {entry[:60]}"
