"""Take the pictures of the console in docs/images from a project that ran: `python tools/draw_console.py cumulant-demo`.

It needs the packages of `requirements/all.txt` and a Chromium, by default Debian's (`CHROMIUM` names another).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH, HEIGHT = 1280, 800


def main(folder: str) -> None:
    command = [sys.executable, "-m", "cumulant.cli", "api", "--project", folder, "--http", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, sync_playwright() as playwright:
        try:
            opened = read_document(process)
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC", locale="en-GB")
            page.goto(opened["login"])
            draw(page, opened["url"], opened["projects"][0])
            browser.close()
        finally:
            process.send_signal(signal.SIGTERM)


def draw(page: Page, url: str, project: str) -> None:
    base = f"{url}/projects/{quote(project, safe='')}"
    newest = page.request.get(f"{url}/v1/projects/{quote(project, safe='')}/releases?limit=1").json()["items"][0]["id"]
    pages = {"overview": url, "release": f"{base}/releases/{newest}", "monitoring": f"{base}/monitoring"}
    for name, address in pages.items():
        page.goto(address)
        page.wait_for_timeout(500)  # times are written in the viewer's zone by a script
        page.screenshot(path=IMAGES / f"console-{name}.png")


def read_document(process: subprocess.Popen[str]) -> dict:
    """The document that the command prints once it answers."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        try:
            document = json.loads(text)
        except json.JSONDecodeError:
            continue
        httpx.get(f"{document['url']}/v1/health/live").raise_for_status()
        return document
    raise SystemExit("cumulant api ended before it answered")


if __name__ == "__main__":
    main(sys.argv[1])
