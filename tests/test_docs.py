"""The code blocks of docs/python.md run unchanged."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(block: str) -> dict[str, Any]:
    """Run a block; return the names that it defines."""
    page = sys.modules["page"] = ModuleType("page")  # a dataclass looks its module up
    exec(compile(block, str(PAGE), "exec"), vars(page))
    return vars(page)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "answer = " in block])
def test_a_block_runs_and_returns_an_answer(block: str) -> None:
    assert run(block)["answer"].value is not None


def test_many_questions_share_a_session() -> None:
    names = run(next(block for block in BLOCKS if "def ask" in block))
    question = (
        "Prices: stamps 17 coins, toys 15 coins. Ned buys 2 stamps. Ned buys 4 toys. How many coins does Ned pay?"
    )
    answers = asyncio.run(names["ask"]([question, question.replace("4", "5")]))
    assert [answer.usage.model_calls for answer in answers] == [4, 4]


def test_the_strategy_of_the_page_uses_two_models_an_environment_and_an_inner_search() -> None:
    block = next(block for block in BLOCKS if "class DraftFirst" in block)
    answer = run(block)["answer"]
    assert {role for _, role in answer.accounts} >= {"model draft", "model main", "environment sums"}
    assert {phase for phase, _ in answer.accounts} == {"drafts", "online"}
    strategy = block.partition("class DraftFirst")[2].partition("\n\n\n")[0]
    assert len([line for line in strategy.splitlines() if line.strip()]) <= 20
