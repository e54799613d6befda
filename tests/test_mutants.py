"""The small faults by which the tests are measured."""

from __future__ import annotations

import ast

from benchmarks.mutation.mutants import code, mutants

SOURCE = '''
def first(n: int = 3, *, ready: bool = True) -> int | None:
    """A text with a 1 in it."""
    if n < 2 and not ready:
        return None
    é = max(n, -1) + 1  # a letter of two bytes
    return é if ready else n


class Reader(Protocol):
    def read(self, n: int = 3) -> int: ...


STEPS = {"a": lambda x: x * 2, "b": lambda x: zip(x, x, strict=True)}
'''


def test_each_mutant_is_one_change_at_one_place() -> None:
    found = mutants("a.py", SOURCE)
    assert [mutant.name.removeprefix("a.py:") for mutant in found] == [
        "first: 3 -> 4",
        "first: True -> False",
        "first: n < 2 and not ready -> (n < 2 or not ready)",
        "first: n < 2 -> (n <= 2)",
        "first: 2 -> 3",
        "first: not ready -> (ready)",
        "first: max(n, -1) + 1 -> (max(n, -1) - 1)",
        "first: max(n, -1) -> (min(n, -1))",
        "first: -1 -> (1)",
        "first: 1 -> 2",
        "first: 1 -> 2 #2",
        "first: return é if ready else n -> return None",
        "first: é if ready else n -> (é)",
        "first: é if ready else n -> (n)",
        ": x * 2 -> (x / 2)",
        ": 2 -> 3",
    ]
    assert {mutant.function for mutant in found} == {0, 2}
    for mutant in found:
        changed = mutant.applied(SOURCE)
        before, after = SOURCE.splitlines(), changed.splitlines()
        assert ast.parse(changed) and [index for index in range(len(before)) if before[index] != after[index]] == [
            mutant.line - 1
        ]


def test_comments_docstrings_and_layout_are_not_code() -> None:
    other = SOURCE.replace('    """A text with a 1 in it."""\n', "\n\n").replace("  # a letter of two bytes", "")
    assert code(other) == code(SOURCE) != code(SOURCE.replace("n < 2", "n < 3"))
    assert [mutant.name for mutant in mutants("a.py", other)] == [mutant.name for mutant in mutants("a.py", SOURCE)]
