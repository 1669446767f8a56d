"""Temporary folder with copies of the served content, also of the fallback's; abandoned folders are removed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import msgspec

from cumulant.core.system.temporary_folders import in_use, remove_abandoned
from cumulant.servable.folder import load_description
from cumulant.serving.content_pins import copy_content, pin
from cumulant.serving.settings import Settings
from cumulant.serving.sockets import can_share_port

_PREFIX = "cumulant-kept-"


@contextmanager
def artifact_folder() -> Iterator[str | None]:
    """Folder that exists until the block ends; None where no temporary folder can be written."""
    with ExitStack() as stack:
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(in_use(folder))
        except OSError as error:
            reason = error.strerror or error
            sys.stderr.write(
                f"what is served cannot be copied: {reason}; do not change its folders while they are served\n"
            )
            yield None
            return
        remove_abandoned(folder.parent.glob(f"{_PREFIX}*"))
        yield str(folder)


@contextmanager
def pin_fallback(settings: Settings) -> Iterator[Settings]:
    """The settings with the fallback's content pinned, and copied to a folder of the server's own until the block ends.

    It is opened again for every model that is loaded and by every worker that starts: all get the same content. Where
    no copy can be made, the folder is read, as long as it holds that content.

    Raises:
        NotFoundError, IntegrityError: its folder holds no servable, or a damaged one.
    """
    if settings.fallback.servable is None:
        yield settings
        return
    folder = Path(settings.fallback.servable)
    load_description(folder)
    pinned = pin(folder)
    # Windows has no locks by which a later server could recognize the remains of a killed one.
    with artifact_folder() if can_share_port() else nullcontext() as place:
        copied = pinned if place is None else copy_content(pinned, Path(place))
        yield msgspec.structs.replace(settings, fallback_pin=copied)
