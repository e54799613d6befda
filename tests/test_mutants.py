"""The small faults that tests are measured by."""

from __future__ import annotations

import ast

from benchmarks.mutation.mutants import mutants

SOURCE = '''
def first(n: int = 3, *, ready: bool = True) -> int | None:
    """A text with a 1 in it."""
    if n < 2 and not ready:
        return None
    é = max(n, -1) + 1  # a letter of two bytes
    return é if ready else n


STEPS = {"a": lambda x: x * 2, "b": lambda x: zip(x, x, strict=True)}
'''


def test_each_mutant_is_one_change_at_one_place() -> None:
    found = mutants("a.py", SOURCE)
    assert [mutant.name.removeprefix("a.py:") for mutant in found] == [
        "2:19 3 -> 4",
        "2:39 True -> False",
        "4:7 n < 2 and not ready -> (n < 2 or not ready)",
        "4:7 n < 2 -> (n <= 2)",
        "4:11 2 -> 3",
        "4:17 not ready -> (ready)",
        "6:9 max(n, -1) + 1 -> (max(n, -1) - 1)",
        "6:9 max(n, -1) -> (min(n, -1))",
        "6:16 -1 -> (1)",
        "6:17 1 -> 2",
        "6:22 1 -> 2",
        "7:4 return é if ready else n -> return None",
        "7:11 é if ready else n -> (é)",
        "7:11 é if ready else n -> (n)",
        "10:24 x * 2 -> (x / 2)",
        "10:28 2 -> 3",
    ]
    assert {mutant.function for mutant in found} == {0, 2}
    for mutant in found:
        changed = mutant.applied(SOURCE)
        before, after = SOURCE.splitlines(), changed.splitlines()
        assert ast.parse(changed) and [place for place in range(len(before)) if before[place] != after[place]] == [
            mutant.line - 1
        ]
