"""The cost of a score by a judge that writes: its replies are charged as scores."""

from __future__ import annotations

from collections.abc import Sequence

from thinktime.core.usage import Usage, total


def as_score(replies: Sequence[Usage], most_read: int) -> Usage:
    """The cost of one score that was read from these replies: tokens that the judge read and wrote.

    Args:
        replies: the cost of each reply.
        most_read: the most tokens of one prompt; charged if the prompt of a reply was not counted.
    """
    spent = total(replies)
    read = [most_read if r.prompt_tokens is None else r.prompt_tokens + (r.cached_tokens or 0) for r in replies]
    return Usage(
        scorer_tokens=sum(read) + spent.generated_tokens,
        judge_tokens=spent.generated_tokens,
        scorer_calls=1,
        scorer_flops=spent.flops,
        seconds=spent.seconds,
        dollars=spent.dollars,
        uncounted_calls=spent.uncounted_calls,
    )
