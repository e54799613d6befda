"""``thinktime ask``: one question, one better answer, its cost, and the tree behind it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import (
    Aggregate,
    BudgetText,
    Dtype,
    Engine,
    Environments,
    Json,
    MaxTokens,
    Model,
    ModelNames,
    Parameters,
    Prices,
    PromptFiles,
    ScorerNames,
    ScorerPrices,
    ScorerText,
    Seed,
    Stop,
    Temperature,
    ThinkingTokens,
    TopP,
    Yes,
    budget_of,
    config_of,
    gflops,
    stops_in,
    tell_warnings,
)
from thinktime.core.errors import InputError
from thinktime.core.meter import as_rows
from thinktime.core.printable import printable

if TYPE_CHECKING:
    from thinktime.core.search import Search
    from thinktime.core.usage import Usage


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    strategy: Annotated[
        str, typer.Option(help="A strategy, with options: beam_search:n=16,width=4.")
    ] = "weighted_majority",
    model: Model = None,
    yes: Yes = False,
    model_name: ModelNames = None,
    price: Prices = None,
    parameters: Parameters = None,
    scorer: ScorerText = None,
    scorer_name: ScorerNames = None,
    scorer_price: ScorerPrices = None,
    aggregate: Aggregate = "last",
    environment: Environments = None,
    prompt: PromptFiles = None,
    budget: BudgetText = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    thinking_tokens: ThinkingTokens = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    tree: Annotated[bool, typer.Option("--tree", help="Show every node of the search.")] = False,
    as_json: Json = False,
) -> None:
    """Answer one question better, and say what it cost."""
    from thinktime.bench.trace import draw, records
    from thinktime.core.types import Problem
    from thinktime.generators.text import thinking_counts, thinking_report
    from thinktime.session import run

    config = config_of(
        model=model,
        model_name=model_name,
        price=price,
        parameters=parameters,
        scorer=scorer,
        scorer_name=scorer_name,
        scorer_price=scorer_price,
        aggregate=aggregate,
        dtype=dtype,
        engine=engine,
        thinking_tokens=thinking_tokens,
        environment=environment,
        prompt=prompt,
        yes=yes,
        strategy=strategy,
        budget=budget_of(budget),
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        stop=stops_in(stop or []),
        seed=seed,
    )
    if not question.strip():
        raise InputError("question", question, "ask something")
    name, _ = config.named_strategy()
    search, answer = asyncio.run(run(config, Problem("ask", question)))
    tell_warnings(search)
    if answer.node is None and search.exhausted and answer.usage.model_calls == 0:
        raise InputError("budget", budget, f"not enough for one sample; it may take {_one_sample(search)}")
    nodes = [record.node for record in search.trace.values()]
    choices = [event for event in search.events if "planner" in event]
    thinking = {} if thinking_tokens is None else {"thinking": thinking_report(thinking_counts(nodes), thinking_tokens)}
    if as_json:
        text = answer.node.state.text if answer.node else None
        out = {"answer": answer.value, "finish": answer.finish, "text": text, "share": answer.share}
        out |= {"strategy": name, "usage": answer.usage.as_dict(), "path_tokens": answer.path_tokens}
        out["accounts"] = as_rows(answer.accounts)
        out |= {"chosen": choices} if choices else {}
        print(json.dumps(out | thinking | {"passes": answer.passes} | ({"tree": records(search)} if tree else {})))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    if tree:
        console.print(draw(search, answer.node.key if answer.node else None))
    if answer.node is not None:
        console.print(printable(answer.node.state.text), markup=False, soft_wrap=True)
    usage = answer.usage
    share = f", {100 * answer.share:.0f}% of the vote" if answer.share is not None else ""
    value = escape(printable(answer.value)) if answer.value else "no answer"
    console.print(f"[bold]{value}[/bold]  ({name}, {answer.finish}{share})")
    for choice in choices:
        reason = f": {choice['reason']}" if "reason" in choice else ""
        console.print(f"chosen by {choice['planner']}: {choice['strategy']}{reason}", style="dim", markup=False)
    console.print(
        f"[dim]{usage.generated_tokens} tokens generated in {usage.model_calls} calls, "
        f"{_known(usage.prompt_tokens)} prompt tokens computed and {_known(usage.cached_tokens)} reused, "
        f"{usage.scorer_tokens} read by the scorer, {gflops(usage.as_dict())}{_money(usage)}, "
        f"{usage.seconds:.1f} s[/dim]"
    )
    for cap in thinking.values():
        console.print(f"[dim]no sample thinks longer than {cap['limit']} tokens: {_word(cap)}[/dim]")


def _word(cap: dict[str, Any]) -> str:
    """Whether the cap on thinking held, in words."""
    most = f"at most {_known(cap['most'])}"
    return {
        True: f"held, {most}",
        False: f"did not hold, {most}",
        None: "unknown, because some thoughts were not counted",
    }[cap["held"]]


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _money(usage: Usage) -> str:
    """The dollars, if a model has a price, and the number of calls with an unknown cost."""
    price = f", {usage.dollars:.6f} dollars" if usage.dollars else ""
    return price + (f", {usage.uncounted_calls} calls at their most, uncounted" if usage.uncounted_calls else "")


def _one_sample(search: Search) -> str:
    worst = search.generator.worst_case(search.root, search.sampling.max_length)
    return f"{worst.generated_tokens} tokens and {gflops(worst.as_dict())}; lower --max-tokens or raise --budget"
