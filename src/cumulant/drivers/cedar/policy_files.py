"""Policies in the `.cedar` files of a folder: read, checked against the schema, and named by file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cedarpy

from cumulant.core.errors import UsageError
from cumulant.drivers.cedar.binding_policies import CedarPolicy
from cumulant.drivers.cedar.schema import schema_text

#: Cedar's parser is recursive and ends the process when the stack is used up: long or deep policies are refused before
MAX_POLICY, MAX_DEPTH = 8_192, 64
#: characters up to which a policy is read as JSON too, which is nested deeper than the text
_SHORT = 512
#: the largest file in bytes
MAX_FILE = 4 * 1024 * 1024
_TOKEN = re.compile(r"""//[^\n]*|"(?:\\.|[^"\\])*"|[;()\[\]{}]|\s+|[^\s;()\[\]{}"/]+|.""", re.DOTALL)
_POSITION = re.compile(r"for policy `policy\d+`, ")


class PolicyText(NamedTuple):
    """The text of one policy, and where it begins."""

    file: str
    line: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def read_policies(folder: Path) -> dict[str, CedarPolicy]:
    """The policies of a folder by their ids: the annotation `@id`, else file and line.

    Raises:
        UsageError: the folder has none, or some are faulty; the message has each fault with its file and line.
    """
    texts = [text for path in _files(folder) for text in _read(path)]
    policies: dict[str, CedarPolicy] = {}
    faults: list[str] = []
    for text in texts:
        fault = _shape_fault(text.text)
        try:
            policy = None if fault else _parse(text.text)
        except ValueError as error:
            fault, policy = str(error), None
        if policy is None:
            faults.append(f"{text.place}: {fault}")
            continue
        name = policy.scope.get("annotations", {}).get("id") or text.place
        if name in policies:
            faults.append(f'{text.place}: another policy has the @id "{name}" too')
        policies[name] = policy
    if not faults:
        faults = _schema_faults(texts)
    if faults:
        lines = "\n  ".join(faults)
        hint = "`cumulant access policies --schema` prints what policies can use: actions, roles, attributes"
        message = f"policies in {folder}: {lines}" if len(faults) == 1 else f"policies in {folder}:\n  {lines}"
        raise UsageError(message, subject=str(folder), hint=hint)
    return policies


def _files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".cedar")
    except OSError as error:
        raise UsageError(
            f"the folder of policies {folder} cannot be read: {error.strerror}",
            subject=str(folder),
            hint="`access: cedar://FOLDER` is relative to the project; cedar:// alone uses `access.bindings`",
        ) from None
    if not files:
        hint = "put policies into *.cedar there, or write cedar:// alone"
        raise UsageError(f"there are no .cedar files in {folder}", subject=str(folder), hint=hint)
    return files


def _read(path: Path) -> list[PolicyText]:
    if not path.is_file():
        raise UsageError(f"{path} is no file", subject=str(path), hint="rename it, or move it to another folder")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            raise UsageError(f"{path} is larger than {MAX_FILE:,} bytes", subject=str(path), hint="divide it")
        return split_policies(path.name, raw.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", subject=str(path)) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", subject=str(path)) from None


def split_policies(file: str, text: str) -> list[PolicyText]:
    """The policies of a file; each ends with a semicolon outside of text and comments."""
    policies: list[PolicyText] = []
    line, start, first = 1, None, 1
    for match in _TOKEN.finditer(text):
        part = match[0]
        if start is None and not part.isspace() and not part.startswith("//"):
            start, first = match.start(), line
        line += part.count("\n")
        if part == ";" and start is not None:
            policies.append(PolicyText(file, first, text[start : match.end()]))
            start = None
    if start is not None:
        policies.append(PolicyText(file, first, text[start:]))
    return policies


def _shape_fault(text: str) -> str | None:
    """Why Cedar's parser may not see the text of a policy."""
    if len(text) > MAX_POLICY:
        return f"a policy has at most {MAX_POLICY:,} characters, this one {len(text):,}"
    depth = 0
    for part in _TOKEN.findall(text):
        depth += (part in "([{") - (part in ")]}")
        if depth > MAX_DEPTH:
            return f"brackets are nested deeper than {MAX_DEPTH} levels"
    return None


def _parse(text: str) -> CedarPolicy:
    """One policy. Raises ValueError: it is not one."""
    whole = cedarpy.PolicySet.from_str(text)
    if whole.templates():
        raise ValueError("a template (?principal, ?resource) allows nothing by itself; write the principal or resource")
    heads = json.loads(cedarpy.policies_to_json_str(_head(text)))["staticPolicies"]
    if len(whole) != 1 or len(heads) != 1:
        raise ValueError("a policy was expected, which ends with a semicolon")
    scope = next(iter(heads.values()))
    if len(text) > _SHORT or "entity" not in scope["principal"]:
        return CedarPolicy(text, scope)
    return CedarPolicy(text, scope, *_template(text))


def _template(text: str) -> tuple[str, Mapping[str, str]]:
    """The template that a policy is a link of, so that equal policies for several groups are parsed once, and for whom
    it is; empty where the policy cannot be read as one.
    """
    try:
        whole = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        policy = next(iter(whole.values()))
        principal = policy["principal"]
        rest = {name: value for name, value in policy.items() if name != "annotations"}
        template = json.dumps(rest | {"principal": {"op": principal["op"], "slot": "?principal"}})
        document = f'{{"staticPolicies": {{}}, "templates": {{"template0": {template}}}, "templateLinks": []}}'
        cedarpy.PolicySet.from_json_str(document)
    except (ValueError, KeyError):
        return "", {}
    return template, principal["entity"]


def _head(text: str) -> str:
    """A policy without its conditions, whose JSON may be too deep to be read."""
    before, depth, scope = "", 0, False
    for match in _TOKEN.finditer(text):
        part = match[0]
        if part.isspace() or part.startswith("//"):
            continue
        scope |= depth == 0 and part == "(" and before in ("permit", "forbid")
        depth += (part in "([{") - (part in ")]}")
        if scope and depth == 0:
            return f"{text[: match.end()]};"
        before = f"@{part}" if before == "@" else part
    return text


def _schema_faults(texts: list[PolicyText]) -> list[str]:
    """What the schema does not have, each once, with the place of its policy."""
    result = cedarpy.validate_policies("\n".join(text.text for text in texts), schema_text())
    faults = []
    for error in result.errors:
        number = error.policy_id.removeprefix("policy")
        place = f"{texts[int(number)].place}: " if number.isdigit() and int(number) < len(texts) else ""
        faults.append(f"{place}{_POSITION.sub('', error.error)}")
    return list(dict.fromkeys(faults))
