"""Print and enforce the size budgets of the code: `python tools/budgets.py [--all]`.

Files: 250 lines, 400 at most. Functions: median 12 lines, 90 % within 40, 60 at most; 6 parameters, but for
the commands of the command line, whose parameters are its options; nesting 3; complexity 8, which ruff's C901
measures. Exit 1 where a hard budget is broken.
"""

import ast
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

FOLDERS = ("sonar", "sweeps")
FILE_LINES, FILE_LINES_HARD = 250, 400
FUNCTION_MEDIAN, FUNCTION_P90, FUNCTION_MAX = 12, 40, 60
PARAMETERS, NESTING = 6, 3
COMMANDS = "sonar/cli/"

BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


class Function(NamedTuple):
    """Sizes of one function; lines count its code without decorators and docstring."""

    where: str
    lines: int
    parameters: int
    nesting: int


def source_files(root: Path) -> list[Path]:
    """Python files of the measured folders that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *FOLDERS]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
    return sorted(root / name for name in set(names) if name.endswith(".py") and (root / name).exists())


def measure(path: Path, shown: str) -> Iterator[Function]:
    """Every function and method of a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{shown}:{node.lineno} {node.name}"
            parameters = 0 if shown.startswith(COMMANDS) else _parameters(node)
            yield Function(where, _lines(node), parameters, _nesting(node.body))


def complaints(functions: Sequence[Function], file_lines: dict[str, int]) -> tuple[list[str], list[str]]:
    """What breaks a hard budget, and what is above a soft one."""
    hard = [f"{name}: {n} lines, at most {FILE_LINES_HARD}" for name, n in file_lines.items() if n > FILE_LINES_HARD]
    soft = [
        f"{name}: {n} lines, better {FILE_LINES}" for name, n in file_lines.items() if FILE_LINES < n <= FILE_LINES_HARD
    ]
    lengths = [function.lines for function in functions]
    measured: list[tuple[str, str, float, int]] = [
        ("all functions", "lines in the median", median(lengths), FUNCTION_MEDIAN),
        ("all functions", "lines in nine of ten", p90(lengths), FUNCTION_P90),
    ]
    for function in functions:
        measured.append((function.where, "lines", function.lines, FUNCTION_MAX))
        measured.append((function.where, "parameters", function.parameters, PARAMETERS))
        measured.append((function.where, "levels of nesting", function.nesting, NESTING))
    hard += [f"{where}: {n:g} {what}, at most {limit}" for where, what, n, limit in measured if n > limit]
    return hard, soft


def median(lengths: Sequence[int]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(lengths) if lengths else 0.0


def p90(lengths: Sequence[int]) -> int:
    """The smallest length that at least 90 % of the functions keep within; 0 of nothing."""
    return sorted(lengths)[math.ceil(0.9 * len(lengths)) - 1] if lengths else 0


def main(arguments: Sequence[str]) -> int:
    """Print the budgets; 1 where a hard one is broken."""
    root = Path(__file__).resolve().parent.parent
    files = source_files(root)
    file_lines = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    functions = [one for path in files for one in measure(path, str(path.relative_to(root)))]
    hard, soft = complaints(functions, file_lines)
    lengths = [function.lines for function in functions]
    print(f"{len(files)} files, {sum(file_lines.values())} lines, longest {max(file_lines.values(), default=0)}")
    print(
        f"{len(functions)} functions: median {median(lengths):g} lines, p90 {p90(lengths)}, "
        f"longest {max(lengths, default=0)}"
    )
    if "--all" in arguments:
        for function in sorted(functions, key=lambda one: -one.lines)[:20]:
            print(f"  {function.lines:3d} {function.where}")
    for line in soft:
        print(f"warning: {line}")
    for line in hard:
        print(f"error: {line}")
    complexity = subprocess.run(
        ["ruff", "check", "--select", "C901", "--output-format", "concise", *map(str, files)], cwd=root
    )
    return 1 if hard or complexity.returncode else 0


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    documented = ast.get_docstring(node, clean=False) is not None
    text = node.body[0]
    docstring = (text.end_lineno or text.lineno) - text.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] == ["self"] or names[:1] == ["cls"])


def _nesting(body: Sequence[ast.stmt]) -> int:
    """How deep blocks lie in each other; an elif is no deeper than its if."""
    depths = [0]
    for statement in body:
        if isinstance(statement, BLOCKS):
            depths.append(max(_branch_depth(branch) for branch in _branches(statement)))
    return max(depths)


def _branches(block: ast.stmt) -> Iterator[tuple[ast.stmt, list[ast.stmt]]]:
    for name in ("body", "orelse", "finalbody"):
        yield block, getattr(block, name, [])
    for handler in (*getattr(block, "handlers", []), *getattr(block, "cases", [])):
        yield block, handler.body


def _branch_depth(branch: tuple[ast.stmt, list[ast.stmt]]) -> int:
    block, body = branch
    is_elif = isinstance(block, ast.If) and body is block.orelse and len(body) == 1 and isinstance(body[0], ast.If)
    return _nesting(body) if is_elif else 1 + _nesting(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
