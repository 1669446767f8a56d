"""What can be removed: tables and objects that no kept snapshot, model or recent run needs."""

from __future__ import annotations
