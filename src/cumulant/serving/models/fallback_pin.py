"""Pin of the fallback's servable at the start of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec

from cumulant.servable.folder import load_description
from cumulant.serving.models.artifact_cache import artifact_folder
from cumulant.serving.models.content_pins import copy_content, pin
from cumulant.serving.settings import Settings
from cumulant.serving.workers.sockets import can_share_port


@contextmanager
def pin_fallback(settings: Settings) -> Iterator[Settings]:
    """The settings with the fallback's content pinned, and kept in a place of the server's own until the block ends.

    It is opened again for every model that is loaded and by every worker that starts: all get the same content. Where
    no copy can be kept, the folder is read, as long as it holds that content.

    Raises:
        NotFoundError, IntegrityError: its folder holds no servable, or a damaged one.
    """
    if settings.fallback.servable is None:
        yield settings
        return
    folder = Path(settings.fallback.servable)
    load_description(folder)
    pinned = pin(folder)
    # Windows has no locks by which a later server could tell what is left of one that was killed.
    with artifact_folder() if can_share_port() else nullcontext() as place:
        copied = pinned if place is None else copy_content(pinned, Path(place))
        yield msgspec.structs.replace(settings, fallback_pin=copied)
