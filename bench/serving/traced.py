"""What spans cost: processor time a request of one worker, with traces off, sampled 1 in 100, and all of them.

    python bench/serving/traced.py [--seconds 3] [--rounds 3]

Needs `wrk` and the extra `otel`. The three servers take turns; the collector is a process beside them that reads and
throws away. The time of a span's encoding and sending counts, that of the collector does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import bench
from processes import Server, free_port

COLLECTOR = """
import http.server, sys
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Sink).serve_forever()
"""
SAMPLED = {"off": None, "1 in 100": "0.01", "all": "1.0"}


def started(found: bench.Bench, keep: object, name: str, collector: int) -> Server:
    share = SAMPLED[name]
    if share is None:
        return found.ours(keep, log=False, name="untraced")
    os.environ |= {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    return found.ours(keep, "--traces", f"http://127.0.0.1:{collector}", log=False, name=f"traced-{share}")


def cost(found: bench.Bench, server: Server) -> float:
    """Microseconds of processor time a request."""
    before = server.cpu()
    done = found.wrk(server.port, found.short)
    return (server.cpu() - before) / max(done.answers, 1) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    work = Path(tempfile.gettempdir()) / "cumulant-bench-serving"
    work.mkdir(parents=True, exist_ok=True)
    found = bench.Bench(work, short=given.seconds, long=given.seconds, rounds=given.rounds)
    port = free_port()
    with found.servers() as keep:
        keep(Server("sink", [sys.executable, "-c", COLLECTOR, str(port)], port=port, log=work / "sink.log"))
        servers = {name: started(found, keep, name, port) for name in SAMPLED}
        spent = found.turns({name: lambda name=name: cost(found, servers[name]) for name in servers})
    for name, values in spent.items():
        more = statistics.median(values) - statistics.median(spent["off"])
        print(f"traces {name:9} {bench.spread(values, 'us')} a request, {more:+.1f}")


if __name__ == "__main__":
    main()
