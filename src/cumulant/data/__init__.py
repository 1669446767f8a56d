"""Data: contracts, validation, quarantine, snapshots and profiles.

`ingest` turns a source's files into a `Snapshot`; `scan` reads one back, `quarantined` shows what was refused.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.data.added_rows import KeptRows, added_count, kept_rows, scan_added
    from cumulant.data.breach import SourceBreachError
    from cumulant.data.code import prepare_digest
    from cumulant.data.contract import in_force
    from cumulant.data.csv_text import Table
    from cumulant.data.events import facts_of
    from cumulant.data.file_checks import skipped_warnings
    from cumulant.data.file_lists import with_files, without_files
    from cumulant.data.given import as_fields, not_prepared, reading
    from cumulant.data.ingestion import ingest
    from cumulant.data.judge import told, warnings_of
    from cumulant.data.listed_file import ListedFile, listed_files
    from cumulant.data.listing import Listing, find, list_files, shown
    from cumulant.data.masking import mask, mask_frame
    from cumulant.data.nested_paths import columns_of, with_nested
    from cumulant.data.odcs import Contract, from_odcs, to_odcs
    from cumulant.data.partitions import with_folders
    from cumulant.data.profile import ColumnProfile, Profile
    from cumulant.data.proposal import Proposal, infer
    from cumulant.data.retention import expired, removable
    from cumulant.data.room import Room
    from cumulant.data.row_rules import request_rules, unchecked_rules
    from cumulant.data.shift import moved, shifts
    from cumulant.data.snapshot import (
        READING,
        CheckResult,
        SchemaChange,
        Shift,
        Snapshot,
        SourceFile,
        scan,
        scan_deletions,
        scan_versions,
        source_of,
    )
    from cumulant.data.sources import describe_malformed, read, read_any, refuse_malformed
    from cumulant.data.spec import EventTime, RuleSpec, SchemaPolicy, SourceSpec, TableRule
    from cumulant.data.streaming import Piece, Stream
    from cumulant.data.unreadable_files import each_readable, several_unreadable
    from cumulant.data.usage import declared_uses, referred_uses
    from cumulant.data.user_frames import to_polars
    from cumulant.data.views import personal_columns, preview, quarantined
    from cumulant.data.written_spec import declared

_HOMES = {
    "breach": ("SourceBreachError",),
    "contract": ("in_force",),
    "csv_text": ("Table",),
    "events": ("facts_of",),
    "file_checks": ("skipped_warnings",),
    "file_lists": ("with_files", "without_files"),
    "proposal": ("Proposal", "infer"),
    "given": ("as_fields", "not_prepared", "reading"),
    "ingestion": ("ingest",),
    "judge": ("told", "warnings_of"),
    "added_rows": ("KeptRows", "added_count", "kept_rows", "scan_added"),
    "listed_file": ("ListedFile", "listed_files"),
    "listing": ("Listing", "find", "list_files", "shown"),
    "masking": ("mask", "mask_frame"),
    "nested_paths": ("columns_of", "with_nested"),
    "odcs": ("Contract", "from_odcs", "to_odcs"),
    "profile": ("ColumnProfile", "Profile"),
    "partitions": ("with_folders",),
    "code": ("prepare_digest",),
    "retention": ("expired", "removable"),
    "room": ("Room",),
    "row_rules": ("request_rules", "unchecked_rules"),
    "shift": ("moved", "shifts"),
    "snapshot": (
        "READING",
        "CheckResult",
        "SchemaChange",
        "Shift",
        "Snapshot",
        "SourceFile",
        "scan",
        "scan_deletions",
        "scan_versions",
        "source_of",
    ),
    "sources": ("describe_malformed", "read", "read_any", "refuse_malformed"),
    "user_frames": ("to_polars",),
    "spec": ("EventTime", "RuleSpec", "SchemaPolicy", "SourceSpec", "TableRule"),
    "written_spec": ("declared",),
    "streaming": ("Piece", "Stream"),
    "unreadable_files": ("each_readable", "several_unreadable"),
    "usage": ("declared_uses", "referred_uses"),
    "views": ("personal_columns", "preview", "quarantined"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "READING",
    "CheckResult",
    "ColumnProfile",
    "Contract",
    "EventTime",
    "KeptRows",
    "ListedFile",
    "Listing",
    "Piece",
    "Profile",
    "Proposal",
    "Room",
    "RuleSpec",
    "SchemaChange",
    "SchemaPolicy",
    "Shift",
    "Snapshot",
    "SourceBreachError",
    "SourceFile",
    "SourceSpec",
    "Stream",
    "Table",
    "TableRule",
    "added_count",
    "as_fields",
    "columns_of",
    "declared",
    "declared_uses",
    "describe_malformed",
    "each_readable",
    "expired",
    "facts_of",
    "find",
    "from_odcs",
    "in_force",
    "infer",
    "ingest",
    "kept_rows",
    "list_files",
    "listed_files",
    "mask",
    "mask_frame",
    "moved",
    "not_prepared",
    "personal_columns",
    "prepare_digest",
    "preview",
    "quarantined",
    "read",
    "read_any",
    "reading",
    "referred_uses",
    "refuse_malformed",
    "removable",
    "request_rules",
    "scan",
    "scan_added",
    "scan_deletions",
    "scan_versions",
    "several_unreadable",
    "shifts",
    "shown",
    "skipped_warnings",
    "source_of",
    "to_odcs",
    "to_polars",
    "told",
    "unchecked_rules",
    "warnings_of",
    "with_files",
    "with_folders",
    "with_nested",
    "without_files",
]


def __getattr__(name: str) -> object:
    """Import a public name's module on first use: engines cost nothing until they are needed."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
