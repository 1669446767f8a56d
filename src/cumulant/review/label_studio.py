"""Cases as tasks of Label Studio, and its annotations as decisions.

A task is `{"data": {...}, "meta": {...}}`, an annotation `{"result": [{"from_name", "to_name", "type": "choices",
"value": {"choices": [...]}}]}` (number: `{"number": x}`): Label Studio's JSON format, as its pages "Import
pre-annotated data" and "Export annotations" describe it. `data.case` is the case's id.

Its server (1.23.2) needs every `$name` of the interface in each task, as text or number, and reads names up to the
first sign that is no ASCII letter, digit or `_`; keys and values are converted to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import DataError

#: names of the controls in the labelling interface
DECISION, CASE, NOTE = "decision", "case", "note"
#: what the reduced form (JSON-MIN) writes beside the fields of the task
_TAKEN = frozenset(
    {CASE, DECISION, NOTE, "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}
)


class ImportedAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation: its case, author and label; `problem`: why it cannot be used."""

    case: str
    reviewer: str
    label: object = None
    skipped: bool = False
    note: str = ""
    problem: str = ""


def choose_keys(names: Iterable[str]) -> dict[str, str]:
    """Under which key of a task each field goes: its own name, or the nearest that Label Studio can read."""
    keys: dict[str, str] = {}
    used = set(_TAKEN)
    for name in names:
        key = re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
        while key in used:
            key += "_"
        used.add(key)
        keys[name] = key
    return keys


def build_task(
    case: str,
    request: Mapping[str, object],
    *,
    classes: Sequence[object],
    meta: Mapping[str, object],
    fields: Mapping[str, str] | None = None,
    answer: object = None,
    score: float | None = None,
    version: str = "",
) -> dict[str, Any]:
    """One task; `fields` are the keys of all tasks. `answer`: the model's decision as a prediction; without, blind."""
    named = choose_keys(request) if fields is None else fields
    data = {CASE: case, **{key: _plain(request.get(name)) for name, key in named.items()}}
    task: dict[str, Any] = {"data": data, "meta": dict(meta)}
    if answer is not None:
        prediction: dict[str, Any] = {"result": [_result(answer, classes)], "model_version": version}
        task["predictions"] = [prediction if score is None else {**prediction, "score": score}]
    return task


def build_interface(fields: Mapping[str, str], classes: Sequence[object]) -> str:
    """The labelling interface (XML) of tasks whose fields have these keys."""
    from xml.sax.saxutils import quoteattr  # imports urllib.request, which takes 20 ms

    header = f'  <Header value="Case ${CASE}"/>'
    shown = [
        # A $ of the name would be read as the beginning of a key.
        f"  <Text name={quoteattr(f'field_{place}')} value={quoteattr(name.replace('$', '') + f': ${key}')}/>"
        for place, (name, key) in enumerate(fields.items())
    ]
    if classes:
        choices = "".join(f"<Choice value={quoteattr(class_text(name))}/>" for name in classes)
        control = f'  <Choices name="{DECISION}" toName="{CASE}" choice="single" required="true">{choices}</Choices>'
    else:
        control = f'  <Number name="{DECISION}" toName="{CASE}" required="true"/>'
    named = f'  <Text name="{CASE}" value="${CASE}"/>'
    note = f'  <TextArea name="{NOTE}" toName="{CASE}" maxSubmissions="1"/>'
    return "\n".join(["<View>", header, named, *shown, control, note, "</View>"]) + "\n"


def read_annotations(content: bytes, classes: Sequence[object], subject: str) -> list[ImportedAnnotation]:
    """The annotations of an export, also of its reduced form (JSON-MIN).

    Raises:
        DataError: it is no JSON list of tasks.
    """
    try:
        tasks = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        tasks = None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(
            f"{subject} is no export of Label Studio", subject=subject, hint="export as JSON: a list of tasks"
        )
    known = {class_text(name): name for name in classes}
    return [annotation for task in tasks for annotation in _annotations(task, known)]


def class_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _annotations(task: Mapping[str, Any], known: Mapping[str, object]) -> Iterator[ImportedAnnotation]:
    data = task.get("data")
    case = str((data if isinstance(data, dict) else task).get(CASE) or "")
    if not isinstance(data, dict) and DECISION in task:
        who = _author(task.get("annotator") or task.get("completed_by"))
        yield _annotation(case, who, _reduced_value(task[DECISION]), _note(task.get(NOTE)), known)
        return
    for annotation in _dicts(task.get("annotations")):
        who = _author(annotation.get("completed_by"))
        if annotation.get("was_cancelled"):
            yield ImportedAnnotation(case=case, reviewer=who, skipped=True)
            continue
        results = {part.get("from_name"): part.get("value") for part in _dicts(annotation.get("result"))}
        yield _annotation(case, who, _answer_value(results.get(DECISION)), _note(results.get(NOTE)), known)


def _annotation(case: str, who: str, answer: object, note: str, known: Mapping[str, object]) -> ImportedAnnotation:
    if not case:
        return ImportedAnnotation(case=case, reviewer=who, problem=f"a task has no data.{CASE}")
    if answer is None:
        return ImportedAnnotation(case=case, reviewer=who, problem=f'no answer in the control "{DECISION}"')
    if known and class_text(answer) not in known:
        return ImportedAnnotation(case=case, reviewer=who, problem=f'"{answer}" is none of {", ".join(known)}')
    return ImportedAnnotation(case=case, reviewer=who, label=known[class_text(answer)] if known else answer, note=note)


def _answer_value(value: object) -> object:
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    if isinstance(choices, list):
        return choices[0] if len(choices) == 1 else None
    number: object = value.get("number")
    return number


def _reduced_value(value: object) -> object:
    """An answer of the reduced form: a choice as its text, a number as `[{"number": x}]`."""
    if not isinstance(value, list):
        return None if isinstance(value, dict) else value
    return _answer_value(value[0]) if len(value) == 1 else None


def _note(value: object) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    return " ".join(map(str, text)) if isinstance(text, list) else str(text or "")


def _author(value: object) -> str:
    """A user's e-mail address or number, as the export names it."""
    if isinstance(value, dict):
        return str(value.get("email") or value.get("id") or "")
    return "" if value is None else str(value)


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _result(answer: object, classes: Sequence[object]) -> dict[str, Any]:
    kind, value = ("choices", {"choices": [class_text(answer)]}) if classes else ("number", {"number": answer})
    return {"from_name": DECISION, "to_name": CASE, "type": kind, "value": value}


def _plain(value: object) -> str | int | float:
    """As Label Studio shows it: a text or a number."""
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()
