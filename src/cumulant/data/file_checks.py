"""What the files of a source show together: files that are skipped or gone, one number written in several ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cumulant.core.units import share
from cumulant.data.inputs import Input
from cumulant.data.judge import MISSING_FILES
from cumulant.data.listing import Listing, listed, names_of, pattern_of, shown
from cumulant.data.parts import PartFacts
from cumulant.data.snapshot import CheckResult, Snapshot, SourceFile
from cumulant.data.spec import SourceSpec


def skipped_warnings(listing: Listing, root: Path) -> list[str]:
    """A warning that names the files in no known format; none where there is none."""
    if not listing.skipped:
        return []
    count = len(listing.skipped)
    files = (
        "1 file is not read, for its name tells"
        if count == 1
        else f"{count:,} files are not read, for their names tell"
    )
    return [f"{files} no known format: {names_of(listing.skipped, root)}"]


@dataclass(frozen=True)
class GoneFiles:
    """Files of the last accepted snapshot that are gone; new files do not make up for `lost` of its `before` rows."""

    files: tuple[SourceFile, ...]
    lost: int
    before: int

    @property
    def text(self) -> str:
        count, rows = len(self.files), sum(file.rows for file in self.files)
        files = (
            "1 file of the last snapshot is gone" if count == 1 else f"{count:,} files of the last snapshot are gone"
        )
        return f"{files} ({rows:,} rows): {listed([file.url for file in self.files])}"

    def check(self, spec: SourceSpec) -> CheckResult:
        """The rule on the share of rows that may be lost so."""
        limit, lost = share(spec.missing_files), self.lost / self.before if self.before else 0.0
        return CheckResult(
            rule=MISSING_FILES,
            column=None,
            kind="table",
            failed=self.lost,
            share=lost,
            text=f"at most {limit:.4g} of the rows are lost with files ({self.lost:,} of {self.before:,}); {self.text}",
            passed=lost <= limit,
        )


def gone_files(
    previous: Snapshot, files: Sequence[Input], parts: Sequence[PartFacts], spec: SourceSpec, root: Path
) -> GoneFiles | None:
    """The files of `previous` that are gone, though the source's path still covers them; None where there is none.

    A file that was moved is not gone. Rows of new files make up for those that are gone, as where a folder holds the
    last thirty days.
    """
    before, present = {file.url for file in previous.files}, {file.url for file in files}
    pattern = shown(pattern_of(spec, source=previous.source, root=root), root)
    new = [(file.content, part.rows_in) for file, part in zip(files, parts, strict=True) if file.url not in before]
    places, rows = Counter(content for content, _ in new), sum(count for _, count in new)
    gone = []
    for file in previous.files:
        if file.url in present or not _covers(pattern, file.url):
            continue
        if places[file.content]:  # it was moved there
            places[file.content] -= 1
            rows -= file.rows
        else:
            gone.append(file)
    lost = max(0, sum(file.rows for file in gone) - rows)
    return GoneFiles(tuple(gone), lost, previous.rows_in) if gone else None


def _covers(pattern: str, url: str) -> bool:
    if url == pattern or url.startswith(f"{pattern.rstrip('/')}/"):
        return True
    return any(fnmatchcase(url, glob) for glob in (pattern, pattern.replace("**/", "")))  # `**` may be no folder


def copy_warnings(files: Sequence[Input], parts: Sequence[PartFacts]) -> list[str]:
    """A warning that names files with the content of another: one delivered twice, or a feed that stands still."""
    first: dict[str, str] = {}
    copies = []
    for file, part in zip(files, parts, strict=True):
        if part.rows_in and first.setdefault(file.content, file.url) != file.url:
            copies.append(f"{file.url} (of {first[file.content]})")
    if not copies:
        return []
    count = "1 file is a copy" if len(copies) == 1 else f"{len(copies):,} files are copies"
    return [f"{count} of another: {listed(copies)}; delete it if it was delivered twice"]


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
                f"{column} is written with leading zeros to {widest} digits in {listed(padded)} and not so in "
                f"{listed(others)}; both are read as one number, as declared: set type: str where they differ"
            )
    return warnings


def empty_path_warnings(spec: SourceSpec, parts: Sequence[PartFacts]) -> list[str]:
    """Declared paths at which no row has a value: a name on them may be misspelt."""
    filled = {column.name for part in parts for column in part.profile.columns if column.nulls < column.rows}
    return [
        f"{name} is null in every row: none has a value at {path}, the path under `columns`; look at its spelling"
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
