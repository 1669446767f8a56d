"""A real OpenID provider for tests: npm's oauth2-mock-server, whose tokens are signed with real keys."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulant.testing.servers.programs import find_program

_DRIVER = Path(__file__).with_suffix(".mjs")
INSTALL = "tools/engines.sh, or npm install oauth2-mock-server@9.3.0 with its node_modules/.bin on the PATH"


class OpenIdProvider:
    """`issuer`: its URL."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer: str = self._answer()

    def set(self, **values: Any) -> None:
        """`claims`: put into all tokens from here on; `unsigned`: ID tokens without a signature; `metadata`: what the
        provider says of itself.
        """
        self._command("set", values)

    def rotate(self) -> None:
        """Sign with a new key from here on; the old one is gone."""
        self._command("rotate", None)

    def sign(self, **claims: Any) -> str:
        """A token with these claims, signed by the present key, valid for 10 minutes."""
        return str(self._command("sign", claims))

    def _command(self, name: str, value: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, value]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the provider has ended"
        return json.loads(line)


@contextmanager
def openid_provider() -> Iterator[OpenIdProvider]:
    """A provider on loopback until the block ends; skips where none is installed."""
    program, node = find_program("oauth2-mock-server"), shutil.which("node")
    if program is None or node is None:
        pytest.skip(f"oauth2-mock-server is not installed: {INSTALL}")
    module = Path(program).resolve().with_name("index.mjs")
    with subprocess.Popen(
        [node, str(_DRIVER), str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield OpenIdProvider(process)
        finally:
            process.kill()
