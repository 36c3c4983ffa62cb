"""Who may import whom. Read from the source, so it holds for files that no test imports."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trio_gateway"

# A module imports its own level and those below, also for types only and inside functions.
# One that is missing here has no place yet: decide on it when it is written.
LEVELS: dict[int, set[str]] = {
    0: {"errors", "settings"},
    1: {"core"},
    2: {"groups", "interfaces", "timers", "workers"},
    3: {"broker", "metrics", "mqtt", "udp", "web"},
    # Backends are handlers, which is what users write: they stand on the session.
    4: {
        "backends",
        "handlers",
        "inbox",
        "live",
        "mcp",
        "playback",
        "reservations",
        "scaler",
        "session",
        "sessions",
        "tally",
        "uplink",
        "utterance",
    },
    5: {"gateway"},
    6: {
        "bench",
        "cli",
        "cli_flags",
        "configuration",
        "demo",
        "demo_summary",
        "last_resort",
        "logs",
        "own_process",
        "replay",
        "run",
        "secret_files",
        "settings_views",
        "simulator",
        "speech",
    }
    | {"", "__main__"},  # the public names, and the program
}
LEVEL_OF = {part: level for level, parts in LEVELS.items() for part in parts}

# Bytes, addresses and `now` come into core/ as arguments; it neither waits, asks nor tells.
IMPURE = {"asyncio", "logging", "random", "secrets", "select", "selectors", "socket", "structlog"}
IMPURE |= {"subprocess", "threading", "time", "trio", "trio_util"}

# They run inside isolated interpreters, where much of what is not the standard library fails to
# load or crashes.
INSIDE_WORKERS = {"trio_gateway.workers.loop", "trio_gateway.workers.codec"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str, *, types_too: bool) -> set[str]:
    """Return the modules that a source file imports, wherever in it."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in [*(node.body if types_too else []), *node.orelse]:
                visit(statement)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(ast.parse(source))
    return found


def imports_of(module: str, *, types_too: bool = True) -> set[str]:
    return imported(MODULES[module].read_text(encoding="utf-8"), types_too=types_too)


def own(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] == PACKAGE.name}


def part_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_every_module_has_a_level() -> None:
    assert {module for module in MODULES if part_of(module) not in LEVEL_OF} == set()


def test_imports_go_down() -> None:
    upwards = {
        f"{module} imports {target}"
        for module in MODULES
        for target in own(imports_of(module))
        if LEVEL_OF.get(part_of(target), 99) > LEVEL_OF.get(part_of(module), 99)
    }
    assert upwards == set()


def test_core_is_pure() -> None:
    impure = {
        f"{module} imports {target}"
        for module in MODULES
        if part_of(module) == "core"
        for target in imports_of(module)
        if target.split(".")[0] in IMPURE
    }
    assert impure == set()


def test_there_are_no_cycles() -> None:
    # For types only, two classes may know each other; loading them may not go in circles.
    graph = {module: own(imports_of(module, types_too=False)) for module in MODULES}
    TopologicalSorter(graph).prepare()  # CycleError names the modules


@pytest.mark.parametrize("module", sorted(INSIDE_WORKERS))
def test_what_runs_inside_workers_is_standard_library_only(module: str) -> None:
    foreign: set[str] = set()
    seen: set[str] = set()
    todo = {module}
    while todo:
        # Importing a module runs the packages above it, too.
        todo |= {each.rpartition(".")[0] for each in todo} - {""}
        seen |= todo
        targets = {each for one in todo for each in imports_of(one, types_too=False)}
        foreign |= {each for each in targets - own(targets) if not is_standard(each)}
        todo = own(targets) - seen
    assert foreign == set()


def is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def test_the_package_itself_loads_nothing() -> None:
    targets = imports_of("trio_gateway", types_too=False)
    assert {each for each in targets if not is_standard(each)} == set()


def test_the_reader_sees_every_kind_of_import() -> None:
    source = """
import a.b as c, d
from trio_gateway import errors, __version__
from trio_gateway.core import packet
from trio_gateway.core.packet import header
if TYPE_CHECKING:
    import only.for_types
else:
    import otherwise
try:
    import tried
except ImportError:
    def late():
        import inside
"""
    seen = {
        "a.b",
        "d",
        "trio_gateway",
        "trio_gateway.errors",
        "trio_gateway.core.packet",
        "otherwise",
        "tried",
        "inside",
    }
    assert imported(source, types_too=False) == seen
    assert imported(source, types_too=True) == {*seen, "only.for_types"}
    assert len(MODULES) > 40
