"""Names of the keys that hold the online state of one scope.

All begin with `{TENANT/PROJECT/...}`. What stands in braces decides the slot of a cluster, so that the state of a scope
lies on one node: its tables are changed in one transaction.
"""

from __future__ import annotations

from cumulant.core.scope import Scope


class OnlineKeys:
    """The keys of one scope."""

    def __init__(self, scope: Scope | None) -> None:
        self._prefix = b"{%s}/online/" % (scope or Scope()).prefix.rstrip("/").encode()
        #: table by generation, also of those that are being loaded; meta by table; the number of the last generation
        self.generations = self._prefix + b"generations"
        self.meta = self._prefix + b"meta"
        self.number = self._prefix + b"number"
        #: another value after each change, and what writers hold one after the other
        self.epoch = self._prefix + b"epoch"
        self.lock = self._prefix + b"lock"

    def pointer(self, table: str) -> bytes:
        """Holds the generation that readers of the table see."""
        return self._prefix + b"table/" + table.encode()

    def row(self, generation: bytes, key: bytes) -> bytes:
        return self.rows(generation) + key

    def rows(self, generation: bytes) -> bytes:
        """How the keys of all rows of a generation begin."""
        return b"%srows/%s/" % (self._prefix, generation)

    def index(self, generation: bytes) -> bytes:
        """Holds the keys of a generation, so that it is deleted without a scan of the whole store."""
        return self._prefix + b"keys/" + generation
