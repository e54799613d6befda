"""Pictures: steps equal those of ``diffusers``, states share batches, and the account equals the computation."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import MemoryJournal, unhurried

from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.transitions import Neighbour, Renoise
from thinktime.core.types import Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.calls import Call
from thinktime.models.diffusion.classifier import Classifier
from thinktime.models.diffusion.gradient import Part, Pull
from thinktime.models.diffusion.levels import Array, Levels, neighbour, parts
from thinktime.models.diffusion.models import DiffusionModel
from thinktime.models.diffusion.spill_store import SpillStore, StoredArray
from thinktime.scorers.composed import Composed
from thinktime.scorers.pictures import SIMPLE, PictureScorer, class_score, clip_score, image_reward, ink, symmetry
from thinktime.strategies import check, parse
from thinktime.strategies.sampling.ensemble import mean_ranks

STEPS = 5


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.classes(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def model(directory: Path) -> DiffusionModel:
    return DiffusionModel(directory)


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.stable_diffusion(tmp_path_factory.mktemp("latent"))


def searching(
    model: DiffusionModel | Path,
    prompt: Any = "2",
    *,
    eta: float = 1.0,
    budget: Budget | None = None,
    journal: MemoryJournal | None = None,
    **options: Any,
) -> Search:
    generator = DiffusionGenerator(model, steps=STEPS, eta=eta, **options)
    return Search(
        Problem("picture", prompt),
        generator,
        scorers=PictureScorer(generator, ink, "ink"),
        sampling=Sampling(max_length=STEPS),
        budget=budget,
        journal=journal,
    )


def painted(strategy: str, search: Search) -> Answer:
    name, method = parse(strategy)
    check(name, method, search)
    return asyncio.run(method(search))


def random(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [True, False])
def test_a_step_equals_that_of_diffusers(prediction: str, eta: float, clip: bool) -> None:
    from diffusers import DDIMScheduler

    sampler: Any = DDIMScheduler(prediction_type=prediction, clip_sample=clip, timestep_spacing="trailing")
    sampler.set_timesteps(10)
    alphas = [float(sampler.alphas_cumprod[t]) for t in sampler.timesteps] + [1.0]
    levels = Levels(tuple(map(int, sampler.timesteps)), tuple(alphas), prediction, 1.0 if clip else None)  # type: ignore[arg-type]
    x, predicted, noise = (random((1, 4, 4), seed) for seed in range(3))
    for position, timestep in enumerate(sampler.timesteps):
        mean, sigma, clean = levels.step(x, predicted, position, eta)
        theirs = sampler.step(
            torch.from_numpy(predicted), timestep, torch.from_numpy(x), eta=eta, variance_noise=torch.from_numpy(noise)
        )
        np.testing.assert_allclose(mean + sigma * noise, theirs.prev_sample.numpy(), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(clean, theirs.pred_original_sample.numpy(), rtol=2e-4, atol=2e-5)


def test_a_whole_picture_equals_that_of_the_pipeline_at_every_step(model: DiffusionModel, directory: Path) -> None:
    """The same noises through the network and scheduler of ``diffusers``."""
    from diffusers import DDIMScheduler

    search = searching(model, eta=0.5)
    leaf = asyncio.run(search.extend([search.root]))[0]
    rng = np.random.Generator(np.random.Philox(key=int(leaf.key, 16)))
    noises = [torch.from_numpy(rng.standard_normal(model.shape, np.float32)) for _ in range(STEPS + 1)]
    sampler: Any = DDIMScheduler.from_pretrained(directory / "scheduler")
    sampler.set_timesteps(STEPS)
    x = noises[0][None]
    with torch.inference_mode():
        for timestep, noise in zip(sampler.timesteps, noises[1:], strict=True):
            predicted = model._net(x, timestep, class_labels=torch.tensor([2])).sample
            x = sampler.step(predicted, timestep, x, eta=0.5, variance_noise=noise[None]).prev_sample
    np.testing.assert_allclose(leaf.state.x, x[0].numpy(), rtol=1e-3, atol=1e-4)
    assert leaf.usage.denoiser_calls == leaf.passes == STEPS
    assert leaf.usage.flops == pytest.approx(STEPS * model.flops) and model.flops > 1e5


@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
@unhurried
def test_a_neighbour_has_the_length_and_the_angle_it_should(seed: int, cosine: float) -> None:
    pivot, fresh = random((1, 8, 8), seed), random((1, 8, 8), seed + 1)
    near = neighbour(pivot, fresh, cosine)
    assert np.linalg.norm(near) == pytest.approx(np.linalg.norm(pivot), rel=1e-5)
    dot = float((near.astype(float) * pivot).sum()) / float(np.linalg.norm(near) * np.linalg.norm(pivot))
    assert dot == pytest.approx(cosine, abs=1e-5)


def test_a_renoised_state_has_the_variance_of_its_level() -> None:
    levels = Levels((900, 600, 300), (0.1, 0.4, 0.8, 1.0))
    x = np.float32(np.sqrt(0.8)) * np.ones((1, 100, 100), np.float32) + np.sqrt(np.float32(0.2)) * random(
        (1, 100, 100), 0
    )
    back = levels.renoise(x, 2, 0, random((1, 100, 100), 1))
    assert back.mean() == pytest.approx(np.sqrt(0.1), abs=0.02)
    assert back.var() == pytest.approx(0.9, abs=0.03)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
@unhurried
def test_a_spill_store_returns_its_arrays_and_keeps_within_its_limit(moves: list[tuple[int, bool]]) -> None:
    store = SpillStore(3 * 16)
    there: dict[int, tuple[StoredArray, int]] = {}

    def check(name: int) -> None:
        np.testing.assert_array_equal(there[name][0].get(), np.full((2, 2), there[name][1], np.float32))

    for index, (name, keep) in enumerate(moves):
        if keep or name not in there:
            there[name] = (store.put(np.full((2, 2), index, np.float32)), index)
        else:
            check(name)
            del there[name]
        assert store.held <= 3 * 16
    for name in there:
        check(name)
    there.clear()
    assert store.held == 0


def test_a_tree_beyond_the_memory_for_its_states_grows_the_same(model: DiffusionModel) -> None:
    wide, narrow = searching(model), searching(model, memory=2000)
    one, other = (painted("dts:n=20", search) for search in (wide, narrow))
    assert one.node is not None and other.node is not None
    np.testing.assert_array_equal(one.node.state.x, other.node.state.x)
    assert narrow.generator.store.held <= 2000 < wide.generator.store.held  # type: ignore[attr-defined]


def test_children_share_the_prediction_for_their_parent(model: DiffusionModel) -> None:
    search = searching(model)

    async def grow() -> list[int]:
        noises = await search.extend([search.root], 2, until="step")
        steps = await search.extend(noises, 3, until="step")
        ends = await search.extend(steps[:1], 4)
        return [sum(node.usage.denoiser_calls for node in nodes) for nodes in (noises, steps, ends)]

    assert asyncio.run(grow()) == [2, 6, 4 * (STEPS - 2)]
    assert search.ledger.spent.denoiser_calls == 2 + 6 + 4 * (STEPS - 2)


def test_all_particles_of_all_prompts_share_their_batches(model: DiffusionModel) -> None:
    generator = DiffusionGenerator(model, steps=STEPS)
    sizes: list[int] = []
    compute = generator._batch._compute
    generator._batch._compute = lambda calls: sizes.append(len(calls)) or compute(calls)  # type: ignore[func-returns-value]
    scorer = PictureScorer(generator, ink, "ink")
    searches = [
        Search(Problem(str(i), str(i % 4)), generator, scorers=scorer, sampling=Sampling(max_length=STEPS))
        for i in range(8)
    ]
    method = parse("fk_steering:n=4,start=1,every=2")[1]

    async def run() -> None:
        await asyncio.gather(*(method(search) for search in searches))

    asyncio.run(run())
    assert sizes == [32] * STEPS


def test_without_noise_the_first_draw_decides(model: DiffusionModel) -> None:
    search = searching(model, eta=0)

    async def twice() -> list[Array]:
        noise = await search.extend([search.root], until="step")
        return [node.state.x for node in await search.extend(noise, 2)]

    one, other = asyncio.run(twice())
    np.testing.assert_array_equal(one, other)


def test_a_seed_repeats_a_run_and_a_journal_resumes_it(model: DiffusionModel) -> None:
    notes = MemoryJournal()
    first = searching(model, journal=notes)
    answer = painted("dts:n=4", first)
    again = searching(model, journal=notes)
    again.generator._batch._compute = None  # type: ignore[attr-defined]  # nothing may be computed
    assert answer.node is not None
    repeated = painted("dts:n=4", again)
    assert repeated.node is not None and repeated.node.key == answer.node.key
    np.testing.assert_array_equal(repeated.node.state.x, answer.node.state.x)
    assert replace(repeated.usage, seconds=0) == replace(answer.usage, seconds=0)


def test_transitions_go_to_a_neighbour_or_back_to_a_noisier_level(model: DiffusionModel) -> None:
    search = searching(model, eta=0)

    async def move() -> None:
        (noise,) = await search.extend([search.root], until="step")
        near = await search.extend([noise], 2, transition=Neighbour(0.95))
        assert [node.state.position for node in near] == [0, 0]
        assert [node.usage.denoiser_calls for node in near] == [1, 1]
        late = await search.extend(near, at_most=4)
        assert [(node.finish, node.state.position) for node in late] == [("cut", 4)] * 2
        (back,) = await search.extend(late[:1], transition=Renoise(0.5))
        assert back.state.position == 2
        (done,) = await search.extend([back])
        assert done.done
        with pytest.raises(InputError, match="pure noise has neighbours"):
            await search.extend(late, transition=Neighbour(0.9))

    asyncio.run(move())


@pytest.mark.parametrize(
    ("strategy", "eta"),
    [
        ("single", 1.0),
        ("best_of_n:n=4", 0.0),
        ("beam_search:n=4,width=2", 1.0),
        ("mcts:n=4,width=2", 1.0),
        ("particle_filter:n=4,reward=score", 1.0),
        ("fk_steering:n=4", 1.0),
        ("dts:n=5,walks=2", 1.0),
        ("dts:n=5,variant=sample", 1.0),
        ("zero_order:n=3,rounds=2", 0.0),
        ("search_over_paths:n=2,width=2,level=0.4,forward=0.4,backward=0.6", 0.0),
    ],
)
@pytest.mark.parametrize("nfe", [STEPS, 20, 50, None])
def test_every_strategy_paints_within_its_budget(
    model: DiffusionModel, strategy: str, eta: float, nfe: int | None
) -> None:
    search = searching(model, eta=eta, budget=Budget(nfe=nfe))
    answer = painted(strategy, search)
    spent = sum(record.node.usage.denoiser_calls for record in search.trace.values())
    assert answer.usage.denoiser_calls == spent
    assert nfe is None or spent <= nfe
    if nfe is None or nfe >= 20:
        assert answer.node is not None and answer.node.state.position == STEPS
        scores = [r.score for r in search.trace.values() if r.score is not None and r.node.done]
        if "variant=sample" not in strategy and "single" not in strategy:
            assert search.trace[answer.node.key].score == max(scores)


def test_the_best_of_more_has_more_ink(model: DiffusionModel) -> None:
    def reward(strategy: str) -> float:
        search = searching(model)
        answer = painted(strategy, search)
        assert answer.node is not None
        return search.trace[answer.node.key].score or 0.0

    assert reward("best_of_n:n=16") > reward("best_of_n:n=1")


def test_a_random_search_of_noises_takes_the_best_and_paints_it_again_in_more_steps(model: DiffusionModel) -> None:
    search = searching(model, eta=0)
    answer = painted("zero_order:start=3,rounds=0,final_steps=9", search)
    assert answer.node is not None and answer.node.parent is not None
    *seen, again = (record for record in search.trace.values() if record.node.done)
    assert again.node is answer.node and again.score == search.trace[answer.node.key].score
    assert max(seen, key=lambda record: record.score or 0.0).node.parent is answer.node.parent
    assert answer.usage.denoiser_calls == 3 * STEPS + 9
    assert search.events == [{"nfe_search": 3 * STEPS, "nfe_final": 9}]
    levels, x = model.levels(9), answer.node.parent.state.x
    for position, timestep in enumerate(levels.timesteps):
        ((predicted,),) = model.predict([Call(x, timestep, 2, 1.0)])
        x = levels.step(x, predicted, position, 0.0).mean
    np.testing.assert_allclose(answer.node.state.x, x, atol=1e-5)


def test_without_room_for_the_final_steps_the_picture_of_the_search_is_the_answer(model: DiffusionModel) -> None:
    search = searching(model, eta=0, budget=Budget(nfe=3 * STEPS + 8))
    answer = painted("zero_order:start=3,rounds=0,final_steps=9", search)
    assert (answer.finish, answer.usage.denoiser_calls) == ("budget", 3 * STEPS)
    assert answer.node is not None
    scores = [record.score for record in search.trace.values() if record.score is not None]
    assert search.trace[answer.node.key].score == max(scores)


def test_an_ensemble_compares_ranks_so_the_scale_of_a_score_does_not_matter() -> None:
    loud, quiet, calm = (900.0, 100.0, 500.0, 0.0), (0.1, 0.4, 0.3, 0.2), (0.0, 1.0, 1.0, 0.5)
    assert mean_ranks([loud]) == [1, 3, 2, 4]
    assert mean_ranks([loud, quiet, calm]) == [pytest.approx(r) for r in (3.0, 5.5 / 3, 5.5 / 3, 10 / 3)]


def test_searches_can_choose_by_ranks(model: DiffusionModel) -> None:
    search = searching(model, eta=0)
    generator: Any = search.generator
    weights = {"ink": 1000.0, "symmetry": 1.0, "compressibility": 1.0}
    scorer = Composed([(PictureScorer(generator, SIMPLE[name], name), weight) for name, weight in weights.items()])
    found = {}
    for strategy in ("best_of_n:n=6", "best_of_n:n=6,by=ranks", "zero_order:n=3,rounds=2,by=ranks"):
        search = Search(search.problem, generator, scorers=scorer, sampling=search.sampling, seed=1)
        answer = painted(strategy, search)
        assert answer.node is not None
        ends = [record for record in search.trace.values() if record.node.done]
        ranks = mean_ranks(list(zip(*(end.steps for end in ends), strict=True)))
        found[strategy] = ranks[[end.node for end in ends].index(answer.node)] == min(ranks)
    assert list(found.values()) == [False, True, True]


def test_a_search_refuses_a_sampler_that_lacks_its_needs(model: DiffusionModel) -> None:
    for strategy in ("fk_steering", "dts"):
        with pytest.raises(CapabilityError, match="eta above 0"):
            painted(strategy, searching(model, eta=0))
    with pytest.raises(CapabilityError, match="eta 0"):
        painted("zero_order", searching(model, eta=1))
    with pytest.raises(CapabilityError, match="answers"):
        painted("majority", searching(model))


def test_a_budget_below_one_picture_and_a_limit_that_counts_nothing_are_refused(model: DiffusionModel) -> None:
    search = searching(model, budget=Budget(nfe=STEPS - 1))
    assert painted("best_of_n:n=2", search).finish == "incomplete"
    assert search.ledger.spent.denoiser_calls == 0
    with pytest.raises(InputError, match=r"budget.tokens=100: this model generates no tokens"):
        searching(model, budget=Budget(tokens=100))
    assert Budget.parse("400nfe,3s") == Budget(nfe=400, seconds=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 1.5}, "eta=1.5: give 0"),
        ({"stride": 0}, "stride=0: give 1 to"),
        ({"steps": 0}, "steps=0: give 1 to 1000"),
        ({"steps": 1001}, "steps=1001: give 1 to 1000"),
        ({"guidance": -1.0}, "guidance=-1.0: give 1 for no guidance"),
        ({"guidance": float("nan")}, "guidance=nan: give 1 for no guidance"),
    ],
)
def test_options_that_cannot_work_are_refused(model: DiffusionModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        DiffusionGenerator(model, **options)


def test_guidance_without_an_unconditional_prediction_is_refused(tmp_path: Path) -> None:
    plain = tiny_diffusion.classes(tmp_path)
    (plain / "labels.json").unlink()
    with pytest.raises(InputError, match="guidance=2: guidance needs predictions without a class"):
        DiffusionGenerator(plain, guidance=2)


def test_an_unknown_class_is_refused(model: DiffusionModel) -> None:
    with pytest.raises(InputError, match="prompt='a cat': name one class: 0, 1, 2, 3"):
        searching(model, "a cat")
    assert searching(model, "class 3, please").root.state.condition == 3
    assert searching(model, None).root.state.condition is None


def test_another_number_of_steps_than_the_sampler_takes_is_refused(model: DiffusionModel) -> None:
    generator = DiffusionGenerator(model, steps=STEPS)
    search = Search(Problem("picture", "1"), generator)
    with pytest.raises(InputError, match=rf"max_length=512: .*Sampling\(max_length={STEPS}\)"):
        asyncio.run(search.extend([search.root]))


def test_repeated_levels_are_refused() -> None:
    with pytest.raises(InputError, match="two steps would be at the same level"):
        Levels((500, 500, 0), (0.2, 0.2, 0.9, 1.0))
    with pytest.raises(InputError, match="back_to=3: give a position from 0 to 1"):
        Levels((900, 500, 100), (0.2, 0.4, 0.9, 1.0)).renoise(random((1, 2, 2), 0), 2, 3, random((1, 2, 2), 1))


def test_a_directory_without_a_model_is_refused(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(InputError, match="no diffusers directory"):
        DiffusionModel(tmp_path)
    flow = tmp_path / "flow"
    (flow / "scheduler").mkdir(parents=True)
    (flow / "model_index.json").write_text("{}")
    (flow / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "FlowMatchEulerDiscreteScheduler"}')
    with pytest.raises(InputError, match="scheduler='FlowMatchEulerDiscreteScheduler': only variance-preserving"):
        DiffusionModel(flow)


def test_parts_whose_states_have_other_shapes_are_refused(tmp_path: Path, directory: Path, latent: Path) -> None:
    from diffusers import AutoencoderKL, UNet2DModel

    for source, part, wrong, message in (
        (directory, "unet", {"out_channels": 2}, "it predicts 2 channels for states of 1"),
        (latent, "vae", {"latent_channels": 3}, "its decoder takes 3 channels, its states have 4"),
    ):
        copy = shutil.copytree(source, tmp_path / part)
        config = json.loads((copy / part / "config.json").read_text()) | wrong
        parts = {"unet": UNet2DModel, "vae": AutoencoderKL}
        parts[part].from_config(config).save_pretrained(copy / part)
        with pytest.raises(InputError, match=message):
            DiffusionModel(copy)


@pytest.mark.parametrize("strategy", ["best_of_n:n=3", "fk_steering:n=3", "dts:n=3", "beam_search:n=4", "zero_order"])
def test_nan_scores_are_missing_and_a_picture_is_still_returned(model: DiffusionModel, strategy: str) -> None:
    eta = 0.0 if strategy == "zero_order" else 1.0
    generator = DiffusionGenerator(model, steps=STEPS, eta=eta)
    search = Search(
        Problem("picture", "2"),
        generator,
        scorers=PictureScorer(generator, lambda pictures, _: pictures.mean((1, 2, 3)) * float("nan"), "broken"),
        sampling=Sampling(max_length=STEPS),
        budget=Budget(nfe=30),
    )
    answer = painted(strategy, search)
    assert answer.node is not None and answer.node.done
    assert all(record.score is None for record in search.trace.values())


def test_a_measure_that_returns_too_few_numbers_is_named(model: DiffusionModel) -> None:
    generator = DiffusionGenerator(model, steps=STEPS)
    scorer = PictureScorer(generator, lambda pictures, _: pictures[:1].mean((1, 2, 3)), "lazy")
    search = Search(Problem("p", "2"), generator, scorers=scorer, sampling=Sampling(max_length=STEPS))
    with pytest.raises(ModelError, match="scorer='lazy': it gave 1 numbers for 3 pictures"):
        painted("best_of_n:n=3", search)


def test_stable_diffusion_is_steered_and_equals_its_pipeline(latent: Path) -> None:
    from diffusers import StableDiffusionPipeline

    search = searching(latent, "a cat", eta=0, guidance=3.0)
    answer = painted("best_of_n:n=2", search)
    assert answer.node is not None
    assert answer.usage.denoiser_calls == 2 * 2 * STEPS
    assert answer.usage.decodes == 2
    generator: Any = search.generator
    (picture,) = generator.model.pictures([answer.node.state.x])
    assert picture.shape == (3, 16, 16)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(latent, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    rng = np.random.Generator(np.random.Philox(key=int(answer.node.key, 16)))
    latents = torch.from_numpy(rng.standard_normal(generator.model.shape, np.float32))[None]
    theirs = pipeline("a cat", num_inference_steps=STEPS, guidance_scale=3.0, latents=latents, output_type="np").images[
        0
    ]
    np.testing.assert_allclose(picture.transpose(1, 2, 0), theirs, atol=2e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_pull_shifts_the_noise_by_the_gradient_at_the_clean_estimate(tmp_path: Path, prediction: str) -> None:
    model = DiffusionModel(tiny_diffusion.classes(tmp_path, prediction=prediction))
    levels = replace(model.levels(STEPS), clip=None)
    model._sampler.register_to_config(clip_sample=False)
    x: Array = random(model.shape, 3) / np.float32(4)
    call = Call(x, levels.timesteps[2], 1, 1.0)

    def predicted(state: Array) -> Array:
        found: Array = model.predict([call._replace(x=state)])[0][0]
        return found

    def measured(state: Array) -> float:
        clean = np.stack([levels.clean(state, predicted(state), 2)])
        return float((torch.from_numpy(clean) / 2 + 0.5).clip(0, 1).square().sum())

    pull = Pull([Part("square", lambda pictures, _: pictures.square().sum((1, 2, 3)))], 1.5)
    ((moved, _),) = model.predict([call], pull)
    alpha = levels.alphas[2]
    noises = [parts(x, each, alpha**0.5, (1 - alpha) ** 0.5, levels.prediction)[1] for each in (predicted(x), moved)]
    slope = (noises[0] - noises[1]) / (1.5 * (1 - alpha) ** 0.5)
    for index in [(0, 1, 2), (0, 4, 4), (0, 6, 3)]:
        above, below = x.copy(), x.copy()
        above[index] += 0.02
        below[index] -= 0.02
        rise = (measured(above) - measured(below)) / 0.04
        assert slope[index] == pytest.approx(rise, rel=0.05, abs=5e-3)


def test_a_pull_gives_more_ink_and_its_backward_passes_are_counted(model: DiffusionModel) -> None:
    (free, plain), (pulled, strong) = (
        (search := searching(model, pull=pull), painted("best_of_n:n=16", search))
        for pull in (None, Pull([Part("ink", ink)], 100.0))
    )
    dark, bright = ([r.score for r in each.trace.values() if r.score is not None] for each in (free, pulled))
    assert np.mean(bright) > np.mean(dark) + 0.1
    assert plain.usage.denoiser_calls == strong.usage.denoiser_calls == 16 * STEPS
    assert plain.usage.flops is not None and strong.usage.flops == 2 * plain.usage.flops
    parts = [Part(name, SIMPLE[name]) for name in ("ink", "compressibility")]
    with pytest.raises(InputError, match="pull='compressibility': it has no gradient"):
        painted("single", searching(model, pull=Pull(parts)))
    with pytest.raises(InputError, match="pull=0: give a number above 0"):
        Pull([Part("ink", ink)], 0)


def test_the_gradient_goes_through_the_decoder_of_a_text_model(latent: Path) -> None:
    search = searching(latent, "a cat", guidance=2.0, pull=Pull([Part("ink", ink)], 10.0))
    assert painted("single", search).usage.denoiser_calls == 2 * STEPS


def test_scores_of_pictures_by_hand() -> None:
    half = torch.zeros(1, 1, 2, 4)
    half[..., 2:] = 1.0
    assert float(ink(half, [None])[0]) == 0.5
    assert float(symmetry(half, [None])[0]) == -1.0
    flat, noisy = torch.zeros(1, 16, 16), torch.from_numpy(np.random.default_rng(0).random((1, 16, 16), np.float32))
    plain, wild = SIMPLE["compressibility"](torch.stack([flat, noisy]), [None, None])
    assert -0.03 < plain < 0 and wild < -0.2


def test_a_class_is_scored_by_its_log_probability() -> None:
    torch.manual_seed(0)
    classifier = Classifier(8, 1, (4,), 3, 8, ("0", "1", "2")).eval().requires_grad_(False)
    picture = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    shown = torch.from_numpy(picture)[None]
    table = classifier.log_probabilities([picture])
    assert np.exp(table).sum() == pytest.approx(1)
    assert float(class_score(classifier)(shown, [2])[0]) == pytest.approx(float(table[0, 2]))
    assert float(class_score(classifier, target=1)(shown, [None])[0]) == pytest.approx(float(table[0, 1]))
    with pytest.raises(InputError, match="it names no class"):
        class_score(classifier)(shown, [None])
    with pytest.raises(InputError, match="target=3: give a class from 0 to 2"):
        class_score(classifier, target=3)


def test_a_score_counts_the_operations_of_its_classifier(model: DiffusionModel) -> None:
    generator = DiffusionGenerator(model, steps=STEPS)
    scorer = PictureScorer(generator, class_score(Classifier(8, 1, (4,), 3, 8, ("0", "1", "2", "3")).eval()), "class")
    search = searching(model)
    root = search.root
    convolution, inner, outer = 2 * 8 * 8 * 4 * 9, 2 * (4 * 4 * 4) * 8, 2 * 8 * 4
    assert scorer.worst_case(search.problem, root, None).scorer_flops == convolution + inner + outer
    with pytest.raises(InputError, match="it names no class"):
        Search(Problem("any", ""), generator, scorers=scorer, sampling=Sampling(max_length=STEPS))


def test_a_classifier_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(8, 1, (4, 6), 3, 8, ("0", "1")).eval()
    classifier.save(tmp_path)
    picture = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    read = Classifier.load(tmp_path)
    np.testing.assert_allclose(read.log_probabilities([picture]), classifier.log_probabilities([picture]), atol=1e-2)
    with pytest.raises(InputError, match="classifier="):
        Classifier.load(tmp_path / "nothing")


def test_scores_compose_and_missing_scores_stay_missing(model: DiffusionModel) -> None:
    search = searching(model)
    generator: Any = search.generator
    parts = [PictureScorer(generator, ink, "ink"), PictureScorer(generator, symmetry, "symmetry")]
    both = Composed([(parts[0], 1.0), (parts[1], 0.5)])
    assert both.name == "sum(ink,0.5*symmetry)"

    async def run() -> None:
        leaves = await search.extend([search.root], 3)
        alone = [await part.score(search.problem, leaves, [None] * 3) for part in parts]
        for score, a, b in zip(await both.score(search.problem, leaves, [None] * 3), *alone, strict=True):
            assert a.value is not None and b.value is not None
            assert score.value == pytest.approx(a.value + 0.5 * b.value)
            assert score.usage.scorer_calls == 2
        assert [score.value for score in await both.score(search.problem, [search.root], [None])] == [None]

    asyncio.run(run())
    with pytest.raises(InputError, match="name at least one"):
        Composed([])
    with pytest.raises(InputError, match="how='product'"):
        Composed([(parts[0], 2.0)], "product")


def test_clip_distinguishes_prompts_and_has_a_gradient(tmp_path: Path) -> None:
    """The weights are random, so the scores mean nothing, but they equal those of CLIP's own model."""
    measure = clip_score(tiny_diffusion.clip(tmp_path))
    shown = torch.from_numpy(np.random.default_rng(0).random((2, 1, 16, 16), np.float32))
    cat, dog, *_ = measure(torch.cat([shown, shown]), ["a cat", "a dog", "a dog", "a cat"])
    assert -1 <= float(cat) <= 1 and float(cat) != float(measure(shown[:1], ["a dog"])[0])
    assert float(dog) == pytest.approx(float(measure(shown[1:], ["a dog"])[0]), abs=1e-5)


def test_adapters_without_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CLIP directory"):
        clip_score(tmp_path)
    with pytest.raises(InputError, match="image-reward"):
        image_reward(tmp_path)
