"""The Dockerfile's text, the same for docker, podman and buildah."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path, PurePosixPath

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.hosts import is_loopback
from cumulant.core.servable import GraphServable, Servable
from cumulant.core.version import __version__
from cumulant.serving.__main__ import parse_options
from cumulant.serving.sockets import split_address

#: of the user that serves; numeric, so that Kubernetes can see that it is not root
USER = 10001
PORT = 8080
#: options whose files and folders come from outside
_PATHS = ("log", "labels", "refusals", "sequences", "token-file", "salt-file", "gateway-key-file")
#: before what stands after the image's name
_PROGRAM = ("python3", "-P", "-m", "cumulant.serving", "/model", "--http", f"0.0.0.0:{PORT}")

_TEXT = """\
# {title}: the data plane and one model. Made by `cumulant package`; build it in this folder:
#   docker build -t NAME .      podman build -t NAME .      buildah bud -t NAME .
# Run it: docker run --read-only --tmpfs /tmp -e CUMULANT_TOKEN=... -p {port}:{port} NAME
ARG BASE={base}

# Packages are installed here, and only here, each named by its hash. trim.py then leaves in /build/root what the data
# plane loads: no installer, no shell, no header, no test. What is left is tried before it is an image.
FROM ${{BASE}} AS packages
COPY serve.txt {wheel} trim.py /build/
RUN python3 -m venv /build/tools \\
 && /build/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \\
      --target /build/root/app --only-binary :all: --require-hashes -r /build/serve.txt \\
 && /build/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \\
      --target /build/root/app --no-deps /build/{wheel} \\
 && python3 -B /build/trim.py /build/root

FROM scratch
COPY --from=packages /build/root /
COPY model /model
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \\
    PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
{labels}
USER {user}:{user}
WORKDIR /tmp
EXPOSE {ports}
STOPSIGNAL SIGTERM
# Docker reads this; an image in OCI form leaves it out, and Kubernetes has probes of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \\
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/v2/health/live', timeout=4)"]
# It refuses to start without CUMULANT_TOKEN, unless --insecure is added: docker run NAME --insecure
ENTRYPOINT {program}
"""


class Serving(msgspec.Struct, frozen=True):
    """The server's options in the image, and where it answers with them."""

    words: tuple[str, ...] = ()
    http: int = PORT
    grpc: int | None = None
    #: they name a token, or allow all callers
    authenticated: bool = False
    #: they name the store of the features
    online: bool = False
    #: options that name a file or folder, and where the server looks for it
    paths: Mapping[str, str] = {}

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.http,) if self.grpc is None else (self.http, self.grpc)


def parse_server_options(text: str) -> Serving:
    """Options of the image's server in `text`, such as `--grpc 0.0.0.0:8081 --workers 2`.

    Raises:
        UsageError: these are no options of the server, it could not be reached, or a path of theirs is relative.
    """
    errors = io.StringIO()
    try:
        words = tuple(shlex.split(text))
        with redirect_stderr(errors):
            parsed = parse_options([*_PROGRAM[4:], *words])
    except (ValueError, SystemExit) as error:
        fault = errors.getvalue().strip().rpartition("error: ")[2] or str(error)
        raise UsageError(f'"{text}" cannot be the options of the server: {fault}', subject=text) from None
    host, port = split_address(parsed.http)
    if is_loopback(host):
        hint = f"write --http 0.0.0.0:{port}"
        raise UsageError(f"{parsed.http} cannot be reached from outside the container", subject=parsed.http, hint=hint)
    return Serving(
        words,
        http=port,
        grpc=split_address(parsed.grpc)[1] if parsed.grpc else None,
        authenticated=parsed.insecure or parsed.token_file is not None,
        online=parsed.online is not None,
        paths={
            option: _inside(option, path) for option in _PATHS if (path := getattr(parsed, option.replace("-", "_")))
        },
    )


def _inside(option: str, path: str | Path) -> str:
    """A path in the container that can be mounted."""
    if not PurePosixPath(path).is_absolute() or PurePosixPath(path) == PurePosixPath("/"):
        hint = f"write a path from the container's root: --{option} /{option}"
        raise UsageError(f"--{option} {path} cannot be mounted", subject=str(path), hint=hint)
    return str(path)


def dockerfile(
    servable: Servable | GraphServable, *, base: str, wheel: str, content: bytes = b"", options: Serving | None = None
) -> str:
    """The Dockerfile for a folder with `serve.txt`, `trim.py`, the file `wheel`, and the servable in `model`.

    `content` is the text of `servable.json`, which names the hash of every other file of the servable.
    """
    options = options or Serving()
    named = image_labels(servable, base) | {"cumulant.servable.sha256": hashlib.sha256(content).hexdigest()}
    lines = "LABEL " + " \\\n      ".join(f"{key}={_quoted(value)}" for key, value in named.items())
    return _TEXT.format(
        title=_plain(servable.name),
        base=base,
        wheel=wheel,
        labels=lines,
        user=USER,
        port=options.http,
        ports=" ".join(map(str, options.ports)),
        program=json.dumps([*_PROGRAM, *options.words]),
    )


def image_labels(servable: Servable | GraphServable, base: str) -> dict[str, str]:
    """Labels of the image; unknown values are left out."""
    commit = servable.lineage.get("code", "")
    values: Mapping[str, str] = {
        "org.opencontainers.image.title": servable.name,
        "org.opencontainers.image.description": f"Cumulant's data plane with the model {servable.name}",
        "org.opencontainers.image.version": servable.version or __version__,
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": base,
        "cumulant.version": __version__,
        "cumulant.model.name": servable.name,
        "cumulant.model.version": servable.version,
        "cumulant.model.sha256": servable.files.get(servable.model, ""),
    }
    return {key: value for key, value in values.items() if value}


def _quoted(value: str) -> str:
    """A value as a Dockerfile reads it: one line, nothing of it a variable."""
    return '"' + _plain(value).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def _plain(value: str) -> str:
    """A value without line breaks: behind one, a Dockerfile reads an instruction."""
    return "".join(letter if letter.isprintable() else " " for letter in value)
