"""Loading of a user's `features.py`: the file is run, its values are named, and expressions become plain trees."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType

import msgspec

from cumulant.core.errors import CumulantError, DefinitionError, NotFoundError, UserCodeError
from cumulant.core.expr import Call, Column, Feature, Node
from cumulant.core.plan import Lookup, Window
from cumulant.core.system.user_code import next_step, python_message
from cumulant.core.system.user_modules import project_first
from cumulant.features.definition.definitions import Columns, SourceRef, Windowed
from cumulant.features.definition.expressions import Description, Expr, MeasureReference, OperatorCall
from cumulant.features.definition.source_location import SourceLine, definition_error

#: what a features file imports from this package
FUNCTIONS = ("coalesce", "col", "concat", "expression", "greatest", "least", "lit", "source", "when")


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One feature as defined, before its columns and types are checked against the sources.

    Exactly one of `expr`, `lookup` and `window` is set. `of`: the source of a column of the row.
    """

    name: str
    place: SourceLine
    expr: Node | None = None
    lookup: Lookup | None = None
    window: Window | None = None
    of: str | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()


class Definitions(msgspec.Struct, frozen=True):
    """What a `features.py` defines, in its order."""

    features: tuple[Definition, ...]


def load(path: Path) -> Definitions:
    """Run the user's file, from whose folder it can import, and collect the features of its public names.

    Raises:
        NotFoundError: there is no such file.
        DefinitionError: it is not Python, uses an undefined name, or has an unusable definition; names file and line.
        UserCodeError: it raised anything else; names file and line and carries the original as its cause.
    """
    return collect(vars(_run(path)))


def collect(names: Mapping[str, object]) -> Definitions:
    """Definitions from the named values of a module or a notebook.

    Raises:
        DefinitionError: two features have one name, or an expression cannot be used at its place.
    """
    lowering = _Lowering(names)
    definitions: dict[str, Definition] = {}
    for name, value in names.items():
        if name.startswith("_"):
            continue
        for definition in lowering.definitions(name, value):
            if definition.name.startswith("_"):
                raise definition_error(
                    f'a feature cannot be named "{definition.name}": a leading underscore marks parts of others',
                    place=definition.place,
                    hint=f'give it a name: {definition.name.strip("_") or "name"} = col("{definition.name}")',
                )
            earlier = definitions.get(definition.name)
            if earlier is not None:
                raise definition_error(
                    f'a feature named "{definition.name}" is already defined at {earlier.place}',
                    place=definition.place,
                    hint="give one of them another name, or leave the column out of .columns(...)",
                )
            definitions[definition.name] = definition
    return Definitions((*lowering.parts.values(), *definitions.values()))


def _run(path: Path) -> ModuleType:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no features file {path.name}", subject=str(path), hint="the key `features` names it"
        ) from None
    except OSError as error:
        raise DefinitionError(f"{path.name} cannot be read: {error.strerror}", subject=str(path)) from error
    code = _compile(text, path)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        with project_first(path.resolve().parent, {}):  # the next project may have others of the same name
            exec(code, vars(module))  # noqa: S102  (the user's own file is what this package runs)
    except CumulantError:
        raise
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise _user_error(error, path) from error
    return module


def _compile(text: bytes, path: Path) -> CodeType:
    try:
        return compile(text, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        place = SourceLine(str(path), error.lineno or 1)
        raise definition_error(f"this is not Python: {error.msg}", place=place) from error
    except ValueError as error:  # null bytes
        raise definition_error(f"this is not Python: {error}", place=SourceLine(str(path), 1)) from error


def _user_error(error: BaseException, path: Path) -> DefinitionError | UserCodeError:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = SourceLine(str(path), lines[-1] or 1 if lines else 1)
    kind: type[DefinitionError | UserCodeError] = DefinitionError if isinstance(error, NameError) else UserCodeError
    return kind(
        f"{place}: the features file raised {python_message(error)}",
        subject=str(place),
        hint=_import_line(error) or next_step(error) or _advice(error),
    )


def _import_line(error: BaseException) -> str | None:
    """The import that a name of this package lacks."""
    if isinstance(error, NameError) and error.name in FUNCTIONS:
        return f"add `from cumulant.features import {error.name}`"
    return None


def _advice(error: BaseException) -> str:
    if isinstance(error, AttributeError) and error.name and isinstance(error.obj, SourceRef):
        return f'a source has columns, by and as_of; a column of the row is written col("{error.name}")'
    return "correct that line; the file runs from top to bottom before any data are read"


class _Lowering:
    """Turns users' expressions into plain trees. `parts` collects the nameless and private windows they refer to."""

    def __init__(self, names: Mapping[str, object]) -> None:
        #: identity of a measure or expression -> the name it is bound to, public names first
        self._names: dict[object, str] = {}
        for name, value in sorted(names.items(), key=lambda item: item[0].startswith("_")):
            if isinstance(value, Expr | Columns):
                self._names.setdefault(value.identity, name)
        self.parts: dict[str, Definition] = {}
        self._feature = ""

    def definitions(self, name: str, value: object) -> Iterator[Definition]:
        self._feature = name
        if isinstance(value, Columns):
            yield from (self._column(value, column, column) for column in value.names)
        elif isinstance(value, Windowed):
            yield from (self._window(value, label, f"{name}_{label}") for label in value.spans.labels)
        elif isinstance(value, Expr):
            node = self.node(value, root=True)
            yield _with_description(Definition(name=name, place=value.place, expr=node), value.description)

    def node(self, value: Expr, *, root: bool = False, inside: str = "") -> Node:
        """The plain tree. Named features are referred to, except at the root and `inside` a window."""
        if not root and not inside and not isinstance(value, Windowed):
            name = self._names.get(value.identity, "_")
            if not name.startswith("_"):
                return Feature(name)
        part = value.part
        if isinstance(part, OperatorCall):
            arguments = tuple(self.node(argument, inside=inside) for argument in part.args)
            return Call(part.op, arguments, dict(part.options))
        if isinstance(part, MeasureReference):
            if inside:
                raise definition_error(
                    f"{inside}() reads past rows, which have raw columns only, no windows or lookups",
                    place=value.place,
                )
            return Feature(self._refer(part))
        return part

    def _refer(self, reference: MeasureReference) -> str:
        """The name of the feature referred to; a window or lookup without a public name becomes a part."""
        owner = reference.owner
        assert isinstance(owner, Columns | Windowed)
        bound = self._names.get(owner.identity)
        public = bound is not None and not bound.startswith("_")
        if isinstance(owner, Columns):
            name = reference.part if public else f"{bound or f'_{self._feature}'}_{reference.part}"
            definition = self._column(owner, reference.part, name)
        else:
            name = f"{bound}_{reference.part}" if bound else f"_{self._feature}_{reference.part}"
            definition = self._window(owner, reference.part, name)
        if public:
            return name
        return self._part(definition)

    def _part(self, definition: Definition) -> str:
        """The name under which `definition` is among the parts; equal ones are shared, others numbered."""
        base, number = definition.name, 1
        while True:
            known = self.parts.setdefault(definition.name, definition)
            if (known.lookup, known.window) == (definition.lookup, definition.window):
                return known.name
            number += 1
            definition = msgspec.structs.replace(definition, name=f"{base}_{number}")

    def _column(self, columns: Columns, column: str, name: str) -> Definition:
        definition = Definition(name=name, place=columns.place, expr=Column(column), of=columns.source)
        if columns.by is not None:
            lookup = Lookup(columns.source, columns.by, column, columns.within_us, columns.order)
            definition = Definition(name=name, place=columns.place, lookup=lookup)
        return _with_description(definition, columns.description)

    def _window(self, windowed: Windowed, label: str, name: str) -> Definition:
        span = windowed.spans.micros[windowed.spans.labels.index(label)]
        value = None if windowed.value is None else self.node(windowed.value, inside=windowed.agg)
        window = Window(windowed.source, windowed.by, windowed.agg, value, span, windowed.order)
        return _with_description(Definition(name=name, place=windowed.place, window=window), windowed.description)


def _with_description(definition: Definition, description: Description) -> Definition:
    return msgspec.structs.replace(
        definition, description=description.text, owner=description.owner, tags=description.tags
    )
