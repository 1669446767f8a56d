"""A real browser on a console that is served by a real server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_support import console_application

from cumulant.server.connections import server_of
from cumulant.server.serve import prepare_all_decoding

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: the file of the npm package axe-core, beside the other engines
AXE = os.environ.get("CUMULANT_AXE") or next(
    (str(path) for folder in os.get_exec_path() if (path := Path(folder) / "axe.min.js").is_file()), ""
)
NO_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
NO_AXE = pytest.mark.skipif(not Path(AXE).is_file(), reason="no axe-core: `tools/engines.sh` installs it")
_SECONDS = 20
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class ConsoleServer:
    """Serves the console of projects on a port of loopback; `stop` and `start` keep the port."""

    def __init__(self, *projects) -> None:
        self._projects = {project.name: project for project in projects}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        prepare_all_decoding()
        self._server = server_of(console_application(self._projects))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def served(*projects) -> Iterator[ConsoleServer]:
    server = ConsoleServer(*projects)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


class Tab:
    """A page of a browser of its own, which keeps what went wrong there."""

    def __init__(self, opened, url: str, **options) -> None:
        self._context = opened.new_context(base_url=url, **options)
        self._context.set_default_timeout(_SECONDS * 1000)
        self.page = self._context.new_page()
        self.page.add_init_script(_WATCH)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._on_console)
        self.page.on("dialog", self._on_dialog)

    def _on_console(self, message) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def _on_dialog(self, dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> None:
        self.page.goto(path)
        self.page.wait_for_load_state("load")

    def check(self) -> None:
        """Nothing went wrong: no violation of the policy, no error of a script, no dialog."""
        assert self.page.evaluate("window.violations") == []
        assert self.faults == []

    def serious_findings(self) -> list:
        """What axe-core finds that is serious or worse; it is added past the policy, as an extension is."""
        session = self._context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": Path(AXE).read_text("utf-8")})
        run = 'axe.run({resultTypes: ["violations"]}).then((result) => result.violations'
        run += '.filter((each) => ["serious", "critical"].includes(each.impact))'
        run += ".map((each) => `${each.id}: ${each.nodes[0].html}`))"
        answer = session.send("Runtime.evaluate", {"expression": run, "awaitPromise": True, "returnByValue": True})
        return answer["result"]["value"]

    def close(self) -> None:
        self._context.close()
