"""Small real receivers that can misbehave: a web server and a mail server."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """Takes POSTs. `posts`: (path, headers, document) of what was taken."""

    def __init__(self, context=None):
        self.how, self.status, self.headers, self.disliked = "take", 500, {}, b"poison"
        self.posts, self.asked, self.ending = [], 0, threading.Event()
        self.drops, self.dried = 0, threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _handler(web):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                web.asked += 1
                getattr(self, web.how.replace(" ", "_"))(body)

            def do_GET(self):
                raise AssertionError("a redirect was followed")

            def take(self, body):
                headers = {name.lower(): value for name, value in self.headers.items()}
                web.posts.append((self.path, headers, json.loads(body)))
                self.say(200)

            def later(self, _):
                self.say(503)

            def refuse(self, _):
                self.say(403, "no such channel")

            def choose(self, body):
                if web.disliked in body:
                    return self.say(web.status, "not like this")
                return self.take(body)

            def answer(self, _):
                self.say(web.status)

            def hang(self, _):
                web.ending.wait()

            def hang_up(self, _):
                self.close_connection = True

            def trickle(self, _):
                with contextlib.suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    while not web.ending.wait(0.05):
                        self.wfile.write(b"x: y\r\n")
                self.close_connection = True

            def drop(self, _):
                with contextlib.suppress(OSError):
                    self.wfile.write(f"HTTP/1.1 {web.status} x\r\ncontent-length: 1000\r\n\r\n".encode())
                    while not web.ending.wait(0.05):
                        self.wfile.write(b"x")
                        web.drops += 1
                web.dried.set()
                self.close_connection = True

            def say(self, status, text="ok"):
                self.send_response(status)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        return Handler

    def gone(self):
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gone()


class Mailbox:
    """Takes mail. `mails`: (sender, addresses, message) of what was taken; `logins`: what was said to be let in."""

    def __init__(self, *, context=None, starttls=None, user="ada", password=""):
        self.how, self.mails, self.logins, self.rejected = "take", [], [], set()
        self.disliked, self.answer = b"", "554 not like this"
        self._context, self._starttls, self._user, self._password = context, starttls, user, password
        self.ending = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                one, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one):
        with contextlib.suppress(OSError, ValueError, AttributeError), one:
            if self._context is not None:
                one = self._context.wrap_socket(one, server_side=True)
            talk = _Talk(self, one)
            try:
                talk.run()
            finally:
                talk.close()

    def gone(self):
        self.ending.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gone()


class _Talk:
    """One connection, by RFC 5321: what a client needs, and nothing else."""

    def __init__(self, box, one):
        self.box, self.one, self.lines = box, one, one.makefile("rb")
        self.sender, self.to, self.encrypted, self.known = "", [], box._context is not None, False

    def say(self, text):
        self.one.sendall(text.encode() + b"\r\n")

    def close(self):
        self.lines.close()
        self.one.close()

    def run(self):
        box = self.box
        if box.how == "hang":
            box.ending.wait()
        elif box.how == "trickle":
            while not box.ending.wait(0.05):
                self.one.sendall(b"220-")
        elif box.how == "endless line":
            self.one.sendall(b"220-" + b"x" * 10_000)
        elif box.how != "hang up":
            self.say("220 here")
            while line := self.lines.readline():
                word, _, rest = line.decode().strip().partition(" ")
                if word.upper() == "QUIT":
                    return self.say("221 bye")
                getattr(self, word.lower(), lambda _: self.say("502 what?"))(rest)
        return None

    def ehlo(self, _):
        offers = ["STARTTLS"] if self.box._starttls and not self.encrypted else ["AUTH PLAIN", "8BITMIME"]
        for offer in ["here", *offers][:-1]:
            self.say(f"250-{offer}")
        self.say(f"250 {offers[-1]}")

    def starttls(self, _):
        self.say("220 go on")
        self.lines.close()
        self.one = self.box._starttls.wrap_socket(self.one, server_side=True)
        self.lines, self.encrypted = self.one.makefile("rb"), True

    def auth(self, rest):
        _, user, password = base64.b64decode(rest.split()[-1]).decode().split("\0")
        self.box.logins.append((user, password, self.encrypted))
        self.known = (user, password) == (self.box._user, self.box._password)
        self.say("235 come in" if self.known else f"535 not with {password}")

    def mail(self, rest):
        if self.box.how == "later":
            return self.say("451 not now")
        if self.box.how == "refuse" or not self.known:
            return self.say("550 never")
        self.sender = rest.partition(":")[2].strip("<> ").partition(">")[0]
        return self.say("250 fine")

    def rcpt(self, rest):
        address = rest.partition(":")[2].strip("<> ").partition(">")[0]
        if address in self.box.rejected:
            return self.say("550 nobody")
        self.to.append(address)
        return self.say("250 fine")

    def rset(self, _):
        self.to = []
        self.say("250 fine")

    def data(self, _):
        self.say("354 go on")
        found = b""
        while (line := self.lines.readline()) != b".\r\n":
            found += line[1:] if line.startswith(b"..") else line
        if self.box.disliked and self.box.disliked in found:
            return self.say(self.box.answer)
        self.box.mails.append((self.sender, self.to, message_from_bytes(found, policy=policy.default)))
        return self.say("250 taken")


def certificate(folder):
    """A certificate of its own authority for 127.0.0.1: (file, context of a server)."""
    made = f"{folder}/cert.pem", f"{folder}/key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {made[1]} -out {made[0]}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made)
    return made[0], context
