"""The text of the Dockerfile: one for docker, podman and buildah."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.core.servable import GraphServable, Servable
from cumulant.core.version import __version__

#: of the user that serves; numeric, so that Kubernetes can see that it is not root
USER = 10001
PORT = 8080

_TEXT = """\
# {title}: the data plane and one model. Made by `cumulant package`; build it in this folder:
#   docker build -t NAME .      podman build -t NAME .      buildah bud -t NAME .
# Run it: docker run --read-only --tmpfs /tmp -e CUMULANT_TOKEN=... -p {port}:{port} NAME
ARG BASE={base}

# Packages are installed here, and only here. Each is named by its hash. What the data plane never loads goes:
# headers, tests, and of pyarrow (for the log of predictions) its servers and remote file systems.
FROM ${{BASE}} AS packages
COPY serve.txt {wheel} /build/
RUN python3 -m venv /build/tools \\
 && /build/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check \\
      --target /app --only-binary :all: --require-hashes -r /build/serve.txt \\
 && /build/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check \\
      --target /app --no-deps /build/{wheel} \\
 && rm -rf /app/bin /app/numpy/*/tests /app/numpy/*/*/tests /app/pyarrow/include /app/pyarrow/src /app/pyarrow/tests \\
      /app/pyarrow/*flight* /app/pyarrow/*s3* /app/pyarrow/*azure* /app/pyarrow/*gcs* \\
 && PYTHONPATH=/app python3 -B -c 'import cumulant.serving.server, grpc, onnxruntime, pyarrow.parquet'

# What serves needs no installer: none is left, and none hides in a lower layer.
FROM ${{BASE}} AS system
RUN rm -rf /usr/local/bin/pip* /usr/bin/pip* ~/.cache /var/cache/apt /var/lib/apt /tmp/* /usr/share/doc \\
      /usr/share/man /usr/share/info /usr/share/locale /usr/share/python-wheels \\
      /usr/bin/perl* /usr/share/perl* /usr/lib/*-linux-gnu/perl* /usr/lib/*-linux-gnu/libperl* \\
      /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \\
      /usr/lib/python3*/ensurepip /usr/lib/python3/dist-packages/pip* /usr/lib/python3/dist-packages/setuptools*

FROM scratch
COPY --from=system / /
COPY --from=packages /app /app
COPY model /model
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \\
    PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
{labels}
USER {user}:{user}
WORKDIR /tmp
EXPOSE {port}
STOPSIGNAL SIGTERM
# Docker reads this; an image in OCI form leaves it out, and Kubernetes has probes of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \\
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/v2/health/live', timeout=4)"]
# It refuses to start without CUMULANT_TOKEN, unless --insecure is added: docker run NAME --insecure
ENTRYPOINT ["python3", "-P", "-m", "cumulant.serving", "/model", "--http", "0.0.0.0:{port}"]
"""


def dockerfile(servable: Servable | GraphServable, *, base: str, wheel: str) -> str:
    """The Dockerfile for a folder with `serve.txt`, the file `wheel`, and the servable in `model`."""
    named = labels(servable, base)
    lines = "LABEL " + " \\\n      ".join(f"{key}={_quoted(value)}" for key, value in named.items())
    return _TEXT.format(title=servable.name, base=base, wheel=wheel, labels=lines, user=USER, port=PORT)


def labels(servable: Servable | GraphServable, base: str) -> dict[str, str]:
    """What the image says of itself; what is not known is left out."""
    commit = servable.lineage.get("code", "")
    found: Mapping[str, str] = {
        "org.opencontainers.image.title": servable.name,
        "org.opencontainers.image.description": f"Cumulant's data plane with the model {servable.name}",
        "org.opencontainers.image.version": servable.version or __version__,
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.base.name": base,
        "cumulant.version": __version__,
        "cumulant.model.name": servable.name,
        "cumulant.model.version": servable.version,
        "cumulant.model.sha256": servable.files.get(servable.model, ""),
    }
    return {key: value for key, value in found.items() if value}


def _quoted(value: str) -> str:
    """A value as a Dockerfile reads it: one line, nothing of it a variable."""
    plain = "".join(one if one.isprintable() else " " for one in value)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
