"""Ask one question within a budget, and see who spent what.

python examples/ask.py
python examples/ask.py "How many primes are below 30? End with: The answer is N." --model ~/models/Qwen3-0.6B
"""

from __future__ import annotations

import argparse

import thinktime

QUESTION = "Ann has 5 books. Ann buys 3 books. How many books does Ann have now?"


def main() -> None:
    """Ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--strategy", default="majority:n=8")
    parser.add_argument("--budget", default="2000tok")
    given = parser.parse_args()

    answer = thinktime.solve(given.question, model=given.model, strategy=given.strategy, budget=given.budget)
    print(f"{answer.value}  ({answer.finish})")
    for (phase, role), usage in answer.accounts.items():
        print(f"{phase}, {role}: {usage.generated_tokens} tokens in {usage.model_calls} calls")


if __name__ == "__main__":
    main()
