#!/usr/bin/env python3
"""The demo on several simulated machines that share PostgreSQL, an object store, Valkey and an MLflow server only.

`make demo ENV=cluster` installs the servers' programs and runs this; arguments are those of `cumulant demo`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from cumulant.demo.project import make_folder
from cumulant.testing.servers.cluster import Cluster, declare_environment, engines


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="cumulant-cluster-") as temporary:
        folder = Path(temporary)
        source = folder / "flights"
        make_folder(source)
        try:
            with engines() as started:
                declare_environment(source / "cumulant.yaml", started.section())
                return _run(Cluster(folder / "machines", started), source, arguments)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 3


def _run(cluster: Cluster, source: Path, arguments: list[str]) -> int:
    trainer = cluster.machine("trainer")
    trainer.check_out(source)
    line = [sys.executable, "-m", "cumulant.cli", "demo", "--dir", str(trainer.project), "--env", "cluster", *arguments]
    try:
        return subprocess.run(line, env=trainer.environment(), check=False).returncode
    finally:
        cluster.lose_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
