"""Configuration of the fallback."""

from __future__ import annotations

from typing import Any

import msgspec


class FallbackConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fallback of a server's models, tried in this order; every answer of one says which it was."""

    #: the model's own answer to the same input, however old
    cached: bool = False
    #: folder of a cheaper servable with the same inputs and outputs
    servable: str | None = None
    #: outputs by name: the same for every row
    constant: dict[str, Any] | None = None

    @property
    def is_declared(self) -> bool:
        return self.cached or self.servable is not None or self.constant is not None
