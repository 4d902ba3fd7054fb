"""Count the package's lines of code and statements: `python benchmarks/code_size.py [FOLDER …]`.

A line counts where a token of code stands on it: docstrings, comments and blank lines do not. A
statement is what Python's own parser calls one, again without docstrings.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "msa2net"
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def docstrings(tree: ast.AST) -> list[ast.Expr]:
    """Return the docstrings of a module and of all classes and functions in it."""
    found = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append(body[0])
    return found


def count(source: str) -> tuple[int, int]:
    """Return the lines of code and the statements of a file."""
    tree = ast.parse(source)
    without = docstrings(tree)
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for docstring in without:
        lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - len(without)
    return len(lines), statements


def main() -> None:
    """Print both numbers for every folder, by room and in all."""
    for folder in map(Path, sys.argv[1:] or [PACKAGE]):
        by_room: dict[str, tuple[int, int, int]] = {}
        for path in sorted(folder.rglob("*.py")):
            counts = (1, *count(path.read_text(encoding="utf-8")))
            room = path.relative_to(folder).parts[0]
            for name in (room, "all"):
                old = by_room.get(name, (0, 0, 0))
                by_room[name] = tuple(map(sum, zip(old, counts, strict=True)))  # type: ignore[assignment]
        print(f"{folder}\n{'':24} files   lines  statements")
        for name, (files, lines, statements) in sorted(by_room.items(), key=lambda row: row[1][1]):
            print(f"{name:24} {files:5} {lines:7} {statements:11}")


if __name__ == "__main__":
    main()
