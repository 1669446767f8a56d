"""Certificates for tests, made by openssl: an authority, and servers that it vouches for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cumulant.core.traffic import Certificates

_SHORT = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Signs in a folder of its own. `file` is its own certificate, which others trust. Skips a test without openssl."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificates, and is not installed")
        folder.mkdir(parents=True)
        self._folder = folder
        self.file, self._key = str(folder / "ca.pem"), str(folder / "ca.key")
        arguments = ["-keyout", self._key, "-out", self.file, "-subj", "/CN=test authority", "-days", "2"]
        _openssl("req", "-x509", *_SHORT, *arguments)

    def signed(self, name: str) -> Certificates:
        """A certificate for a server of that name, such as `IP:127.0.0.1` or `DNS:models.test`."""
        stem = self._folder / name.replace(":", "-")
        key, request, leaf, extension = (str(stem.with_suffix(end)) for end in (".key", ".csr", ".pem", ".ext"))
        Path(extension).write_text(f"subjectAltName={name}\n", encoding="ascii")
        _openssl("req", *_SHORT, "-keyout", key, "-out", request, "-subj", "/CN=server")
        sign = ["-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extension]
        _openssl("x509", "-req", "-in", request, *sign, "-out", leaf)
        return Certificates(certificate=leaf, private_key=key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
