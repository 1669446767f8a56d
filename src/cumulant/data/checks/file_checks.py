"""Checks across the files of a source: files that are skipped or gone, one number written in several ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cumulant.core.errors import join_names
from cumulant.data.checks.verdict import MISSING_FILES, UNREADABLE_FILES
from cumulant.data.files.inputs import SourceInput
from cumulant.data.files.listing import FileListing, display_path, names_of, pattern_of
from cumulant.data.files.unreadable_files import shorten_list
from cumulant.data.parts.part import PartFacts
from cumulant.data.policy import SourcePolicy
from cumulant.data.rules.severity import severity_of
from cumulant.data.snapshot import CheckResult, Snapshot, SourceFile, UnreadableFile
from cumulant.data.spec import SourceSpec


def skipped_warnings(listing: FileListing, root: Path) -> list[str]:
    """A warning that names the files in no known format; none where there is none."""
    if not listing.skipped:
        return []
    count = len(listing.skipped)
    files = (
        "1 file is not read, for its name has" if count == 1 else f"{count:,} files are not read, for their names have"
    )
    return [f"{files} no known format: {names_of(listing.skipped, root)}"]


@dataclass(frozen=True)
class GoneFiles:
    """Files of the last accepted snapshot that are gone or `unreadable`, or `shrunk` (with their present rows).

    New rows do not make up for `lost` of its `before` rows.
    """

    files: tuple[SourceFile, ...]
    shorter: tuple[tuple[SourceFile, int], ...]
    lost: int
    before: int
    unreadable: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        texts = []
        for what, gone in (
            ("gone", [file for file in self.files if file.url not in self.unreadable]),
            ("no longer readable", [file for file in self.files if file.url in self.unreadable]),
        ):
            if count := len(gone):
                are = "1 file of the last snapshot is" if count == 1 else f"{count:,} files of the last snapshot are"
                rows = sum(file.rows for file in gone)
                texts.append(f"{are} {what} ({rows:,} rows): {join_names([file.url for file in gone])}")
        if count := len(self.shorter):
            files = "1 file has" if count == 1 else f"{count:,} files have"
            named = join_names([f"{file.url} ({rows:,} of {file.rows:,})" for file, rows in self.shorter])
            texts.append(f"{files} fewer rows than in the last snapshot: {named}")
        return "; ".join(texts)

    def check(self, limit: float) -> CheckResult:
        """The rule on the share of rows that may be lost so: `limit`, a fraction."""
        lost = self.lost / self.before if self.before else 0.0
        return CheckResult(
            rule=MISSING_FILES,
            column=None,
            kind="table",
            failed=self.lost,
            share=lost,
            text=f"at most {limit:.4g} of the rows are lost with files ({self.lost:,} of {self.before:,}); {self.text}",
            passed=lost <= limit,
        )


def find_gone_files(
    previous: Snapshot,
    files: Sequence[SourceInput],
    parts: Sequence[PartFacts],
    spec: SourceSpec,
    *,
    root: Path,
    unreadable: Sequence[UnreadableFile] = (),
) -> GoneFiles | None:
    """The files of `previous` that are gone or `unreadable` though the path covers them, or shrank; None without one.

    A moved file is not gone. Rows of new files make up for those that are gone, as in a folder of the last thirty days.
    """
    now = {file.url: (file.content, part.rows_in) for file, part in zip(files, parts, strict=True)}
    before = {file.url for file in previous.files}
    pattern = display_path(pattern_of(spec, source=previous.source, root=root), root)
    new = [now[file.url] for file in files if file.url not in before]
    places, added = Counter(content for content, _ in new), sum(count for _, count in new)
    gone, shorter = [], []
    for file in previous.files:
        if file.url in now:
            content, rows = now[file.url]
            if content != file.content and rows < file.rows:
                shorter.append((file, rows))
            added += max(rows - file.rows, 0)
        elif not _covers(pattern, file.url):
            continue
        elif places[file.content]:  # it was moved there
            places[file.content] -= 1
            added -= file.rows
        else:
            gone.append(file)
    # A file that was fixed has no longer the rows that were refused.
    refused = sum(ref.rows for part in parts for ref in part.refused)
    added += max(previous.rows_quarantined - refused, 0)
    lost = sum(file.rows for file in gone) + sum(file.rows - rows for file, rows in shorter)
    unread = frozenset(file.url for file in unreadable)
    missing = GoneFiles(tuple(gone), tuple(shorter), max(0, lost - added), previous.rows_in, unread)
    return missing if gone or shorter else None


def _covers(pattern: str, url: str) -> bool:
    if url == pattern or url.startswith(f"{pattern.rstrip('/')}/"):
        return True
    return any(fnmatchcase(url, glob) for glob in (pattern, pattern.replace("**/", "")))  # `**` may be no folder


def copy_warnings(files: Sequence[SourceInput], parts: Sequence[PartFacts]) -> list[str]:
    """A warning that names files with the content of another: one delivered twice, or a stale feed."""
    first: dict[str, str] = {}
    copies = []
    for file, part in zip(files, parts, strict=True):
        if part.rows_in and first.setdefault(file.content, file.url) != file.url:
            copies.append(f"{file.url} (of {first[file.content]})")
    if not copies:
        return []
    count = "1 file is a copy" if len(copies) == 1 else f"{len(copies):,} files are copies"
    return [f"{count} of another: {join_names(copies)}; delete it if it was delivered twice"]


def padding_warnings(urls: Sequence[str], parts: Sequence[PartFacts]) -> list[str]:
    """Columns of numbers that some files write with leading zeros, and others without or with another width."""
    columns = {field.name for part in parts for field in part.fields if field.padded is not None}
    warnings = []
    for column in sorted(columns):
        widths = [_width(part, column) for part in parts]
        widest = max(width for width in widths if width is not None)
        padded = [url for url, width in zip(urls, widths, strict=True) if width == widest]
        others = [
            url
            for url, width, part in zip(urls, widths, parts, strict=True)
            if width != widest and _is_shorter(part, column, widest)
        ]
        if others:
            warnings.append(
                f"{column} is written with leading zeros to {widest} digits in {join_names(padded)} and not so in "
                f"{join_names(others)}; both are read as one number, as declared: set type: str where they differ"
            )
    return warnings


def empty_path_warnings(spec: SourceSpec, parts: Sequence[PartFacts]) -> list[str]:
    """Declared paths at which no row has a value: a name on them may be misspelt."""
    filled = {column.name for part in parts for column in part.profile.columns if column.nulls < column.rows}
    return [
        f"{name} is null in every row: none has a value at {path}, the path under `columns`; check its spelling"
        for name, path in spec.columns.items()
        if name not in filled
    ]


def _width(part: PartFacts, column: str) -> int | None:
    return next((field.padded for field in part.fields if field.name == column), None)


def _is_shorter(part: PartFacts, column: str, digits: int) -> bool:
    """Whether the part may hold a number of fewer digits; of a personal column no extremes are known."""
    if column not in part.profile or part.profile[column].nulls == part.profile.rows:
        return False
    low, high = part.profile[column].min, part.profile[column].max
    if low is None or high is None:
        return True
    least = 0 if low <= 0 <= high else min(abs(low), abs(high))
    return bool(least < 10 ** (digits - 1))


def list_warnings(previous: Snapshot | None) -> list[str]:
    """A warning where the list of the last snapshot's files was deleted, so that nothing is known of them."""
    if previous is None or not previous.file_lists or previous.files:
        return []
    text = (
        "the stored list of the last snapshot's files was deleted: all rows count as arriving now, which decides what "
        "of a repeated key came first, and files that were lost since cannot be named"
    )
    return [text]


def unreadable_check(unreadable: Sequence[UnreadableFile], files: int, policy: SourcePolicy) -> CheckResult:
    """The rule that each file can be read; `files` are those of the source."""
    count = "1 cannot" if len(unreadable) == 1 else f"{len(unreadable):,} cannot"
    named = "; ".join(shorten_list([file.reason for file in unreadable]))
    return CheckResult(
        rule=UNREADABLE_FILES,
        column=None,
        kind="table",
        failed=0,
        share=len(unreadable) / files,
        text=f"each of the {files:,} files can be read; {count}: {named}",
        passed=False,
        severity=severity_of(policy, UNREADABLE_FILES, None),
    )
