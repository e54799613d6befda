"""Makes small faults in Python sources, one at a time."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult},
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor"}


@dataclass(frozen=True)
class Mutant:
    """One fault: ``new`` replaces the text ``old`` at a line and a column (in bytes) of a file."""

    file: str
    line: int
    column: int
    old: str
    new: str
    function: int
    """The first line of the innermost function around it, including decorators; 0 outside functions."""
    within: str
    """Names of the classes and functions around it, joined by dots."""
    number: int = 0
    """The number of equal changes before it in the same function."""

    @property
    def name(self) -> str:
        """Location and change in one line. An edit elsewhere in the file does not change the name."""
        number = f" #{self.number + 1}" if self.number else ""
        return f"{self.file}:{self.within}: {' '.join(self.old.split())} -> {self.new}{number}"

    def applied(self, source: str) -> str:
        """The source with this fault."""
        lines = source.encode().splitlines(keepends=True)
        at = sum(map(len, lines[: self.line - 1])) + self.column
        whole = source.encode()
        return (whole[:at] + self.new.encode() + whole[at + len(self.old.encode()) :]).decode()


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a source. Strings, ``strict`` of ``zip``, protocols and code for type checkers are not changed."""
    found: list[Mutant] = []

    def visit(node: ast.AST, function: int, within: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = min(line.lineno for line in (node, *node.decorator_list))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            within = f"{within}.{node.name}" if within else node.name
        old = ast.get_source_segment(source, node) if isinstance(node, ast.expr | ast.stmt) else None
        if isinstance(node, ast.expr | ast.stmt) and old is not None:
            for new in _changed(node):
                found.append(Mutant(file, node.lineno, node.col_offset, old, new, function, within))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns") or (name == "body" and _no_code(node)) or _is_check(node):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, function, within)

    visit(ast.parse(source), 0, "")
    seen: Counter[str] = Counter()
    numbered = []
    for mutant in sorted(found, key=lambda mutant: (mutant.line, mutant.column)):
        numbered.append(replace(mutant, number=seen[mutant.name]))
        seen[mutant.name] += 1
    return numbered


def code(source: str) -> str:
    """The source without comments, docstrings and layout. Sources with the same code behave the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name, body in ast.iter_fields(node):
            if isinstance(body, list):
                texts = (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in body)
                setattr(node, name, [each for each, text in zip(body, texts, strict=True) if not text])
    return ast.unparse(tree)


def _is_check(node: ast.AST) -> bool:
    """Whether this is the ``strict`` of a ``zip``, which never raises here."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _no_code(node: ast.AST) -> bool:
    """Whether the body never runs: protocols, and code for type checkers."""
    if isinstance(node, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _changed(node: ast.expr | ast.stmt) -> Iterator[str]:
    """Texts that can replace a node."""

    def with_(change: Callable[[ast.AST], None]) -> str:
        other = copy(node)
        change(other)
        return f"({ast.unparse(other)})" if isinstance(node, ast.expr) else ast.unparse(other)

    match node:
        case ast.Compare(ops=[*ops]):
            for place, op in enumerate(ops):
                if type(op) in SWAPS:
                    swapped = [*ops[:place], SWAPS[type(op)](), *ops[place + 1 :]]
                    yield with_(lambda other, swapped=swapped: setattr(other, "ops", swapped))  # type: ignore[misc]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            yield with_(lambda other: setattr(other, "op", SWAPS[type(op)]()))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield str(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield with_(lambda other: setattr(other, "func", ast.Name(CALLS[name])))
        case ast.IfExp(body=body, orelse=orelse):
            yield f"({ast.unparse(body)})"
            yield f"({ast.unparse(orelse)})"
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "pass"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "return None"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"
