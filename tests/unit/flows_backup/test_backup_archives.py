"""Archives that were changed or cut off restore nothing."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from backup_support import backup

from cumulant.core.errors import IntegrityError, UsageError
from cumulant.flows.backup.restore import restore


def repacked(archive, target, change):
    """The archive with its members changed: `change(name, content)` gives pairs of TarInfo or name, and content."""
    with tarfile.open(archive) as before, tarfile.open(target, "w") as after:
        for member in before:
            for made, content in change(member.name, before.extractfile(member).read()):
                info = made if isinstance(made, tarfile.TarInfo) else tarfile.TarInfo(made)
                info.size = len(content)
                after.addfile(info, io.BytesIO(content))
    return target


def flipped(name, content):
    return [(name, content[:-1] + bytes([content[-1] ^ 1]) if name.endswith("features.py") else content)]


def dropped(name, content):
    return [] if name.endswith("features.py") else [(name, content)]


def doubled(name, content):
    return [(name, content)] * (2 if name.endswith("features.py") else 1)


def timeless(name, content):
    """With a time of a file that the system cannot hold."""
    if name != "manifest.json":
        return [(name, content)]
    manifest = json.loads(content)
    manifest["files"][0]["modified_ns"] = 10**30
    return [(name, json.dumps(manifest).encode())]


def added(made):
    return lambda name, content: [(name, content), *([(made, b"x")] if name.endswith("features.py") else [])]


def link(kind, name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, "features.py is damaged"),
        (dropped, "features.py is missing"),
        (doubled, "features.py twice"),
        (timeless, "a time that no file can have"),
        (added("files/more.py"), "more.py, which its manifest does not list"),
        (added("files/features.py/x"), "a file and as a folder"),
        (added("files/../escaped"), "no file of a project"),
        (added("files/a/../../escaped"), "no file of a project"),
        (added("/escaped"), "no file of a project"),
        (added("files//escaped"), "no file of a project"),
        (added("files/C:/escaped"), "no file of a project"),
        (added("files/..\\escaped"), "no file of a project"),
        (added("escaped"), "no file of a project"),
        (added("files/" + "a" * 300), "no file of a project"),
        (added(link(tarfile.SYMTYPE, "files/link", "/etc")), "a link or no file"),
        (added(link(tarfile.LNKTYPE, "files/link", "files/salt")), "a link or no file"),
        (added(link(tarfile.FIFOTYPE, "files/pipe", "")), "a link or no file"),
        (added(link(tarfile.DIRTYPE, "files/folder", "")), "a link or no file"),
    ],
)
def test_a_changed_archive_is_refused_by_the_name_of_the_file(root, tmp_path, place, change, words):
    done = backup(root, tmp_path / "b.tar")
    bad = repacked(done.archive, tmp_path / "bad.tar", change)
    with pytest.raises(IntegrityError) as caught:
        restore(bad, place / "restored")
    assert words in caught.value.message
    assert list(place.iterdir()) == []
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_that_was_cut_off_is_refused(root, tmp_path, place, compressed):
    done = backup(root, tmp_path / ("b.tgz" if compressed else "b.tar"))
    content = done.archive.read_bytes()
    for length in (0, 1, 511, 513, *range(1000, len(content) - 12_000, len(content) // 12)):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(IntegrityError) as caught:
            restore(tmp_path / "cut", place / "restored")
        assert "nothing was restored" in caught.value.hint
    with pytest.raises(UsageError, match="there is no file"):
        restore(tmp_path / "none.tar", place / "restored")
    (tmp_path / "cut").write_text("a text\n" * 1000)
    with pytest.raises(IntegrityError):
        restore(tmp_path / "cut", place / "restored")
    assert list(place.iterdir()) == []


def test_headers_without_end_are_damage(root, tmp_path):
    header = tarfile.TarInfo("files/x")
    header.type, header.size = tarfile.XHDTYPE, 0
    archive = tmp_path / "headers.tar"
    archive.write_bytes(header.tobuf() * 5000)
    with pytest.raises(IntegrityError, match="headers without end"):
        restore(archive, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
