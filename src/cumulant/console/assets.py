"""The static files: vendored ones as `static/static.lock.json` names them, and our own."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.flows.reports.svg_elements import style_sheet

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
}
_FOLDER = "static"
LOCK = "static.lock.json"
#: colours and classes of charts, which reports use too
CHARTS = "charts.css"


class VendoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of another project: where it comes from, and what it has to be."""

    file: str
    name: str
    version: str
    licence: str
    source: str
    sha256: str


class Asset(NamedTuple):
    """A static file; `digest` is part of its URL, so that browsers keep it for ever."""

    name: str
    content: bytes
    media_type: str
    digest: str

    @property
    def url(self) -> str:
        return f"/static/{self.digest}/{self.name}"


def vendored_files() -> list[VendoredFile]:
    """The lock of the vendored files."""
    content = files(__package__).joinpath(_FOLDER, LOCK).read_bytes()
    return msgspec.json.decode(content, type=list[VendoredFile])


def load_assets() -> dict[str, Asset]:
    """All static files by name.

    Raises:
        IntegrityError: a vendored file is not the one that the lock names.
    """
    assets = {}
    for entry in files(__package__).joinpath(_FOLDER).iterdir():
        kind = entry.name.rpartition(".")[2]
        if entry.is_file() and kind in _TYPES:
            assets[entry.name] = _asset(entry.name, entry.read_bytes())
    assets[CHARTS] = _asset(CHARTS, style_sheet(CHARTS).encode())
    for vendored in vendored_files():
        _check(vendored, assets)
    return assets


def _asset(name: str, content: bytes) -> Asset:
    return Asset(name, content, _TYPES[name.rpartition(".")[2]], hashlib.sha256(content).hexdigest()[:16])


def _check(vendored: VendoredFile, assets: dict[str, Asset]) -> None:
    asset = assets.get(vendored.file)
    if asset is None or hashlib.sha256(asset.content).hexdigest() != vendored.sha256:
        raise IntegrityError(
            f"the console's file {vendored.file} is not that of {vendored.name} {vendored.version}",
            subject=vendored.file,
            hint="install Cumulant again",
        )
