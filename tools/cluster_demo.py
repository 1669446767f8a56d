#!/usr/bin/env python3
"""The demo on four simulated machines that share PostgreSQL, an object store and Valkey only.

`make demo ENV=cluster` installs the servers' programs and runs this; arguments are those of `cumulant demo`. The machine
`trainer` trains, monitors and has the release controller; the others have the gateway and two servers of each version.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from cumulant.demo.project import make_folder
from cumulant.testing.servers.cluster import ENVIRONMENT, Cluster, declare_environment, engines
from cumulant.testing.servers.programs import free_port

SERVERS = ("server-1", "server-2")


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # servers and machines end, too
    with tempfile.TemporaryDirectory(prefix="cumulant-cluster-") as temporary:
        folder = Path(temporary)
        source = folder / "flights"
        make_folder(source)
        try:
            print("PostgreSQL, SeaweedFS and Valkey start", file=sys.stderr)
            with engines() as started:
                declare_environment(source / "cumulant.yaml", started.section(deploy="hosts://"))
                return _run(Cluster(folder / "machines", started), source, arguments)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 3


def _run(cluster: Cluster, source: Path, arguments: list[str]) -> int:
    trainer, gateway = cluster.machine("trainer"), cluster.machine("gateway")
    for machine in (trainer, gateway, *map(cluster.machine, SERVERS)):
        machine.check_out(source)
        print(f"{machine.name}: {machine.address}, {machine.folder}", file=sys.stderr)
    try:
        gateway.start("up", "--role", "gateway", "--http", f"{gateway.address}:{free_port(gateway.address)}")
        for name in SERVERS:
            server = cluster.machine(name)
            server.start("up", "--role", "servers", "--advertise", server.address)
        line = [sys.executable, "-m", "cumulant.cli", "demo", "--dir", str(trainer.project), "--env", ENVIRONMENT]
        return subprocess.run([*line, *arguments], env=trainer.environment(), check=False).returncode
    finally:
        cluster.lose_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
