"""Figure 8: a server that has just started, and finds in a Valkey what another one answered."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from bench import HERE, Bench
from processes import Server, ask, free_port

_ENGINES = HERE.parents[1] / ".engines" / "bin"


def restarted(bench: Bench) -> None:
    """Figure 8. The heavy servable, inputs that were all asked before; each turn starts a server anew."""
    program = shutil.which("valkey-server") or shutil.which("valkey-server", path=str(_ENGINES))
    if program is None:
        print("  figure 8 is left out: valkey-server is not here (tools/engines.sh)", flush=True)
        return
    heavy, port = bench.models.made_heavy(), free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    valkey = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        shared = ("--cache", "auto", "--cache", f"valkey://127.0.0.1:{port}/0", "--queue", "1s")
        _warm(bench, heavy, shared)

        def measure(name: str, *options: str) -> float:
            with bench.servers() as keep:
                server = bench.ours(keep, *options, folder=heavy, name=name, log=False)
                time.sleep(0.5)  # the way to the cache is measured when a server starts
                return bench.wrk(server.port, bench.short, 8).rate

        rates = bench.turns(
            {
                "on": lambda: measure("shared", *shared),
                "off": lambda: measure("own", "--cache", "auto", "--queue", "1s"),
            }
        )
    finally:
        valkey.terminate()
        valkey.wait()
    what = f"1 ms a row, first {bench.short:g} s after the start, inputs that another server answered"
    bench.compare("8", f"{what}: shared cache against the own one only", rates["on"], rates["off"], "/s")


def _warm(bench: Bench, heavy: Path, shared: tuple[str, ...]) -> None:
    """Let a server answer every input once, and write the answers."""
    with bench.servers() as keep:
        server = bench.ours(keep, *shared, folder=heavy, name="warms", log=False)
        time.sleep(0.5)
        bench.wrk(server.port, max(4.0, bench.short), 8)
        end = time.monotonic() + 10
        while time.monotonic() < end and not _written(server):
            time.sleep(0.2)


def _written(server: Server) -> bool:
    """Nearly all of the inputs are in the shared cache: the server has each of them once."""
    _, body = ask(server.port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    found = [line for line in body.decode().splitlines() if "writes_total" in line and 'result="written"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in found) > 1900
