"""Files of one source whose columns differ: which, in what, and how the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulant.core.errors import DataError, DefinitionError, join_names
from cumulant.core.plan import DType
from cumulant.data.files.inputs import SourceInput
from cumulant.data.parts.part import PartContext, PartFacts, PartField
from cumulant.data.parts.row_sorting import sort_rows
from cumulant.data.rules.row_checks import check_columns
from cumulant.data.schema import common_type

#: of the files of a source that does not fit its declaration, those that are read to compare them
_COMPARED_FILES, _COMPARED_BYTES = 100, 64 << 20


def difference_warnings(urls: Sequence[str], parts: Sequence[PartFacts]) -> list[str]:
    """How the columns of some files (`parts` as read) differ from those of most: missing, additional, or text."""
    files = {url: {field.name: field for field in part.fields} for url, part in zip(urls, parts, strict=True)}
    files = {url: fields for url, fields in files.items() if fields}  # of a file without rows nothing is known
    names = list(dict.fromkeys(name for fields in files.values() for name in fields))
    present: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        present.setdefault(tuple(url for url, fields in files.items() if name in fields), []).append(name)
    warnings = [
        text for having, columns in present.items() if (text := _presence_difference(list(files), having, columns))
    ]
    return warnings + [text for name in names if (text := _text_in(name, files)) is not None]


def _presence_difference(files: Sequence[str], having: Sequence[str], columns: Sequence[str]) -> str | None:
    lacking = [url for url in files if url not in set(having)]
    if not lacking:
        return None
    what = f"{_quote_columns(columns)} {'is' if len(columns) == 1 else 'are'}"
    does = "do" if len(lacking) > 1 else "does"
    if len(lacking) <= len(having):
        text = f"{what} missing in {join_names(lacking)}; {_others(len(having))} {_have(len(having))}"
        what_next = f"write {_again(lacking)} again with it, if that is not meant"
    else:
        text = f"{what} only in {join_names(having)}; {_others(len(lacking))} {does} not have it"
        what_next = "remove it, or write the others again with it, if that is not meant"
    return f"{text} (their values are null there): {what_next}"


def _text_in(name: str, files: Mapping[str, Mapping[str, PartField]]) -> str | None:
    """Text in few files of a column that holds something else in most: all are read as text then."""
    fields = {url: columns[name] for url, columns in files.items() if name in columns and not columns[name].empty}
    texts = [url for url, field in fields.items() if field.dtype == "str"]
    others: list[DType] = [field.dtype for field in fields.values() if field.dtype != "str"]
    if not texts or not others or len(texts) > len(others):  # a code that is all digits in a few files is no fault
        return None
    kind, count = common_type(others), len(others)
    return (
        f'column "{name}" is text in {join_names(texts)} and {kind} in {_others(count)}, so that all are read as text: '
        f"fix the values, or set rules: {{{name}: {{type: {kind}}}}}, which refuses the rows that hold text"
    )


def add_file_names(
    error: DataError | DefinitionError, inputs: Sequence[SourceInput], context: PartContext, *, known: str | None = None
) -> DataError | DefinitionError:
    """`error` of one file that does not fit the declaration, with all such files and what the others hold.

    Some files are read again; of many or large ones only the first. `known`: a file that raised it.
    """
    column = error.subject
    failing: list[str] = [] if known is None or isinstance(error, DefinitionError) else [known]
    fitting: dict[str, str] = {}
    for item in _files_to_compare(inputs):
        try:
            rows = context.apply_prepare(item.rows(()).rows)
            check_columns(context.spec, rows.columns, source=context.source, url=item.url)
            plan = sort_rows(rows, context).plan
        except (DataError, DefinitionError) as other:
            if other.subject == column and item.url not in failing:
                failing.append(item.url)
            continue
        fitting[item.url] = next((cast.dtype for cast in plan.casts if cast.name == column), "missing")
    if not failing or len(inputs) == 1:
        return error
    message, hint = _in_files(error.message, failing, len(inputs)), error.hint
    if fitting:
        message += f"; {_kinds(list(fitting.values()), known='has no column' in error.message)}"
        if len(failing) <= len(fitting):
            hint = f"write {_again(failing)} again like the others; or, if it is right as it is: {hint}"
    return type(error)(message, subject=column, hint=hint)


def _files_to_compare(inputs: Sequence[SourceInput]) -> Sequence[SourceInput]:
    size, few = 0, []
    for item in inputs[:_COMPARED_FILES]:
        if size + item.bytes <= _COMPARED_BYTES:
            size += item.bytes
            few.append(item)
    return few


def _in_files(message: str, failing: Sequence[str], count: int) -> str:
    if any(url in message for url in failing):
        more = [url for url in failing if url not in message]
        return f"{message} (nor has {join_names(more)})" if more else message
    return f"{message}, in {'all files' if len(failing) == count else join_names(failing)}"


def _kinds(types: Sequence[str], *, known: bool) -> str:
    if known:
        return f"{_others(len(types))} {_have(len(types))}"
    counts = {kind: types.count(kind) for kind in dict.fromkeys(types)}
    return "; ".join(
        f"it is {'missing' if kind == 'missing' else f'of type {kind}'} in {_others(count)}"
        for kind, count in counts.items()
    )


def _quote_columns(columns: Sequence[str]) -> str:
    quoted = join_names([f'"{name}"' for name in columns])
    return f"column {quoted}" if len(columns) == 1 else f"columns {quoted}"


def _others(count: int) -> str:
    return "the other file" if count == 1 else f"the {count:,} other files"


def _have(count: int) -> str:
    return "has it" if count == 1 else "have it"


def _again(files: Sequence[str]) -> str:
    return "the file" if len(files) == 1 else "these files"
