"""Cases as tasks of Label Studio, and its annotations as decisions.

A task is `{"data": {...}, "meta": {...}}`, an annotation `{"result": [{"from_name", "to_name", "type": "choices",
"value": {"choices": [...]}}]}` (number: `{"number": x}`): Label Studio's JSON format, as its pages "Import
pre-annotated data" and "Export annotations" describe it. The case's id stands in `data.case`, so that it comes back
with the export.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import msgspec

from cumulant.core.errors import DataError

#: names of the controls in the labelling interface
DECISION, CASE = "decision", "case"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation: which case, by whom, and what; `problem` says why it cannot be used."""

    case: str
    reviewer: str
    label: object = None
    skipped: bool = False
    note: str = ""
    problem: str = ""


def task(
    case: str, request: Mapping[str, object], *, classes: Sequence[object], meta: Mapping[str, object],
    answer: object = None, score: float | None = None, version: str = "",
) -> dict[str, Any]:  # fmt: skip
    """One task. With `answer`, the model's decision stands in it as a prediction; without, annotators are blind."""
    data = {CASE: case, **{name: value for name, value in request.items() if name != CASE}}
    found: dict[str, Any] = {"data": data, "meta": dict(meta)}
    if answer is not None:
        told: dict[str, Any] = {"result": [_result(answer, classes)], "model_version": version}
        found["predictions"] = [told if score is None else {**told, "score": score}]
    return found


def interface(fields: Sequence[str], classes: Sequence[object]) -> str:
    """The labelling interface (XML) of such tasks."""
    header = f'  <Header value="Case ${CASE}"/>'
    shown = [f'  <Text name={quoteattr(f"field_{place}")} value={quoteattr(f"{name}: ${name}")}/>' for place, name in
             enumerate(fields)]  # fmt: skip
    if classes:
        choices = "".join(f"<Choice value={quoteattr(told(one))}/>" for one in classes)
        control = f'  <Choices name="{DECISION}" toName="{CASE}" choice="single" required="true">{choices}</Choices>'
    else:
        control = f'  <Number name="{DECISION}" toName="{CASE}" required="true"/>'
    named = f'  <Text name="{CASE}" value="${CASE}"/>'
    note = f'  <TextArea name="note" toName="{CASE}" maxSubmissions="1"/>'
    return "\n".join(["<View>", header, named, *shown, control, note, "</View>"]) + "\n"


def read(content: bytes, classes: Sequence[object], subject: str) -> list[Given]:
    """The annotations of an export, also of its reduced form (JSON-MIN).

    Raises:
        DataError: it is no JSON list of tasks.
    """
    try:
        tasks = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        tasks = None
    if not isinstance(tasks, list) or not all(isinstance(one, dict) for one in tasks):
        raise DataError(
            f"{subject} is no export of Label Studio", subject=subject, hint="export as JSON: a list of tasks"
        )
    known = {told(one): one for one in classes}
    return [given for one in tasks for given in _annotations(one, known)]


def told(value: object) -> str:
    """A class as annotators see it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _annotations(one: Mapping[str, Any], known: Mapping[str, object]) -> Iterator[Given]:
    data = one.get("data")
    case = str((data if isinstance(data, dict) else one).get(CASE) or "")
    if not isinstance(data, dict) and DECISION in one:
        yield _given(case, str(one.get("annotator") or one.get("completed_by") or ""), one[DECISION], "", known)
        return
    for annotation in _dicts(one.get("annotations")):
        who = _author(annotation.get("completed_by"))
        if annotation.get("was_cancelled"):
            yield Given(case=case, reviewer=who, skipped=True)
            continue
        results = {part.get("from_name"): part.get("value") for part in _dicts(annotation.get("result"))}
        yield _given(case, who, _said(results.get(DECISION)), _note(results.get("note")), known)


def _given(case: str, who: str, said: object, note: str, known: Mapping[str, object]) -> Given:
    if not case:
        return Given(case=case, reviewer=who, problem=f"a task has no data.{CASE}")
    if said is None:
        return Given(case=case, reviewer=who, problem=f'no answer in the control "{DECISION}"')
    if known and told(said) not in known:
        return Given(case=case, reviewer=who, problem=f'"{said}" is none of {", ".join(known)}')
    return Given(case=case, reviewer=who, label=known[told(said)] if known else said, note=note)


def _said(value: object) -> object:
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    if isinstance(choices, list):
        return choices[0] if len(choices) == 1 else None
    number: object = value.get("number")
    return number


def _note(value: object) -> str:
    text = value.get("text") if isinstance(value, dict) else None
    return " ".join(map(str, text)) if isinstance(text, list) else str(text or "")


def _author(value: object) -> str:
    """A user's e-mail address or number, as the export names it."""
    if isinstance(value, dict):
        return str(value.get("email") or value.get("id") or "")
    return "" if value is None else str(value)


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _result(answer: object, classes: Sequence[object]) -> dict[str, Any]:
    kind, value = ("choices", {"choices": [told(answer)]}) if classes else ("number", {"number": answer})
    return {"from_name": DECISION, "to_name": CASE, "type": kind, "value": value}
