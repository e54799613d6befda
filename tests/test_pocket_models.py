"""The shipped models are plain Hugging Face directories, and other families work through the same generator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from benchmarks.families.random_models import FIELDS, write_random_model
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.generators.local import LocalGenerator
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.models.engine.models import LanguageModel, load_language_model
from thinktime.models.engine.rows import Read, Row
from thinktime.models.engine.states import Segments
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.pocket import directory
from thinktime.pocket.tokenizer import END, build

MIB = 2**20
FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral")


@pytest.fixture(scope="module")
def other_families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small random model of each family, written by ``transformers``, with the pocket tokenizer."""
    return {family: write_random_model(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def _greedy(generator: LocalGenerator, questions: tuple[str, ...], n_tokens: int) -> list[tuple[int, ...]]:
    """Greedy continuations of all questions, sampled in one batch."""

    async def one(question: str) -> tuple[int, ...]:
        search = Search(Problem(question, question), generator, sampling=Sampling(0.0, max_length=n_tokens))
        (child,) = await search.extend([search.root])
        ids: tuple[int, ...] = child.state.ids
        return ids

    async def together() -> list[tuple[int, ...]]:
        return list(await asyncio.gather(*map(one, questions)))

    return asyncio.run(together())


def _transformers_greedy(model: Any, ids: list[int], n_tokens: int) -> tuple[int, ...]:
    prompt = torch.tensor([ids])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=n_tokens,
        eos_token_id=1,
        pad_token_id=0,
    )
    return tuple(out[0, len(ids) :].tolist())


def _auto_model(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype="float32", local_files_only=True).eval()


@pytest.mark.parametrize("name", ["solver", "reward"])
def test_a_shipped_directory_is_float16_and_at_most_8_mib(name: str) -> None:
    path = directory(name)
    assert sum(file.stat().st_size for file in path.rglob("*")) <= 8 * MIB
    with safe_open(path / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118


@pytest.fixture(scope="module")
def built() -> Any:
    """The tokenizer that the code builds, as JSON."""
    return json.loads(build().to_str())


@pytest.mark.parametrize("name", ["solver", "reward"])
def test_a_shipped_tokenizer_is_the_one_that_the_code_builds(name: str, built: Any) -> None:
    shipped = Tokenizer.from_file(str(directory(name) / "tokenizer.json"))
    assert json.loads(shipped.to_str()) == built


def test_transformers_computes_the_same_solver_logits(
    solver_directory: Path, transformers_solver: Any, questions: tuple[str, ...]
) -> None:
    ours = load_language_model(solver_directory, "float32")
    assert isinstance(ours.model, Llama)
    for question in questions[:5]:
        ids = torch.tensor([ours.tokenizer.encode_chat(question)])
        with torch.inference_mode():
            mine = ours.model.head(ours.model.model(ids))
            theirs = transformers_solver(ids).logits
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_transformers_computes_the_same_reward_logits(
    reward_directory: Path, language_model: LanguageModel, questions: tuple[str, ...]
) -> None:
    from transformers import AutoModelForTokenClassification

    ours = Llama.load(reward_directory)
    theirs = AutoModelForTokenClassification.from_pretrained(
        reward_directory, dtype="float32", local_files_only=True
    ).eval()
    assert theirs.config.id2label == {0: "wrong", 1: "right"}
    for question in questions[:5]:
        ids = torch.tensor([language_model.tokenizer.encode_chat(question)])
        with torch.inference_mode():
            mine, reference = ours.head(ours.model(ids)), theirs(ids).logits
        assert mine.shape == (1, ids.shape[1], 2)
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Ann has 5 books."}],
        [
            {"role": "user", "content": "How many books does Ann have?"},
            {"role": "assistant", "content": "Answer: 5"},
            {"role": "user", "content": "Ann buys 3 books."},
        ],
    ],
)
def test_transformers_chat_template_gives_the_same_ids(
    messages: list[dict[str, str]], transformers_tokenizer: Any, solver_directory: Path
) -> None:
    ids = transformers_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ChatTokenizer(solver_directory).encode_chat(messages) == list(ids)


def test_a_string_prompt_is_one_user_turn(solver_directory: Path) -> None:
    tokenizer = ChatTokenizer(solver_directory)
    assert tokenizer.encode_chat("Ann has 5 books.") == tokenizer.encode_chat(
        [{"role": "user", "content": "Ann has 5 books."}]
    )


def test_transformers_stops_at_a_step_with_stop_strings(
    transformers_solver: Any, transformers_tokenizer: Any, questions: tuple[str, ...]
) -> None:
    ids = torch.tensor([ChatTokenizer(directory("solver")).encode_chat(questions[0])])
    out = transformers_solver.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=100,
        stop_strings=["\n"],
        tokenizer=transformers_tokenizer,
    )
    text = transformers_tokenizer.decode(out[0, ids.shape[1] :])
    assert text.endswith("\n") and text.count("\n") == 1


def test_transformers_stops_at_the_end_token_by_the_shipped_generation_config(
    transformers_solver: Any, transformers_tokenizer: Any, questions: tuple[str, ...]
) -> None:
    ids = torch.tensor([ChatTokenizer(directory("solver")).encode_chat(questions[0])])
    out = transformers_solver.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)
    new = out[0, ids.shape[1] :].tolist()
    assert new[-1] == transformers_tokenizer.convert_tokens_to_ids(END) == transformers_tokenizer.eos_token_id
    assert new.count(new[-1]) == 1 and len(new) < 200


@pytest.mark.parametrize("family", FAMILIES)
def test_another_family_generates_what_transformers_generates(
    family: str, other_families: dict[str, Path], questions: tuple[str, ...]
) -> None:
    generator = LocalGenerator(other_families[family], dtype="float32")
    reference = _auto_model(other_families[family])
    tokenizer = ChatTokenizer(other_families[family])
    asked = (questions[0], questions[4], questions[9])  # their lengths differ, so the batch is padded
    ours = _greedy(generator, asked, 24)
    assert ours == [_transformers_greedy(reference, tokenizer.encode_chat(question), 24) for question in asked]
    assert len(set(ours)) == len(ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logprobs_of_another_family_are_those_of_transformers(
    family: str, other_families: dict[str, Path], questions: tuple[str, ...]
) -> None:
    """Rows share their prompt, which is processed in chunks while other rows run."""
    ours, theirs = load_language_model(other_families[family]), _auto_model(other_families[family])
    prompts = [tuple(ours.tokenizer.encode_chat(question)) for question in (questions[0], questions[4])]
    rows = [Row(ids, key, max_tokens=12, temperature=0.7) for ids in prompts for key in range(3)]
    for row, output in zip(rows, ours.engine(max_tokens=30).run(rows), strict=True):
        with torch.inference_mode():
            logits = theirs(torch.tensor([row.ids + output.ids])).logits[0].double()
        expected = [float(logits[len(row.ids) + i - 1].log_softmax(-1)[token]) for i, token in enumerate(output.ids)]
        assert output.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hidden_states_of_another_family_are_those_of_transformers(
    family: str, other_families: dict[str, Path], questions: tuple[str, ...]
) -> None:
    ours, theirs = load_language_model(other_families[family]), _auto_model(other_families[family])
    ids = tuple(ours.tokenizer.encode_chat(questions[0]))
    [output] = ours.engine(max_tokens=30).run([Read(ids, 5, Segments(layers=(0,)))])
    with torch.inference_mode():
        states = theirs(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]  # 0 is the embedding
    torch.testing.assert_close(output.states, states[:, None, 5:].mean(2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_missing_device_is_refused_by_name(device: str) -> None:
    with pytest.raises(InputError, match=rf"device='{device}'.*give cpu") as caught:
        load_language_model(directory("solver"), device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_greedy_samples_are_the_same_on_gpu_and_cpu(questions: tuple[str, ...]) -> None:
    there, here = (load_language_model(directory("solver"), device=device) for device in ("cuda", "cpu"))
    rows = [Row(tuple(here.tokenizer.encode_chat(q)), 0, max_tokens=60, temperature=0.0) for q in questions]
    outputs = [model.engine(max_tokens=100).run(rows) for model in (there, here)]
    assert [output.ids for output in outputs[0]] == [output.ids for output in outputs[1]]
    for ours, theirs in zip(*outputs, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_family_is_charged_for_the_parameters_that_a_token_is_multiplied_with(
    family: str, other_families: dict[str, Path]
) -> None:
    everything = sum(p.numel() for p in _auto_model(other_families[family]).parameters())
    input_embedding = 500 * 32  # untied, so it is a table and no multiplication
    assert load_language_model(other_families[family]).shape.parameters == everything - input_embedding


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
            "rope_theta": 10000.0,
        },
    ],
    ids=["linear", "llama3"],
)
def test_a_llama_with_scaled_rotary_positions_generates_what_transformers_generates(
    rope: dict[str, Any], tmp_path: Path, questions: tuple[str, ...]
) -> None:
    path = write_random_model("Llama", tmp_path, rope_parameters=rope)
    ids = ChatTokenizer(path).encode_chat(questions[4])
    (ours,) = _greedy(LocalGenerator(path, dtype="float32"), (questions[4],), 24)
    assert ours == _transformers_greedy(_auto_model(path), ids, 24)


def test_a_llama_with_biases_generates_what_transformers_generates(tmp_path: Path, questions: tuple[str, ...]) -> None:
    path = write_random_model("Llama", tmp_path, attention_bias=True)
    ids = ChatTokenizer(path).encode_chat(questions[4])
    (ours,) = _greedy(LocalGenerator(path, dtype="float32"), (questions[4],), 24)
    assert ours == _transformers_greedy(_auto_model(path), ids, 24)


def test_fields_that_a_llama_config_lacks_have_the_defaults_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoConfig

    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    given = {name: value for name, value in FIELDS.items() if name in needed}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **given}))
    theirs = AutoConfig.from_pretrained(tmp_path)
    ours = LlamaConfig.read(tmp_path)
    for name in ("num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


def test_a_saved_llama_loads_to_the_same_logits(tmp_path: Path, solver_directory: Path) -> None:
    model = Llama.load(solver_directory)
    model.save(tmp_path, torch.float32)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        again = Llama.load(tmp_path)
        assert torch.equal(model.head(model.model(ids)), again.head(again.model(ids)))
