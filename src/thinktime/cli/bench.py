"""``thinktime bench``: strategies at several budgets on a task."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from thinktime.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
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
    command_line,
    config_of,
    numbers_in,
    read_json,
    roles_in,
    stops_in,
)
from thinktime.cli.report import print_table
from thinktime.cli.tasks import (
    AnswerField,
    Data,
    Levels,
    Problems,
    PromptTemplate,
    QuestionField,
    Split,
    System,
    loader,
)
from thinktime.config import is_url
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.printable import printable
from thinktime.core.types import MAIN

if TYPE_CHECKING:
    from thinktime.bank.store import Bank
    from thinktime.bench.ray_workers import RayCluster
    from thinktime.bench.runner import Bench, Entry, Results
    from thinktime.bench.tasks import Task
    from thinktime.config import Config
    from thinktime.session import Session

Result = TypeVar("Result")
RAY_OPTIONS = ("--ray", "--ray-workers", "--ray-cpus", "--ray-gpus")
"""They decide who draws the samples, and leave no trace in the result."""
AGAIN = "interrupted: run the same command again to go on; finished samples are kept"
DEMO_STRATEGIES = "single,majority,best_of_n,weighted_majority,beam_search"


def bench(
    task: Annotated[
        str,
        typer.Argument(
            help="'pocket', a benchmark of `thinktime data` (gsm8k, humaneval, ...), reasoning-gym:NAME, a JSONL file "
            "(GSM8K's format, or your fields), or programs:FILE, whose 'tests' are run on the programs that the model "
            "writes, in a sandbox of bubblewrap."
        ),
    ] = "pocket",
    problems: Problems = None,
    strategies: Annotated[
        str, typer.Option(help="Strategies with their options: majority,a_star:k=2,n_goals=4.")
    ] = DEMO_STRATEGIES,
    n: Annotated[str, typer.Option(help="Sizes of those whose n is not given, separated by commas.")] = "1,2,4,8,16",
    levels: Levels = "1,2,3,4,5",
    split: Split = "test",
    prompt_template: PromptTemplate = None,
    system: System = None,
    data: Data = None,
    show_task: Annotated[
        bool, typer.Option("--show-task", help="Show the task's data, prompt, reader and judge, and ask nothing.")
    ] = False,
    question_field: QuestionField = "question",
    answer_field: AnswerField = "answer",
    reader: Annotated[
        str | None,
        typer.Option(
            help="Takes the answer from a text: 'statement' (the last one of any kind), 'boxed' or 'hashes' (####); "
            "default: the task's own. With --replay old samples are read again."
        ),
    ] = None,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe", help="Run the programs of programs:FILE without a sandbox: they can do what you can do."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder of result.json, timing.json, samples.jsonl, report.html and the bank.")
    ] = Path("runs/bench"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the result of another run in --out.")] = False,
    plot_missing: Annotated[
        bool, typer.Option("--plot-missing", help="Draw runs in the report although some of their samples are missing.")
    ] = False,
    bank: Annotated[
        str | None,
        typer.Option(
            help="The sample bank: a file, or postgresql://USER@HOST/DATABASE; default: bank.db in --out. "
            "With --replay also an export."
        ),
    ] = None,
    replay_bank: Annotated[bool, typer.Option("--replay", help="Use the bank's samples alone; load no model.")] = False,
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
    concurrency: Annotated[
        int | None,
        typer.Option(
            help="Most rows of a local model, or requests to an endpoint, at once; default 256 rows, or the slots of a "
            "llama.cpp server, or 32 requests."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds for a request to an endpoint, without the wait for its turn; default 600."),
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Run only part i of n of the problems, for several processes: 1/4 is the first of four parts. "
            "`thinktime bank merge` joins their banks.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Share out the problems over the workers of a Ray cluster: local (starts Ray here), auto (a cluster "
            "of this machine, or RAY_ADDRESS), HOST:PORT or ray://HOST:PORT. The result is the same.",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(min=1, help="How many workers; each loads the models. Default: as many as fit on the nodes."),
    ] = None,
    ray_cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs of each worker, and threads of its models; default 1.")
    ] = None,
    ray_gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of each worker, for models that use them; default 0.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run strategies at several budgets on a task.

    The same command resumes a run where it stopped.
    """
    from thinktime.answers import READERS, TextAnswers
    from thinktime.bank.store import Bank
    from thinktime.bench.bank_export import exported_bank, is_export
    from thinktime.bench.benchmarks import BENCHMARKS, pull_missing
    from thinktime.bench.controls import is_control
    from thinktime.bench.environment import environment as here
    from thinktime.bench.shards import Shard
    from thinktime.bench.tally import warnings
    from thinktime.strategies import listed

    part = Shard() if shard is None else Shard.parse(shard)
    cluster = _cluster(ray, ray_workers, ray_cpus, ray_gpus)
    if cluster is not None and (replay_bank or shard is not None):
        fix = "a replay draws no samples" if replay_bank else "it shares out all problems by itself"
        raise InputError("ray", ray, f"{fix}; leave out --ray, or {'--replay' if replay_bank else '--shard'}")
    entries = _entries(listed(strategies), numbers_in("n", n))
    of_task = loader(
        task,
        levels=levels,
        split=split,
        prompt_template=prompt_template,
        system=system,
        data=data,
        question_field=question_field,
        answer_field=answer_field,
        unsafe=unsafe,
    )
    if yes and data is None and task in BENCHMARKS:
        pull_missing(BENCHMARKS[task], split)
    loaded = of_task(problems)
    if reader is not None:
        if reader not in READERS:
            raise UnknownNameError("reader", reader, READERS)
        loaded = replace(loaded, answers=TextAnswers(READERS[reader], reader))
    if show_task:
        _show(loaded, as_json)
        return
    if part.count > len(loaded.problems):
        raise InputError("shard", shard, f"give at most {len(loaded.problems)} parts: the task has no more problems")
    controls = {role: name for role, name in roles_in("scorer", scorer or []).items() if is_control(name)}
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
        concurrency=concurrency,
        timeout=timeout,
        environment=environment,
        prompt=prompt,
        yes=yes and not replay_bank,
        without=set(controls.values()),
        budget=budget_of(budget),
        temperature=temperature,
        top_p=top_p,
        max_tokens=loaded.max_tokens if max_tokens is None else max_tokens,
        stop=loaded.stop if stop is None else stops_in(stop),
        seed=seed,
    )
    if cluster is not None:
        _refuse_endpoints(config, cluster)
    place = bank or out / "bank.db"
    of_export = is_export(place, replay_bank)
    with exported_bank(Path(place)) if of_export else Bank(place) as opened:
        if of_export and problems is None:
            loaded = _known(loaded, opened, str(place))
        make = partial(_bench, loaded, of_task, config, entries, controls, replay_bank, thinking_tokens, plot_missing)
        accept = partial(_refuse_another, None if force else out / "result.json")
        if cluster is not None:
            complete, results = True, _run_on_ray(cluster, make, opened, entries, loaded, out, accept)
        else:
            run = make(opened).part(part)
            accept(run.settings())
            complete, results = _run_with_progress(run), run.results(command_line(), here())
        _write(results, out)
    for warning in warnings(results.result):
        print(f"warning: {printable(warning)}", file=sys.stderr)
    if as_json:
        print(json.dumps({**results.result, "timing": results.timing}))
    else:
        print_table(dict(results.result), dict(results.timing))
        print(f"report: {out / 'report.html'}   result: {out / 'result.json'}")
    if results.failures:
        print(
            f"error: {len(results.failures)} problems could not be asked: {printable(results.failures[0])}; "
            "run the same command again",
            file=sys.stderr,
        )
    if results.failed:
        reason = printable(next(iter(results.failed.values())))
        print(f"error: failed: {', '.join(results.failed)}: {reason}", file=sys.stderr)
    if results.failures or results.failed:
        raise typer.Exit(EXIT_FAILED)
    if not complete:
        print(AGAIN, file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)


def _bench(
    task: Task,
    of_task: Callable[[int], Task],
    config: Config,
    entries: Sequence[Entry],
    controls: Mapping[str, str],
    replay: bool,
    thinking_tokens: int | None,
    plot_missing: bool,
    bank: Bank,
) -> Bench:
    """Load the models, and make the bench of a bank."""
    from thinktime.bench.controls import control
    from thinktime.bench.runner import Bench
    from thinktime.session import open_replay, open_session

    session = open_replay(config, bank) if replay else open_session(config)
    if replay:  # random scores are in the bank
        controls = {role: name for role, name in controls.items() if name != "random"}
    fitting = session.scorers.get(MAIN)
    judges = {role: control(name, task, fitting) for role, name in controls.items()}
    session = replace(session, scorers={**session.scorers, **judges})
    entries = _calibrated(entries, task, of_task, session.with_bank(bank))
    return Bench(task, session, entries, bank, thinking_tokens, plot_missing)


def _cluster(address: str | None, workers: int | None, cpus: int | None, gpus: int | None) -> RayCluster | None:
    """The Ray cluster of the options; None without one."""
    given = {"ray_workers": workers, "ray_cpus": cpus, "ray_gpus": gpus}
    if address is None:
        for name, value in given.items():
            if value is not None:
                raise InputError(name, value, "it belongs to --ray; give --ray ADDRESS, or leave it out")
        return None
    from thinktime.bench.ray_workers import RayCluster

    return RayCluster(address, workers, 1 if cpus is None else cpus, gpus or 0)


def _refuse_endpoints(config: Config, cluster: RayCluster) -> None:
    """Refuse models and scorers behind HTTP, which one process can keep busy."""
    for spec in (*config.model_specs().values(), *config.scorer_specs().values()):
        source = getattr(spec, "source", "")
        if is_url(source):
            fix = f"it is for models on the workers, and not for {source}; leave out --ray, and raise --concurrency"
            raise InputError("ray", cluster.address, fix)


def _run_on_ray(
    cluster: RayCluster,
    make: Callable[[Bank], Bench],
    bank: Bank,
    entries: Sequence[Entry],
    task: Task,
    out: Path,
    accept: Callable[[Mapping[str, Any]], None],
) -> Results:
    """Run on a cluster. Ray prints messages about lost workers; the standard output is for the result alone."""
    from thinktime.bench import ray_workers

    with redirect_stdout(sys.stderr), _Bar(len(entries) * len(task.problems)) as bar:
        try:
            return ray_workers.run(
                cluster,
                make,
                bank,
                len(task.problems),
                name=f"{gethostname()} {out.resolve()} {bank.place}",
                command=command_line(RAY_OPTIONS),
                accept=accept,
                seen=bar.seen,
            )
        except KeyboardInterrupt:
            print(AGAIN, file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None


def _known(task: Task, export: Bank, place: str) -> Task:
    """The task with only the problems that have samples in an export."""
    known = export.problems()
    found = tuple(problem for problem in task.problems if problem.id in known)
    if not found:
        raise InputError("bank", place, f"it has no sample of the problems of {task.name}")
    return replace(task, problems=found)


def _refuse_another(path: Path | None, settings: Mapping[str, Any]) -> None:
    """Raise an `InputError` if a file has the result of a run with other settings."""
    if path is None or not path.exists():
        return
    found, wanted = read_json(path), json.loads(json.dumps(settings))
    if isinstance(found.get("model"), dict):  # a replay has no scorer if the bank has no scores
        wanted["model"] = found["model"] | {name: value for name, value in wanted["model"].items() if value is not None}
    if other := [name for name, value in wanted.items() if found.get(name) != value]:
        fix = f"it has the result of another run (another {', '.join(other)}); give another --out, or --force"
        raise InputError("out", str(path.parent), fix)


def _show(task: Task, as_json: bool) -> None:
    """Print what a result on a task depends on, and its first problem."""
    first = task.problems[0]
    shown = {
        "name": task.name,
        "n": len(task.problems),
        **task.details,
        "stop": list(task.stop),
        "max_tokens": task.max_tokens,
        "reader": task.answers.name,
        "first": {"id": first.id, "prompt": first.prompt, "reference": first.reference},
    }
    if as_json:
        print(json.dumps(shown))
        return
    for name, value in shown.items():
        lines = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
        print(f"{name:<11} " + printable(lines).replace("\n", "\n" + " " * 12))


def _entries(strategies: Sequence[str], sizes: Sequence[int]) -> list[Entry]:
    """Every strategy at every size, or at its own if it was given one."""
    from thinktime.bench.runner import Entry
    from thinktime.strategies import find, make, options, split

    entries = []
    for text in strategies:
        name, values = split(text)
        if "n" in options(find(name)) and "n" not in values:  # an unknown name fails here, with the nearest one
            entries += [Entry(text, n, make(name, {**values, "n": n})) for n in sizes]
        else:
            method = make(name, values)
            entries.append(Entry(text, getattr(method, "n", 1), method))
    return entries


def _calibrated(entries: Sequence[Entry], tested: Task, first: Callable[[int], Task], session: Session) -> list[Entry]:
    """Replace ``tau=auto`` of early rejection by a value measured on problems that the bench does not test.

    Without a process reward model, or without a readable step, it stays ``auto``.
    """
    from thinktime.planning.rejection import PROBLEMS, least_tau, read_along
    from thinktime.scorers.prm import ProcessReward
    from thinktime.strategies.search.early_rejection import EarlyRejection

    found = list(entries)
    judge, steps = session.scorers.get(MAIN), None
    for place, entry in enumerate(entries):
        method = entry.strategy
        if not (isinstance(method, EarlyRejection) and method.tau == "auto" and isinstance(judge, ProcessReward)):
            continue
        if steps is None:
            more = first(len(tested.problems) + PROBLEMS)
            others = replace(more, problems=more.problems[len(tested.problems) :])
            steps = asyncio.run(_disconnecting(session, read_along(others, session, judge)))
        if steps:
            tau, kept = least_tau(steps, 1 / method.width)
            found[place] = replace(entry, strategy=replace(method, tau=tau))
            how = f"keeps {kept:.0%} of the best 1 in {method.width} steps of {len(steps)} problems that are not tested"
            print(f"{entry.label}: tau={tau} {how}", file=sys.stderr)
    return found


class _Bar:
    """A line of progress: the strategy, its finished problems, and how many of them are right."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        right = TextColumn("{task.fields[right]}")
        self._progress = Progress(*columns, right, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._progress.add_task("loading", total=total, right="")
        self._right: dict[str, dict[str, bool]] = {}

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def seen(self, strategy: str, problem: str, correct: bool) -> None:
        """Count a problem. A problem may come twice."""
        found = self._right.setdefault(strategy, {})
        found[problem] = correct
        share = f"{100 * sum(found.values()) / len(found):.0f}% of {len(found)} right"
        done = sum(map(len, self._right.values()))
        self._progress.update(self._bar, completed=done, description=strategy, right=share)


def _run_with_progress(run: Bench) -> bool:
    """Run until the end or an interruption. Return whether it reached the end."""
    with _Bar(len(run.entries) * len(run.problems)) as bar:
        run.on_outcome = lambda entry, outcome: bar.seen(entry.label, outcome.problem.id, outcome.correct)
        try:
            asyncio.run(_until_told_to_stop(_disconnecting(run.session, run.run())))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return False
    return True


async def _disconnecting(session: Session, work: Awaitable[Result]) -> Result:
    """The result of the work, after which the connections of models and scorers are closed."""
    try:
        return await work
    finally:
        await session.disconnect()


async def _until_told_to_stop(work: Awaitable[None]) -> None:
    """Stop at SIGTERM as at Ctrl-C, which a job in the background may not hear."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work


def _write(results: Results, out: Path) -> None:
    """Write the files of a result."""
    from thinktime.bench.export import SAMPLES
    from thinktime.bench.report import write_report
    from thinktime.files import write_whole

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "result.json", json.dumps(results.result, indent=1) + "\n")
        write_whole(out / "timing.json", json.dumps(results.timing, indent=1) + "\n")
        write_whole(out / SAMPLES, "".join(f"{json.dumps(row)}\n" for row in results.samples))
        write_report(results.result, results.timing, out / "report.html")
    except OSError as error:
        raise InputError(
            "out", str(out), f"cannot write there ({error}); the bank is safe, give another --out"
        ) from None
