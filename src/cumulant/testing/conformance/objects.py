"""Rules of the port `objects`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.core.scope import Scope
from cumulant.ports.objects import ObjectStore
from cumulant.testing.conformance.gaps import Suite
from cumulant.testing.conformance.scopes import SCOPES


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def content_of(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def text_of(objects: ObjectStore, key: str) -> str:
    with objects.open(key) as path:
        return path.read_text()


FILES = {"servable.json": b"{}", "model/a.onnx": b"\x00\x01" * 5000, "model/deep/ä b": b"", "_object.json": b"x"}


class ObjectsConformance(Suite):
    """Give the fixtures `objects`, an empty store, and `objects_of`: makes clients of one store, each for a scope."""

    @pytest.fixture
    def objects(self) -> ObjectStore:
        raise NotImplementedError

    @pytest.fixture
    def objects_of(self) -> Callable[[Scope], ObjectStore]:
        raise NotImplementedError

    def test_scopes_have_objects_of_their_own_under_the_same_key(
        self, objects_of: Callable[[Scope], ObjectStore], tmp_path: Path
    ) -> None:
        clients, source = [objects_of(scope) for scope in SCOPES], tmp_path / "a.txt"
        for number, client in enumerate(clients):
            source.write_text(f"content {number}")
            assert client.find("a/b") is None
            client.put("a/b", source)
        for number, client in enumerate(clients):
            assert client.keys() == client.keys("a/") == ["a/b"]
            assert text_of(client, "a/b") == f"content {number}"
        source.write_text("the same in all")
        assert {client.put("same", source).sha256 for client in clients} == {
            hashlib.sha256(b"the same in all").hexdigest()
        }
        clients[0].delete("same")
        assert [client.find("same") is None for client in clients] == [True] + [False] * (len(clients) - 1)

    def test_a_scope_neither_sees_nor_deletes_what_another_has(
        self, objects_of: Callable[[Scope], ObjectStore], tmp_path: Path
    ) -> None:
        first, *others = [objects_of(scope) for scope in SCOPES]
        source = tmp_path / "a.txt"
        source.write_text("content")
        first.put("a", source)
        for scope, other in zip(SCOPES[1:], others, strict=True):
            for key in ("a", f"../../../{SCOPES[0].prefix}a", f"{SCOPES[0].prefix}a"):
                other.delete(key)
                assert other.find(key) is None
                with pytest.raises(NotFoundError), other.open(key):
                    pass
            assert other.keys() == [], scope
        assert text_of(first, "a") == "content"
        first.delete("a")
        assert first.keys() == []

    def test_a_file(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "report.html"
        source.write_bytes(b"<html>")
        reference = objects.put("reports/a", source)
        assert reference.key == "reports/a"
        assert reference.sha256 == hashlib.sha256(b"<html>").hexdigest()
        assert reference.bytes == 6
        with objects.open("reports/a") as path:
            assert path.read_bytes() == b"<html>"
            assert path.name == "report.html"
        assert objects.find("reports/a") == reference

    def test_a_folder(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = folder_of(tmp_path / "servable", FILES)
        reference = objects.put("a", source)
        with objects.open("a") as path:
            assert content_of(path) == FILES
            assert path.name == "servable"
        assert reference.bytes == sum(map(len, FILES.values()))

    def test_an_opened_object_stays_while_the_block_lasts(self, objects: ObjectStore, tmp_path: Path) -> None:
        objects.put("a", folder_of(tmp_path / "servable", FILES))
        with objects.open("a") as first, objects.open("a") as second:
            assert content_of(first) == content_of(second) == FILES
            assert first.name == "servable"
        with objects.open("a") as again:
            assert content_of(again) == FILES
        with pytest.raises(NotFoundError), objects.open("b"):
            pass

    def test_the_hash_is_of_the_content(self, objects: ObjectStore, tmp_path: Path) -> None:
        first = objects.put("one", folder_of(tmp_path / "one", FILES))
        two = objects.put("two", folder_of(tmp_path / "two", FILES))
        other = objects.put("other", folder_of(tmp_path / "other", FILES | {"model/a.onnx": b"\x00\x02" * 5000}))
        assert first.sha256 == two.sha256 != other.sha256

    def test_the_source_may_be_deleted(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "a.txt"
        source.write_text("one")
        objects.put("a", source)
        source.write_text("two")
        assert text_of(objects, "a") == "one"
        source.unlink()
        assert text_of(objects, "a") == "one"

    def test_an_existing_object_is_not_replaced(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "a.txt"
        source.write_text("one")
        first = objects.put("a", source)
        source.write_text("other")
        assert objects.put("a", source) == first
        assert text_of(objects, "a") == "one"

    def test_missing(self, objects: ObjectStore, tmp_path: Path) -> None:
        assert objects.find("a") is None
        with pytest.raises(NotFoundError) as caught, objects.open("a"):
            pass
        assert caught.value.subject == "a"
        with pytest.raises(NotFoundError):
            objects.put("a", tmp_path / "nothing")
        assert objects.keys() == []

    def test_keys(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "a.txt"
        source.write_text("x")
        names = ["a", "a/b", "a/b/c", "a.object/x", "b c", "..", "ä"]
        for name in names:
            objects.put(name, source)
        assert objects.keys() == sorted(names)
        assert objects.keys("a/") == ["a/b", "a/b/c"]

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b"])
    def test_keys_that_name_nothing(self, objects: ObjectStore, tmp_path: Path, key: str) -> None:
        source = tmp_path / "a.txt"
        source.write_text("x")
        with pytest.raises(UsageError):
            objects.put(key, source)

    def test_delete(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "a.txt"
        source.write_text("x")
        objects.put("a", source)
        objects.put("a/b", source)
        objects.delete("a")
        objects.delete("never")
        assert objects.keys() == ["a/b"]
        with pytest.raises(NotFoundError), objects.open("a"):
            pass
        source.write_text("new")
        objects.put("a", source)
        assert text_of(objects, "a") == "new"
