"""The command line: ask, bench, replay, report, models, strategies, demo. Everything heavy is imported when used."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.core.errors import CapabilityError, InputError, ThinktimeError

if TYPE_CHECKING:
    from thinktime.bench.runner import Bench, Entry
    from thinktime.core.search import Search
    from thinktime.core.types import Generator, Scorer

EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130
DEMO_STRATEGIES = "single,majority,best_of_n,weighted_majority,beam_search"

app = typer.Typer(
    help="Spend a budget of inference-time compute on better answers, and see exactly what it cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Model = Annotated[str, typer.Option(help="'pocket' (shipped) or a Hugging Face model directory.")]
Reward = Annotated[
    str | None,
    typer.Option("--reward-model", help="'pocket', 'none', or a reward model directory; default: fits --model."),
]
Aggregate = Annotated[str, typer.Option(help="How step rewards become one: last, min, mean, product.")]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature; default 0.8 (pocket) or 1.")]
MaxTokens = Annotated[int | None, typer.Option(help="Length limit of one generation; default 200 (pocket) or 1024.")]
Seed = Annotated[int, typer.Option(help="Same seed, same samples.")]
Dtype = Annotated[
    str, typer.Option(help="float64: samples never depend on what shares their batch; float32: twice as fast; auto.")
]
BudgetText = Annotated[
    str | None,
    typer.Option("--budget", help="Hard limit per problem: 4000tok, 16calls, 2e12flops, 30s, 0.05usd, or several."),
]


def run() -> None:
    """Entry point: errors become one line on stderr and an exit code (2: your input, 1: something failed)."""
    try:
        app()
    except (InputError, CapabilityError) as error:
        _fail(str(error), EXIT_INPUT)
    except ThinktimeError as error:
        _fail(str(error), EXIT_FAILED)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install 'thinktime[local]'", EXIT_FAILED)
    except ExceptionGroup as group:
        known = [error for error in group.exceptions if isinstance(error, ThinktimeError)]
        if not known:
            raise
        _fail(str(known[0]), EXIT_INPUT if isinstance(known[0], InputError | CapabilityError) else EXIT_FAILED)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    strategy: Annotated[
        str, typer.Option(help="A strategy, with options: beam_search:n=16,width=4.")
    ] = "weighted_majority",
    model: Model = "pocket",
    reward_model: Reward = None,
    aggregate: Aggregate = "last",
    budget: BudgetText = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    tree: Annotated[bool, typer.Option("--tree", help="Show every node of the search.")] = False,
    as_json: Json = False,
) -> None:
    """Answer one question better, and say what it cost."""
    from thinktime.answers import TextAnswers
    from thinktime.core.search import Search
    from thinktime.core.types import Problem
    from thinktime.core.usage import Budget
    from thinktime.strategies import check, parse

    name, method = parse(strategy)
    limits = Budget.parse(budget) if budget else Budget()
    if not question.strip():
        raise InputError("question", question, "ask something")
    sampling = _sampling(model, temperature, max_tokens)
    generator, scorer = _models(model, reward_model, aggregate, dtype)
    answers = TextAnswers(_pocket_reader()) if model == "pocket" else TextAnswers()
    search = Search(
        Problem("ask", question),
        generator,
        scorer=scorer,
        answers=answers,
        sampling=sampling,
        budget=limits,
        seed=seed,
    )
    check(name, method, search.capabilities)
    answer = asyncio.run(method(search))
    if answer.node is None and search.exhausted and answer.usage.model_calls == 0:
        raise InputError("budget", budget, f"not enough for one sample; it may take {_one_sample(search)}")
    if as_json:
        text = answer.node.state.text if answer.node else None
        out = {"answer": answer.value, "finish": answer.finish, "text": text, "share": answer.share}
        out |= {"strategy": name, "usage": answer.usage.as_dict(), "path_tokens": answer.path_tokens}
        print(json.dumps(out | {"passes": answer.passes} | ({"tree": _tree_records(search)} if tree else {})))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if tree:
        console.print(_tree(search, answer.node.key if answer.node else None))
    if answer.node is not None:
        console.print(answer.node.state.text, markup=False)
    usage = answer.usage
    share = f", {100 * answer.share:.0f}% of the vote" if answer.share is not None else ""
    console.print(f"[bold]{answer.value or 'no answer'}[/bold]  ({name}, {answer.finish}{share})")
    console.print(
        f"[dim]{usage.generated_tokens} tokens generated in {usage.model_calls} calls, "
        f"{usage.prompt_tokens} prompt tokens computed and {usage.cached_tokens} reused, "
        f"{usage.scorer_tokens} read by the scorer, {_flops(usage.as_dict())}, {usage.seconds:.1f} s[/dim]"
    )


@app.command()
def bench(
    task: Annotated[str, typer.Argument(help="'pocket' or a JSONL file (GSM8K's format, or your fields).")] = "pocket",
    problems: Annotated[
        int | None, typer.Option("--problems", help="How many problems; default 100, or the whole file.")
    ] = None,
    strategies: Annotated[str, typer.Option(help="Strategies, separated by commas.")] = DEMO_STRATEGIES,
    n: Annotated[str, typer.Option(help="Sample budgets, separated by commas.")] = "1,2,4,8,16",
    levels: Annotated[str, typer.Option(help="Pocket levels.")] = "1,2,3,4,5",
    split: Annotated[str, typer.Option(help="Pocket split: train, dev or test.")] = "test",
    question_field: Annotated[str, typer.Option(help="Where a JSONL file keeps the question.")] = "question",
    answer_field: Annotated[str, typer.Option(help="Where a JSONL file keeps the answer.")] = "answer",
    out: Annotated[Path, typer.Option(help="Folder of result.json, timing.json, report.html and the bank.")] = Path(
        "runs/bench"
    ),
    bank: Annotated[Path | None, typer.Option(help="The sample bank; default: bank.db in --out.")] = None,
    replay_bank: Annotated[bool, typer.Option("--replay", help="Use the bank's samples alone; load no model.")] = False,
    model: Model = "pocket",
    reward_model: Reward = None,
    aggregate: Aggregate = "last",
    budget: BudgetText = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Run strategies at several budgets on a task; resume where an earlier run stopped."""
    from thinktime.bank.store import Bank
    from thinktime.bench.runner import Bench
    from thinktime.bench.tasks import load
    from thinktime.core.usage import Budget

    entries = _entries(_names(strategies), _numbers("n", n))
    loaded = load(
        task, problems, levels=_numbers("levels", levels), split=split, question=question_field, answer=answer_field
    )
    limits = Budget.parse(budget) if budget else Budget()
    sampling = _sampling(model, temperature, max_tokens)
    with Bank(bank or out / "bank.db") as opened:
        if replay_bank:
            generator, scorer = _banked(opened)
        else:
            generator, scorer = _models(model, reward_model, aggregate, dtype)
        run = Bench(loaded, generator, scorer, entries, sampling, opened, limits, seed)
        complete = _run_with_progress(run)
        result, timing = _write(run, out)
    if as_json:
        print(json.dumps({**result, "timing": timing}))
    else:
        _print_table(result, timing)
        print(f"report: {out / 'report.html'}   result: {out / 'result.json'}")
    if not complete:
        print("interrupted: run the same command again to go on; finished samples are kept", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Recorded samples: JSONL, one problem a line.")],
    samples: Annotated[str, typer.Option(help="Field with the list of samples.")] = "outputs",
    text: Annotated[str, typer.Option(help="Field of a sample's text.")] = "response",
    answer: Annotated[str, typer.Option(help="Field of a sample's answer.")] = "response_answer",
    correct: Annotated[str, typer.Option(help="Field that says whether it is right (true or false).")] = "label",
    reward: Annotated[str | None, typer.Option(help="Field of a sample's reward.")] = None,
    k: Annotated[str, typer.Option("--k", help="Values of k, separated by commas.")] = "1,4,16",
    drop_unjudged: Annotated[
        bool, typer.Option("--drop-unjudged", help="Leave samples out that were not judged.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Coverage, votes and reward selection of recorded samples, without a model."""
    from thinktime.bench.replay import Fields, read_recorded
    from thinktime.bench.replay import replay as replay_samples

    fields = Fields(samples, text, answer, correct, reward)
    recorded = read_recorded(file, fields, drop_unjudged=drop_unjudged)
    result = replay_samples(recorded, _numbers("k", k), rewards=reward is not None, seed=seed)
    if as_json:
        print(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    from thinktime.bench.table import interval

    table = Table(title=f"{file.name}: {result['n_problems']} problems, {result['n_samples']} samples, seed {seed}")
    table.add_column("")
    table.add_column("right, with 95% interval", justify="right")
    for size, estimate in result["pass_at_k"].items():
        table.add_row(f"pass@{size}", interval(estimate))
    for name in ("majority", "best_of_n", "weighted_majority"):
        if name in result:
            table.add_row(name, interval(result[name]))
    Console().print(table)
    print(f"{result['unjudged']} samples were not judged; they count as wrong (--drop-unjudged leaves them out)")


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="A result.json of `thinktime bench`.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; default: report.html beside the result.")] = None,
    as_json: Json = False,
) -> None:
    """Draw the HTML report of a result again, and print its table."""
    from thinktime.bench.report import write_report

    loaded = _read_json(result)
    if "runs" not in loaded or loaded.get("schema") != 1:
        raise InputError("result", str(result), "it is no result of `thinktime bench` (schema 1)")
    timing_file = result.with_name("timing.json")
    timing = _read_json(timing_file) if timing_file.exists() else {}
    target = out or result.with_name("report.html")
    write_report(loaded, timing, target)
    if as_json:
        print(json.dumps({"report": str(target)}))
    else:
        _print_table(loaded, timing)
        print(f"report: {target}")


@app.command()
def models(as_json: Json = False) -> None:
    """The shipped models, what they know, and what else --model takes."""
    from thinktime.pocket import MODELS
    from thinktime.pocket.problems import DAYS, ITEMS, MAKERS, NAMES, problems

    shipped = {
        path.name: _read_json(path / "config.json").get("thinktime", {})
        for path in sorted(MODELS.glob("*"))
        if path.is_dir()
    }
    example = next(iter(problems("test", 1, seed=1))).question
    if as_json:
        print(json.dumps({"pocket": shipped, "example": example, "other": "any Hugging Face model directory"}))
        return
    for name, facts in shipped.items():
        print(f"pocket {name}: {facts.get('description', '')}")
    print(
        f"\nThe pocket solver reads word problems in its own words, with numbers up to 199, for example:\n  {example}"
    )
    for title, words in (("names", NAMES), ("things", ITEMS), ("days", DAYS), ("places", MAKERS)):
        print(f"  {title}: {', '.join(words)}")
    print("\nAny other --model is a Hugging Face directory on this machine (Llama, Qwen, Mistral, …).")


@app.command()
def strategies(as_json: Json = False) -> None:
    """The strategies, their options and what they need."""
    from thinktime.strategies import known, options

    found: dict[str, dict[str, Any]] = {
        name: {
            "about": (kind.__doc__ or "").strip().splitlines()[0],
            "options": options(kind),
            "needs": sorted(kind.needs),
        }
        for name, kind in sorted(known().items())
    }
    if as_json:
        print(json.dumps(found))
        return
    for name, facts in found.items():
        settings = ",".join(f"{option}={value}" for option, value in facts["options"].items())
        print(f"{name}{':' if settings else ''}{settings}\n    {facts['about']}")
        print(f"    needs: {', '.join(facts['needs']) or 'nothing'}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("runs/demo"),
    problems: Annotated[int, typer.Option(help="How many problems.")] = 100,
) -> None:
    """Five strategies at budgets 1 to 16 on the shipped model: what does each buy, for how many tokens?"""
    print(f"Five strategies, budgets 1 to 16, {problems} word problems the model has never seen. A few minutes…")
    bench(out=out, problems=problems)
    result = _read_json(out / "result.json")
    runs = {(r["strategy"], r["n"]): r for r in result["runs"]}
    if ("single", 1) not in runs:
        return
    single = runs["single", 1]
    best = max(result["runs"], key=lambda r: (r["accuracy"]["value"], -r["usage"]["generated_tokens"]))
    factor = best["usage"]["generated_tokens"] / single["usage"]["generated_tokens"]
    print(
        f"\nOne sample is right {100 * single['accuracy']['value']:.0f}% of the time. {best['strategy']} with "
        f"n={best['n']} is right {100 * best['accuracy']['value']:.0f}% of the time, for {factor:.1f} times the tokens."
    )
    question = next(iter(_demo_questions()))
    print("\nThree things to try next:")
    print(f"  thinktime ask {shlex.quote(question)} --strategy beam_search --tree")
    print("  thinktime bench pocket --levels 5 --problems 50 --strategies majority,beam_search --out runs/hard")
    print("  thinktime strategies")


def _demo_questions() -> Sequence[str]:
    from thinktime.pocket.problems import problems

    return [problem.question for problem in problems("test", 1, seed=1, levels=[3])]


def _pocket_reader() -> Any:
    from thinktime.pocket.problems import read_answer

    return read_answer


def _sampling(model: str, temperature: float | None, max_tokens: int | None) -> Any:
    from thinktime.core.types import Sampling
    from thinktime.pocket import MAX_TOKENS, TEMPERATURE

    pocket = model == "pocket"
    heat = temperature if temperature is not None else TEMPERATURE if pocket else 1.0
    limit = max_tokens if max_tokens is not None else MAX_TOKENS if pocket else 1024
    if not 0 <= heat <= 5:
        raise InputError("temperature", heat, "give a number from 0 to 5")
    if limit < 1:
        raise InputError("max_tokens", limit, "give 1 or more")
    return Sampling(temperature=heat, max_tokens=limit)


def _models(model: str, reward_model: str | None, aggregate: str, dtype: str) -> tuple[Generator, Scorer | None]:
    from thinktime import pocket
    from thinktime.generators.local import LocalGenerator
    from thinktime.scorers.prm import ProcessReward

    if dtype not in ("auto", "float64", "float32", "bfloat16", "float16"):
        raise InputError("dtype", dtype, "give auto, float64, float32, bfloat16 or float16")
    number = dtype if dtype != "auto" else "float64" if model == "pocket" else "float32"
    generator = LocalGenerator(pocket.directory("solver") if model == "pocket" else Path(model), dtype=number)
    chosen = reward_model or ("pocket" if model == "pocket" else "none")
    if chosen == "none":
        return generator, None
    directory = pocket.directory("reward") if chosen == "pocket" else Path(chosen)
    return generator, ProcessReward(directory, aggregate=aggregate, dtype=number)


def _banked(bank: Any) -> tuple[Generator, Scorer | None]:
    from thinktime.generators.recorded import BankedGenerator
    from thinktime.scorers.recorded import BankedScorer

    names, scorers = bank.models(), bank.scorers()
    if len(names) != 1 or len(scorers) > 1:
        raise InputError(
            "bank", str(bank.path), f"replay needs one model and one scorer in it; it has {names} and {scorers}"
        )
    return BankedGenerator(names[0]), BankedScorer(scorers[0]) if scorers else None


def _entries(names: Sequence[str], sizes: Sequence[int]) -> list[Entry]:
    from thinktime.bench.runner import Entry
    from thinktime.strategies import known, make, options

    entries = []
    for name in names:
        make(name)  # an unknown name fails here, with the nearest one
        if "n" in options(known()[name]):
            entries += [Entry(name, n, make(name, {"n": n})) for n in sizes]
        else:
            entries.append(Entry(name, 1, make(name)))
    return entries


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("strategies", text, "name at least one; see `thinktime strategies`")
    return list(dict.fromkeys(names))


def _numbers(field: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(field, text, "give whole numbers separated by commas") from None
    if min(numbers) < 1:
        raise InputError(field, min(numbers), "give 1 or more")
    return list(dict.fromkeys(numbers))


def _run_with_progress(run: Bench) -> bool:
    """Run to the end, or to Ctrl-C; say which."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Progress(*columns, TextColumn("{task.fields[right]}"), console=console, transient=True) as progress:
        bar = progress.add_task("loading", total=len(run.entries) * len(run.task.problems), right="")
        tally: dict[str, list[bool]] = {}

        def show(entry: Entry, outcome: Any) -> None:
            tally.setdefault(entry.label, []).append(outcome.correct)
            seen = tally[entry.label]
            progress.update(
                bar,
                advance=1,
                description=entry.label,
                right=f"{100 * sum(seen) / len(seen):.0f}% of {len(seen)} right",
            )

        run.on_outcome = show
        try:
            asyncio.run(run.run())
        except KeyboardInterrupt:
            return False
    return True


def _write(run: Bench, out: Path) -> tuple[dict[str, Any], dict[str, float]]:
    from thinktime.bench.environment import environment
    from thinktime.bench.report import write_report

    result = run.result("thinktime " + shlex.join(sys.argv[1:]), environment())
    timing = run.timing()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / "timing.json").write_text(json.dumps(timing, indent=1) + "\n")
        write_report(result, timing, out / "report.html")
    except OSError as error:
        raise InputError(
            "out", str(out), f"cannot write there ({error}); the bank is safe, give another --out"
        ) from None
    return result, timing


def _print_table(result: dict[str, Any], timing: dict[str, float]) -> None:
    from rich.console import Console

    from thinktime.bench.table import results_table

    Console().print(results_table(result, timing))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError("file", str(path), f"cannot read it as JSON ({error})") from None
    return value if isinstance(value, dict) else {}


def _flops(usage: dict[str, float | None]) -> str:
    flops, scorer = usage["flops"], usage["scorer_flops"]
    return "FLOPs unknown" if flops is None or scorer is None else f"{(flops + scorer) / 1e9:.2f} GFLOPs"


def _one_sample(search: Search) -> str:
    worst = search.generator.worst_case(search.root, search.sampling.max_tokens)
    return f"{worst.generated_tokens} tokens and {_flops(worst.as_dict())}; lower --max-tokens or raise --budget"


def _tree_records(search: Search) -> list[dict[str, Any]]:
    from thinktime.bench.trace import records

    return records(search)


def _tree(search: Search, returned: str | None) -> Any:
    from thinktime.bench.trace import draw

    return draw(search, returned)


if __name__ == "__main__":
    run()
