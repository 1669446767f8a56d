"""What watching costs: processor time a request with traces off, sampled at 0% and at 100%, and with the access log.

    python bench/serving/traces.py [--requests 4000] [--rounds 5]

One server a way on the same model, one connection; the ways take turns, so that what slows the machine slows all alike.
Processor time is that of the server's process with all its threads; the collector is this process and counts for none.
Prints the median of the rounds and its ratio to the server that nobody watches.
"""

import argparse
import socket
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import payloads
from processes import Server, free_port
from servables import Models

WAYS = {
    "off": ((), {}),
    "sampled 0%": (("--traces",), {"OTEL_TRACES_SAMPLER": "always_off"}),
    "sampled 100%": (("--traces",), {"OTEL_TRACES_SAMPLER": "always_on"}),
    "access log": (("--access-log",), {}),
}
#: seconds until the last spans were sent: twice the pause between batches
SENT = 11.0


class Collector(BaseHTTPRequestHandler):
    """Takes spans and forgets them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_): ...


def ask(wire, request):
    """One request, and its whole answer: the length of the first one is that of all."""
    wire.sendall(request)
    found = wire.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += wire.recv(65536)
    assert found.startswith(b"HTTP/1.1 200"), found[:200]


def cost(server, requests, count, settle):
    """Microseconds of processor time a request."""
    before = server.cpu()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(count):
            ask(wire, requests[number % len(requests)])
    time.sleep(settle)
    return (server.cpu() - before) / count * 1e6


def started(name, folder, work, url):
    options, env = WAYS[name]
    port = free_port()
    words = [sys.executable, "-m", "cumulant.serving", str(folder), "--http", f"127.0.0.1:{port}", "--cache", "off"]
    words += [*options, url] if "--traces" in options else options
    return Server(name, words, port=port, log=work / f"{port}.log", env=env)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = Models(work).light
        requests = payloads.read(payloads.write(work / "one.req", payloads.json_infer(payloads.rows_of(500, 1))))
        url = f"http://127.0.0.1:{collector.server_port}"
        servers = {name: started(name, folder, work, url) for name in WAYS}
        try:
            for server in servers.values():
                server.ready(requests[0])
                cost(server, requests, 500, 0)
            found = {name: [] for name in WAYS}
            for _ in range(options.rounds):
                for name, server in servers.items():
                    settle = SENT if name == "sampled 100%" else 0.5
                    found[name].append(cost(server, requests, options.requests, settle))
        finally:
            for server in servers.values():
                server.stop()
    collector.shutdown()
    base = statistics.median(found["off"])
    for name, values in found.items():
        middle = statistics.median(values)
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(
            f"{name:13} {middle:6.0f} µs of CPU a request ({spread}), {middle / base:5.2f} x, {middle - base:+5.0f} µs"
        )


if __name__ == "__main__":
    main()
