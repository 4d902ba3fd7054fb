"""The house rules that a reader relies on, enforced."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msa2net.config import known_keys
from paths import ROOT

SOURCE = ROOT / "src" / "msa2net"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

# A package may import from itself and from those further down. Equals stand on one line.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"benchmark"},
    {"training", "prediction"},
    {"report", "export"},
    {"evaluation"},
    {"inference"},
    {"quality"},
    {"models", "losses", "data"},
    {"metrics"},
    {"config"},
    {"files"},
    {"parsing", "locks", "renamed", "options"},
    {"errors"},
    {"text", "compat"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def package_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Every module that a file imports, at any depth of the file, as dotted names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(str(node.module))
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield every file of the package with its syntax tree."""
    for path in FILES:
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def test_imports_point_downwards():
    upward = []
    for path in FILES:
        own = package_of(path)
        if own == "__init__":  # the public face names everything
            continue
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != "msa2net" or len(parts) < 2:
                continue
            other = parts[1]
            assert other in LEVEL, f"{module} stands in no layer: give it a place in LAYERS"
            if other != own and LEVEL[other] <= LEVEL[own]:
                upward.append(f"{path.relative_to(SOURCE)} imports {module}")
    assert upward == []


def test_the_architecture_is_described():
    """Every room has its paragraph, from the top floor down, and every file named is there."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = re.findall(r"^\*\*`([a-z_]+)(?:/|\.py)`\*\*", text, re.MULTILINE)
    assert sorted(rooms) == sorted(LEVEL.keys() - {"__main__"})
    assert [LEVEL[name] for name in rooms] == sorted(LEVEL[name] for name in rooms)
    present = {package_of(path) for path in FILES} - {"__init__"}
    assert present == LEVEL.keys()
    named = set(re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.py)`", text))
    assert named
    gone = [name for name in named if not any((at / name).is_file() for at in (SOURCE, ROOT))]
    assert gone == []


def test_no_import_cycle_between_modules():
    graph = {}
    for path in FILES:
        name = "msa2net." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        graph[name.removesuffix(".__init__")] = imports(path)
    del graph["msa2net"]  # imports lazily, on behalf of users

    visiting: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in visiting, f"cycle: {' → '.join([*visiting, module])}"
        if module in done:
            return
        visiting.append(module)
        for other in graph[module]:
            if other in graph and other != module:
                visit(other)
        done.add(visiting.pop())

    for module in graph:
        visit(module)


def test_files_and_functions_stay_short():
    long = [
        f"{path.relative_to(SOURCE)} has {lines} lines"
        for path in FILES
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES
    ]
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}: {node.name} has {lines} lines")
    assert long == []


def test_every_configuration_field_is_read():
    read = set()
    for name, tree in trees():
        if name.startswith("config/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    unread = [key for key in known_keys() if key.rsplit(".", 1)[-1] not in read]
    assert unread == []


def test_only_the_command_line_prints_or_exits():
    for name, tree in trees():
        if name.startswith("cli/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "exit", "quit"}, name


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("msa2net", {"numpy", "torch", "pydantic"}),
        ("msa2net.cli", {"numpy", "torch", "pydantic", "lightning", "timm"}),
        ("msa2net.config", {"torch"}),
        ("msa2net.errors", {"numpy", "torch"}),
        ("msa2net.metrics", {"torch", "scipy"}),
        ("msa2net.inference.onnx_backend", {"torch", "timm", "lightning", "monai"}),
        ("msa2net.prediction.run", {"torch", "timm", "lightning", "monai"}),
    ],
)
def test_importing_is_light(module: str, forbidden: set[str]):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert forbidden & set(loaded) == set()
