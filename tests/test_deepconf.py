"""Votes by the model's own confidence: measures and stops worked out by hand, banks, the engine, an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from fake_endpoint import Running
from tiny import in_full, tiny_engine, tiny_model, words
from toy import ANSWERS, MemoryJournal, Piece, ToyGenerator, solve, toy_search

from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Child, Extension, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import RemoteText, Text, pack, pack_remote, unpack, unpack_remote
from thinktime.models.engine.rows import Row
from thinktime.models.engine.sampling import confidences
from thinktime.models.remote.protocol import read_choices
from thinktime.strategies import check
from thinktime.strategies.sampling.deepconf import MEASURES, DeepConf, DeepConfOnline, groups, percentile
from thinktime.strategies.sampling.majority import Majority

Samples = Mapping[int, tuple[str, tuple[float, ...]]]


def speaker(samples: Samples) -> ToyGenerator:
    """Each sample of the root says its words with these confidences, also if it is extended in parts."""

    def say(extension: Extension) -> Piece:
        words, known = samples[(*extension.node.path, extension.index)[0]]
        said = len(extension.node.state.ids)
        return Piece(" ".join(words.split()[said:]), "eos", confidences=known[said:])

    return ToyGenerator(say)


def search_of(samples: Samples, **options: Any) -> Search:
    return toy_search(speaker(samples), None, **options)


# Measures


def test_a_group_is_a_window_of_consecutive_tokens() -> None:
    assert groups([4, 2, 6, 8], 2) == [3, 4, 7]
    assert groups([4, 2, 6], 3) == [4]
    assert groups([4, 2], 9) == [3], "a sample shorter than a window is one group"


def test_the_measures_of_a_sample() -> None:
    """Twenty groups of one token: the lowest tenth are two."""
    known = [float(i) for i in range(5, 25)]
    assert MEASURES["lowest"](known, 1) == 5
    assert MEASURES["bottom"](known, 1) == 5.5
    assert MEASURES["bottom"](known[:9], 1) == 5, "at least one group"
    assert MEASURES["tail"](known, 4) == 22.5
    assert MEASURES["tail"](known, 99) == MEASURES["mean"](known, 1) == 14.5


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 3), (0.9, 7.2), (1, 8), (0.25, 2)])
def test_a_percentile_is_linear_between_two_values(share: float, value: float) -> None:
    assert percentile([8, 3, 1, 4, 2], share) == pytest.approx(value if share != 0.9 else 4 + 0.6 * 4)


def test_a_confidence_is_minus_the_mean_of_the_twenty_highest_log_probabilities() -> None:
    logits = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logprobs = logits.log_softmax(-1)
    expected = -logprobs.sort(-1, descending=True).values[:, :20].mean(-1)
    assert torch.allclose(confidences(logprobs), expected)
    assert torch.allclose(confidences(logprobs[:, :7]), -logprobs[:, :7].mean(-1)), "a small vocabulary"


def test_the_engine_gives_confidences_to_the_rows_that_ask() -> None:
    """They are those of the whole distribution at temperature 1, and the samples are the same as without."""
    asked = Row(words(7), key=3, max_tokens=6, temperature=1.5, top_p=0.8, confidences=True)
    other = Row(words(9, 1), key=4, max_tokens=8)
    found, silent = tiny_engine().run([asked, other])
    assert (found.ids, silent.ids) == (in_full(replace(asked, confidences=False))[0], in_full(other)[0])
    model = tiny_model()
    with torch.inference_mode():
        logits = model.head(model.model(torch.tensor(asked.ids + found.ids))).double()
    expected = confidences(logits[len(asked.ids) - 1 : -1].log_softmax(-1))
    assert found.confidences == pytest.approx(expected.tolist(), abs=1e-4) and silent.confidences == ()


# All samples first


VOTE: Samples = {
    0: ("so 5", (1.0, 1.0)),
    1: ("be 5", (1.0, 2.0)),
    2: ("is 7", (4.0, 4.0)),
    3: ("what", (9.0,)),
    4: ("a 5", (1.0, 1.4)),
}
"""Three unsure samples for 5, a sure one for 7, and one that cannot be read."""


def test_confidences_weigh_the_votes() -> None:
    """5 has 1 + 1.5 + 1.2, and 7 has 4."""
    search = search_of(VOTE)
    answer = solve(DeepConf(n=5, keep=1), search)
    assert (answer.value, answer.share) == pytest.approx(("7", 4 / 7.7))
    assert search.events == [{"confidences": pytest.approx([1.0, 1.5, 4.0, 1.2]), "kept": 4}]
    assert solve(Majority(n=5), search_of(VOTE)).value == "5"


def test_the_least_confident_samples_have_no_vote() -> None:
    """The 60th percentile of 1, 1.2, 1.5 and 4 is 1.44, so two samples are kept."""
    search = search_of(VOTE)
    answer = solve(DeepConf(n=5, keep=0.4), search)
    assert (answer.value, answer.share) == pytest.approx(("7", 4 / 5.5))
    assert search.events[0]["kept"] == 2


def test_a_sample_on_the_percentile_is_kept() -> None:
    assert solve(DeepConf(n=5, keep=1e-9), search_of(VOTE)).share == 1.0


def test_another_measure_gives_another_vote() -> None:
    samples = {0: ("so so 5", (0.1, 9.0, 9.0)), 1: ("is an 7", (4.0, 4.0, 4.0))}
    for by, value in (("mean", "5"), ("tail", "5"), ("lowest", "7"), ("bottom", "7")):
        assert solve(DeepConf(n=2, by=by, window=1, keep=1), search_of(samples)).value == value


def test_without_readable_answers_there_is_none() -> None:
    assert solve(DeepConf(n=1), search_of({0: ("what", (1.0,))})).value is None


# Later samples are stopped

STOP: Samples = {
    0: ("a 7", (4.0, 2.0)),
    1: ("so be 7", (1.0, 3.0, 5.0)),
    2: ("e 5", (4.0, 4.0)),
    3: ("x y z w 5", (3.0, 3.0, 1.0, 1.0, 9.0)),
    4: ("b 7", (9.0, 9.0)),
    5: ("a b c d 9", (9.0, 9.0, 9.0, 9.0, 9.0)),
}
"""The lowest groups of two tokens of the first three samples are 3, 2 and 4, so a half reaches 3."""


def online(**options: Any) -> DeepConfOnline:
    return DeepConfOnline(**{"n": 5, "warmup": 3, "keep": 0.5, "window": 2, "every": 1, "batch": 2, **options})


def test_a_sample_ends_when_a_group_is_below_the_bar() -> None:
    """The fourth sample's groups are 3, then 2: it ends after three of five tokens. 7 has 3 + 9, and 5 has 4."""
    search = search_of(STOP)
    answer = solve(online(), search)
    assert (answer.value, answer.share, answer.finish) == pytest.approx(("7", 12 / 16, "done"))
    assert search.events == [{"bar": 3.0, "samples": 5, "stopped": 1, "voters": 3}]
    assert answer.usage.generated_tokens == 2 + 3 + 2 + 3 + 2
    (last,) = [record.node for record in search.records() if record.pruned]
    assert (last.state.text, last.finish) == ("x y z", "cut")


def test_a_sample_is_checked_every_few_tokens() -> None:
    """After the first window the check is two tokens later, so the fourth sample has four."""
    search = search_of(STOP)
    solve(online(every=2), search)
    assert [record.node.state.text for record in search.records() if record.pruned] == ["x y z w"]


def test_sampling_ends_at_consensus() -> None:
    """With a bar at the lowest group all three vote: 5 has 4 of 9. The sure sample for 7 then gives 7 14 of 18."""
    search = search_of(STOP)
    answer = solve(online(n=6, keep=1, batch=1, consensus=0.75), search)
    assert (answer.value, search.events[0]["samples"]) == ("7", 5)
    agreed = search_of(dict.fromkeys(range(5), ("a 7", (1.0, 1.0))))
    solve(online(), agreed)
    assert agreed.events[0]["samples"] == 3, "the warm-up agrees"


def test_a_short_sample_below_the_bar_has_no_vote() -> None:
    """It ends before it has a window, so it is not stopped, but its only group counts."""
    samples = {**STOP, 3: ("5", (1.0,)), 4: ("9", (9.0,))}
    search = search_of(samples)
    assert solve(online(), search).value == "9"
    assert search.events[0]["stopped"] == 0 and search.events[0]["voters"] == 3


def test_online_ends_with_its_budget() -> None:
    search = search_of(STOP, budget=Budget(tokens=7))
    answer = solve(online(), search)
    assert answer.finish == "budget" and answer.value in ("5", "7")
    assert answer.usage.generated_tokens <= 7


def test_more_warm_up_than_samples_and_shares_above_one_are_refused() -> None:
    for options, message in (
        ({"warmup": 6}, r"^warmup=6: give 1 to n=5"),
        ({"keep": 1.5}, r"^keep=1\.5: give a share, at most 1"),
        ({"consensus": 2}, r"^consensus=2: give a share, at most 1"),
    ):
        with pytest.raises(InputError, match=message):
            online(**options)


def test_copies_are_refused_at_temperature_zero() -> None:
    with pytest.raises(InputError, match=r"^temperature=0"):
        solve(online(), search_of(STOP, temperature=0))


# Confidences


class Mute(ToyGenerator):
    """Its samples have no confidences, though it offers them."""

    async def extend(self, extensions: Any) -> list[Child]:
        children = await super().extend(extensions)
        return [replace(child, state=replace(child.state, confidences=())) for child in children]


@pytest.mark.parametrize("strategy", [DeepConf(n=3), DeepConfOnline(n=3, warmup=3)])
def test_samples_without_confidences_are_one_clear_error(strategy: Any) -> None:
    message = r"^none of 3 samples has token confidences: the endpoint .* \(top_logprobs\); take majority$"
    with pytest.raises(ModelError, match=message):
        solve(strategy, toy_search(Mute(speaker(VOTE)._say), None))


def test_a_model_without_confidences_is_refused() -> None:
    class Plain(ToyGenerator):
        capabilities = ToyGenerator.capabilities - {Capability.CONFIDENCES}

    search = toy_search(Plain(speaker(VOTE)._say), None)
    for name, strategy in (("deepconf", DeepConf()), ("deepconf_online", DeepConfOnline())):
        with pytest.raises(CapabilityError, match=r"it needs token confidences, .* the nearest first: "):
            check(name, strategy, search)
    with pytest.raises(CapabilityError, match="it lacks token confidences"):
        solve(DeepConf(), search)


def test_other_strategies_draw_no_confidences() -> None:
    search = search_of(VOTE)
    solve(Majority(n=5), search)
    assert {record.node.state.confidences for record in search.records()} == {()}


def test_a_bank_of_samples_without_confidences_is_completed_and_both_are_found_again() -> None:
    """A vote finds DeepConf's samples; DeepConf draws a vote's samples again, and keeps them beside."""
    bank = MemoryJournal()
    solve(Majority(n=3), search_of(VOTE, journal=bank))
    before = dict(bank.samples)
    solve(DeepConf(n=5), first := search_of(VOTE, journal=bank))
    assert len(bank.samples) == 3 + 5 and before.items() <= bank.samples.items()
    for strategy in (DeepConf(n=5), Majority(n=5)):
        again = toy_search(model := speaker(VOTE), None, journal=bank)
        solve(strategy, again)
        assert model.asked == []
    assert [record.node.state for record in again.records()] == [record.node.state for record in first.records()]


def test_a_packed_state_has_confidences_only_if_they_were_drawn() -> None:
    before, after = Text((1,), (2,), confidences=(0.5,)), Text((1,), (2, 3), "a", (2,), -1.0, confidences=(0.5, 0.25))
    packed = pack(before, after)
    assert packed["confidences"] == (0.25,)
    assert unpack(before, packed).confidences == (0.5, 0.25)
    assert "confidences" not in pack(Text((1,)), Text((1,), (2,)))
    del packed["confidences"]
    assert unpack(Text((1,)), packed).confidences == ()
    remote = RemoteText("q", "a", 1, (1,), -1.0, confidences=(2.0,))
    assert unpack_remote(RemoteText("q"), pack_remote(RemoteText("q"), remote)).confidences == (2.0,)
    for wrong in ("no", [None], 3):
        with pytest.raises(TypeError, match="confidences="):
            unpack(Text((1,)), packed | {"confidences": wrong})


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"content": [{"logprob": -0.5, "top_logprobs": [{"logprob": -0.5}, {"logprob": -2.5}]}]}, (1.5,)),
        ({"token_logprobs": [-0.5, -1], "top_logprobs": [{"a": -1, "b": -3}, {"c": -5}]}, (2.0, 5.0)),
        ({"content": [{"logprob": -0.5}]}, ()),
        ({"content": [{"logprob": -0.5, "top_logprobs": []}]}, ()),
        ({"content": [{"logprob": -0.5, "top_logprobs": [{"logprob": "x"}]}]}, ()),
        ({"content": [{"logprob": -0.5, "top_logprobs": 3}]}, ()),
        ({"content": [{"logprob": -0.5, "top_logprobs": [3]}]}, ()),
        ({"token_logprobs": [-0.5], "top_logprobs": [None]}, ()),
        ({"token_logprobs": [-0.5], "top_logprobs": 7}, ()),
    ],
)
def test_confidences_of_an_endpoint_are_those_of_the_tokens_that_it_lists(listed: Any, expected: Any) -> None:
    (choice,) = read_choices({"choices": [{"text": "a", "finish_reason": "stop", "logprobs": listed}]}, "url")
    assert choice.confidences == expected


@pytest.mark.parametrize("api", ["", "/completions"])
def test_an_endpoint_is_asked_for_likely_tokens_only_by_confidences(api: str) -> None:
    with Running(candidates=[{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -4.0}]) as endpoint:

        async def run() -> Search:
            generator = RemoteGenerator(endpoint.url + api, "words")
            search = Search(Problem("sum", "what is 3 + 4"), generator, answers=ANSWERS, sampling=Sampling())
            try:
                await search.extend([search.root])
                assert "top_logprobs" not in endpoint.requests[-1]
                await search.extend([search.root], confidences=True)
            finally:
                await generator.close()
            return search

        search = asyncio.run(run())
    *_, asked = endpoint.requests
    state = search.records()[-1].node.state
    if api:
        assert asked["logprobs"] == 20
    else:
        assert (asked["logprobs"], asked["top_logprobs"]) == (True, 20)
        assert set(state.confidences) == {2.5} and len(state.confidences) == state.tokens
