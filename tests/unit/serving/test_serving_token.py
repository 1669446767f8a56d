"""Which tokens a server takes, and from which files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cumulant.core.errors import RefusedError, UsageError
from cumulant.core.system import private_files
from cumulant.core.system.private_files import check_private
from cumulant.serving.access_token import LEAST, read_token

GOOD = "0123456789abcdef"


def file(folder, text=GOOD, mode=0o600):
    path = folder / "token"
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", ["x", "0123456789abcde"])
def test_a_token_that_can_be_guessed_is_refused(tmp_path, text):
    for path, variables in ((file(tmp_path, text), {}), (None, {"CUMULANT_TOKEN": text})):
        with pytest.raises(UsageError, match=f"fewer than {LEAST} can be guessed") as caught:
            read_token(path, variables)
        assert text not in str(caught.value.as_dict()).replace(str(path), "").split()
        assert read_token(path, variables, least=1) == text, "a caller sends what it was given"


def test_one_that_is_long_enough_is_taken(tmp_path):
    assert read_token(file(tmp_path), {}) == GOOD
    assert read_token(None, {"CUMULANT_TOKEN": f" {GOOD} "}) == GOOD
    assert read_token(None, {}) is None
    assert read_token(None, {"CUMULANT_TOKEN": ""}) is None


def test_the_server_does_not_start_with_a_short_one(tmp_path):
    line = [sys.executable, "-m", "cumulant.serving", str(tmp_path), "--http", "127.0.0.1:0"]
    ended = subprocess.run(
        line, env={**os.environ, "CUMULANT_TOKEN": "x"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "can be guessed" in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
class TestFiles:
    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o444])
    def test_one_that_its_owner_left_open_is_refused_with_the_line_that_closes_it(self, tmp_path, mode):
        path = file(tmp_path, mode=mode)
        with pytest.raises(RefusedError, match=f"mode {mode:04o}") as caught:
            read_token(path, {})
        assert caught.value.hint == f"chmod 600 {path}"

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_one_that_only_its_owner_reads_is_taken(self, tmp_path, mode):
        assert read_token(file(tmp_path, mode=mode), {}) == GOOD

    def test_one_that_was_mounted_is_as_it_was_meant(self, tmp_path, monkeypatch):
        path = file(tmp_path, mode=0o444)
        monkeypatch.setattr(private_files, "_MOUNTED", (tmp_path,))
        assert read_token(path, {}) == GOOD

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
    def test_one_of_another_owner_is_as_it_was_meant(self, tmp_path):
        path = file(tmp_path, mode=0o444)
        os.chown(path, 65_534, 65_534)
        assert read_token(path, {}) == GOOD

    def test_what_is_no_file_has_no_mode_of_its_own(self):
        reader, writer = os.pipe()
        try:
            check_private(Path(f"/dev/fd/{reader}"))
        finally:
            os.close(reader)
            os.close(writer)
