"""The digest of a user's function: its code and what it uses of the project, comments aside."""

from __future__ import annotations

import ast
from pathlib import Path

from cumulant.core.errors import DefinitionError, UserCodeError
from cumulant.core.ids import digest, file_digest


def code_digest(file: Path, function: str, root: Path) -> str:
    """Digest of `function` in `file`: the top-level statements it can reach, and project modules they import.

    Raises:
        UserCodeError: the file is not valid Python.
    """
    tree = _parse(file)
    statements = [node for node in tree.body if not _is_text(node)]
    bound = [(_bound_names(node), node) for node in statements]
    reached: set[int] = {index for index, (names, _) in enumerate(bound) if not names or "*" in names}
    wanted = {function}
    for index in reached:
        wanted |= _used_names(bound[index][1])
    while True:
        fresh = {index for index, (names, _) in enumerate(bound) if index not in reached and names & wanted}
        if not fresh:
            break
        reached |= fresh
        for index in fresh:
            wanted |= _used_names(bound[index][1])
    chosen = [bound[index][1] for index in sorted(reached)]
    modules = {str(path.relative_to(root)): file_digest(path) for path in _project_modules(chosen, root, file)}
    return digest([function, [ast.unparse(_without_docstrings(node)) for node in chosen], modules])


def code_files(file: Path, root: Path) -> list[Path]:
    """A file of the project, and the project modules that it imports, directly or through others.

    Raises:
        UserCodeError: one of them is not valid Python.
    """
    return [file, *_project_modules([*_parse(file).body], root, file)]


def defined_names(file: Path) -> set[str]:
    return {name for node in _parse(file).body for name in _bound_names(node)}


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserCodeError(
            f"{file.name}, line {line}: not valid Python ({type(error).__name__})",
            subject=file.name,
            hint="fix the file",
        ) from error


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound_names(node: ast.stmt) -> set[str]:
    """Names that a top-level statement binds; none for a bare call."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(item.asname or item.name).split(".")[0] for item in node.names}
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            names.add(part.name)
        elif isinstance(part, ast.alias):
            names.add((part.asname or part.name).split(".")[0])
    return names


def _used_names(node: ast.stmt) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _without_docstrings(node: ast.stmt) -> ast.stmt:
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        if isinstance(body, list) and len(body) > 1 and isinstance(body[0], ast.stmt) and _is_text(body[0]):
            body.pop(0)
    return node


def _project_modules(nodes: list[ast.stmt], root: Path, file: Path) -> list[Path]:
    """Files of the project that the statements import, and those that these import."""
    files: dict[Path, None] = {}
    waiting: list[tuple[ast.stmt, Path]] = [(node, file) for node in nodes]
    while waiting:
        statement, importer = waiting.pop()
        for part in ast.walk(statement):
            for path in _imported_files(part, root, importer):
                if path not in files and path != file:
                    files[path] = None
                    waiting.extend((node, path) for node in _parse(path).body)
    return sorted(files)


def _imported_files(node: ast.AST, root: Path, importer: Path) -> list[Path]:
    """Files that an import in the file `importer` runs, those of the packages on the way included."""
    if isinstance(node, ast.Import):
        paths = [root.joinpath(*item.name.split(".")) for item in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = importer.parents[min(node.level, len(importer.parents)) - 1] if node.level else root
        module = base.joinpath(*(node.module or "").split("."))
        paths = [module, *(module / item.name for item in node.names)]
    else:
        return []
    packages = {
        folder for path in paths for folder in (path, *path.parents) if folder != root and folder.is_relative_to(root)
    }
    candidates = [path.with_suffix(".py") for path in paths if path.is_relative_to(root) and path != root]
    candidates += [package / "__init__.py" for package in sorted(packages)]
    return [path for path in candidates if path.is_file()]


def prepare_digest(reference: str | None, root: Path, *, role: str = "prepare") -> str | None:
    """The digest of the function's code, and of what it uses of the project, without importing it.

    Raises:
        DefinitionError: no such file.
        UserCodeError: the file is not valid Python.
    """
    if reference is None:
        return None
    return code_digest(file_of(reference, root, role), reference.rpartition(":")[2], root)


def file_of(reference: str, root: Path, role: str = "prepare") -> Path:
    """The file of `file.py:function`, relative to `root`.

    Raises:
        DefinitionError: no such file.
    """
    path = reference.rpartition(":")[0]
    file = (root / path).resolve()
    if not path or not file.is_file():
        raise DefinitionError(
            f"{role} {reference}: there is no file {path or reference}",
            subject=reference,
            hint="write file.py:function, relative to the project",
        )
    return file
