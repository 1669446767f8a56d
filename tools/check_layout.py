"""Names and layout are checked like code: names that say what they hold, small folders and modules, no import circles."""

from __future__ import annotations

import ast
import gc
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
LINES, MODULES = 400, 20

#: names of results that do not say what they hold
FORBIDDEN = frozenset({"asked", "found", "held", "kept", "left", "made", "one", "said", "told"})
#: public classes of one name in several modules, each with the reason
SHARED_NAMES: Mapping[str, str] = {
    "Project": "the loaded project, and the notebook's object around it",
}


def main() -> int:
    gc.disable()  # the trees are no garbage, and looking at all of their nodes again and again takes most of the time
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    faults = [*shared_class_names(trees), *forbidden_names(trees), *large_modules(trees), *large_folders(trees)]
    faults += [*private_imports(trees), *import_circles()]
    print("\n".join(faults) or "layout: ok")
    return 1 if faults else 0


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def shared_class_names(trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    defined = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name].append(place(path))
    for name, paths in sorted(defined.items()):
        if len(paths) > 1 and name not in SHARED_NAMES:
            yield f"class {name} stands in {', '.join(paths)}: give each the name of what it is"


def forbidden_names(trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            name = _assigned(node)
            if name in FORBIDDEN:
                line = getattr(node, "lineno", 0)
                yield f'{place(path)}:{line}: "{name}" does not say what it holds'


def _assigned(node: ast.AST) -> str | None:
    """The name that `node` gives to a value."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=name):
            return name
        case ast.MatchAs(name=name) | ast.MatchStar(name=name):
            return name
        case _:
            return None


def large_modules(trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    for path in trees:
        lines = path.read_text("utf-8").count("\n")
        if lines > LINES:
            yield f"{place(path)}: {lines} lines, {LINES} are allowed"


def large_folders(paths: Iterable[Path]) -> Iterator[str]:
    modules = Counter(path.parent for path in paths if path.name not in {"__init__.py", "__main__.py"})
    for folder, number in modules.items():
        if number > MODULES:
            yield f"{place(folder)}: {number} modules, {MODULES} are allowed"


def private_imports(trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cumulant"):
                for alias in node.names:
                    if alias.name.startswith("_") and alias.name != "__version__":
                        yield f"{place(path)}:{node.lineno}: {alias.name} is private to {node.module}"


def import_circles() -> Iterator[str]:
    graph = grimp.build_graph("cumulant", exclude_type_checking_imports=False, cache_dir=None)
    try:
        TopologicalSorter(
            {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        ).prepare()
    except CycleError as error:
        yield f"import circle: {' <- '.join(error.args[1])}"


if __name__ == "__main__":
    sys.exit(main())
