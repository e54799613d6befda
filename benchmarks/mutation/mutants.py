"""Small faults in Python sources, one at a time: what each is, where, and the source that has it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult},
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor"}


@dataclass(frozen=True)
class Mutant:
    """``new`` in place of the text ``old`` that begins at a line and a column, in bytes, of a file."""

    file: str
    line: int
    column: int
    old: str
    new: str
    function: int
    """The first line of the innermost function that it is in, decorators included; 0 outside of functions."""

    @property
    def name(self) -> str:
        """Place and change in one line."""
        return f"{self.file}:{self.line}:{self.column} {' '.join(self.old.split())} -> {self.new}"

    def applied(self, source: str) -> str:
        """The source with this fault."""
        lines = source.encode().splitlines(keepends=True)
        at = sum(map(len, lines[: self.line - 1])) + self.column
        whole = source.encode()
        return (whole[:at] + self.new.encode() + whole[at + len(self.old.encode()) :]).decode()


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a source; texts, the ``strict`` of a ``zip`` and what type checkers read are left alone."""
    found: list[Mutant] = []

    def visit(node: ast.AST, function: int) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = min(line.lineno for line in (node, *node.decorator_list))
        old = ast.get_source_segment(source, node) if isinstance(node, ast.expr | ast.stmt) else None
        if isinstance(node, ast.expr | ast.stmt) and old is not None:
            for new in _changed(node):
                found.append(Mutant(file, node.lineno, node.col_offset, old, new, function))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns") or (name == "body" and _for_types(node)) or _is_check(node):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, function)

    visit(ast.parse(source), 0)
    return sorted(found, key=lambda mutant: (mutant.line, mutant.column))


def _is_check(node: ast.AST) -> bool:
    """Whether this is the ``strict`` of a ``zip``, which never says no."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _changed(node: ast.expr | ast.stmt) -> Iterator[str]:
    """Texts that may stand in the place of a node."""

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
