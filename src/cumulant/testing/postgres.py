"""A PostgreSQL server of its own for tests and benchmarks, in a temporary folder, on a socket and a loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: how the programs of a server are installed, for those who lack them
INSTALL = "apt-get install postgresql, or brew install postgresql"
_PROGRAMS = ("initdb", "pg_ctl", "psql")
_NOBODY = 65534


def server_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where no server is installed."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]), reverse=True)
    on_path = shutil.which("pg_ctl")
    folders = [*packaged, *([] if on_path is None else [Path(on_path).resolve().parent])]
    return next((folder for folder in folders if all((folder / name).exists() for name in _PROGRAMS)), None)


class PostgresServer:
    """A server that can be stopped, killed and started again at its place; the user `postgres` needs no password.

    PostgreSQL refuses to run as root: there it runs as nobody.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        programs = server_programs()
        if programs is None:
            raise FileNotFoundError(INSTALL)
        self._programs, self.folder, self.port = programs, folder, _free_port()
        if _is_root():
            os.chown(folder, _NOBODY, _NOBODY)
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        lines = [
            f"port = {self.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{folder}'",
            *settings,
        ]
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    @property
    def pid(self) -> int:
        """The process of the server, the parent of its connections' processes."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def encrypt(self, certificate: Path, key: Path) -> None:
        """From now on it takes encrypted connections too."""
        for name, source in (("server.crt", certificate), ("server.key", key)):
            target = self.folder / "data" / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if _is_root():
                os.chown(target, _NOBODY, _NOBODY)
        self.execute("ALTER SYSTEM SET ssl = on")
        self.execute("SELECT pg_reload_conf()")

    def require_password(self, user: str, *, kind: str = "host") -> None:
        """From now on a user needs a password; `hostssl`: on an encrypted connection, and others are refused."""
        access = self.folder / "data" / "pg_hba.conf"
        refused = f"host all {user} all reject\n" if kind == "hostssl" else ""
        access.write_text(
            f"{kind} all {user} all scram-sha-256\n{refused}{access.read_text(encoding='utf-8')}", encoding="utf-8"
        )
        self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        # pg_ctl leaves the server with its own output: a pipe would never end.
        self._run("pg_ctl", "-D", self.data, "-l", str(self.folder / "log"), "-w", "-t", "60", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is a crash."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "60", "stop")

    def execute(self, statement: str, database: str = "postgres") -> str:
        """The output of a statement that the superuser sends, past the client under test."""
        return self._run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-AtX", "-d", database, "-c", statement
        )

    def _run(self, program: str, *arguments: str) -> str:
        user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if _is_root() else {}
        completed = subprocess.run(
            [str(self._programs / program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.folder,
            # One that is started again by a simulated machine's command is none of that machine's processes.
            env={name: value for name, value in os.environ.items() if not name.startswith("CUMULANT_")},
            **user,  # type: ignore[call-overload]
        )
        if completed.returncode != 0:
            raise RuntimeError(f"{program} failed: {completed.stdout}")
        return str(completed.stdout).strip()


@contextmanager
def postgres_server(*settings: str) -> Iterator[PostgresServer]:
    """A running server; it and its files are gone afterwards.

    Raises:
        FileNotFoundError: no server is installed.
    """
    # Not below a private folder, which the server's user could not enter.
    folder = Path(tempfile.mkdtemp(prefix="cumulant-postgres-", dir="/tmp"))
    try:
        server = PostgresServer(folder, *settings)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
