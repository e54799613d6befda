"""Monte Carlo tree search: bounds, values and closed nodes, worked out by hand."""

from __future__ import annotations

from math import inf, log, sqrt

import pytest
from toy import ToyGenerator, done, solve, step, toy_search

from thinktime.core.errors import InputError
from thinktime.core.types import Node
from thinktime.strategies.search.mcts import MCTS, TreeNode


def line(length: int) -> list[TreeNode]:
    """A chain of nodes, the root first."""
    indices = [TreeNode(Node("0", (), None))]
    for key in range(1, length):
        indices.append(TreeNode(Node(str(key), (0,), None), indices[-1]))
        indices[-2].children.append(indices[-1])
    return indices


def test_the_bound_is_the_mean_value_plus_a_bonus_that_falls_with_visits() -> None:
    """Mean 3 / 4; the parent has 16 visits: 0.75 + 0.5 * sqrt(log(16) / 4)."""
    root, child = line(2)
    root.visits, child.visits, child.value = 16, 4, 3.0
    assert child.bound(0.5) == pytest.approx(0.75 + 0.5 * sqrt(log(16) / 4))
    assert child.bound(0) == 0.75
    root.visits, child.visits, child.value = 1, 1, 0.3
    assert child.bound(0.5) == 0.3


def test_the_root_and_unvisited_nodes_come_first() -> None:
    root, child = line(2)
    assert child.bound(0.5) == inf
    root.visits, root.value = 3, 1.0
    assert root.bound(0.5) == inf


def test_a_reward_is_backed_up_to_all_ancestors_and_zero_is_a_reward() -> None:
    root, child, leaf = line(3)
    leaf.learn(0.5)
    child.learn(0.0)
    leaf.learn(None)
    assert [(node.visits, node.value) for node in (root, child, leaf)] == [(2, 0.5), (2, 0.5), (1, 0.5)]


def test_a_node_is_closed_with_its_last_child() -> None:
    root, child, leaf = line(3)
    other = TreeNode(Node("other", (1,), None), child)
    child.children.append(other)
    leaf.close()
    assert [node.closed for node in (root, child, leaf)] == [False, False, True]
    other.close()
    assert [node.closed for node in (root, child)] == [True, True]


@pytest.mark.parametrize(("explore", "second"), [(0, (0,)), (0.3, (0,)), (0.5, (1,))])
def test_a_step_with_a_lower_mean_is_chosen_if_its_bonus_is_large_enough(
    explore: float, second: tuple[int, ...]
) -> None:
    """a has two rewards of mean .6, b one of .5: b is next if explore > .1 / (sqrt(log 3) - sqrt(log 3 / 2))."""
    tree = {"0": step("a"), "1": step("b"), "0/0": done("is 5")}
    tree |= {path: done("is 7") for path in ("0/1", "0/2", "1/0", "1/1")}
    generator = ToyGenerator(tree)
    solve(MCTS(n=2, width=2, batch=1, explore=explore), toy_search(generator, dict.fromkeys(tree, 0.6) | {"1": 0.5}))
    assert [batch[0].node.path for batch in generator.asked if batch[0].until == "step"] == [(), second]


def test_several_samples_at_temperature_zero_are_refused_before_the_first() -> None:
    generator = ToyGenerator({"0": done("is 7")})
    for strategy in (MCTS(n=2, width=1), MCTS(n=1, width=2)):
        with pytest.raises(InputError, match=r"^temperature=0: 2 samples would be the same"):
            solve(strategy, toy_search(generator, {"0": 0.5}, temperature=0))
    assert generator.asked == []
    assert solve(MCTS(n=1, width=1), toy_search(generator, {"0": 0.5}, temperature=0)).value == "7"
