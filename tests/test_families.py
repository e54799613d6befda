"""Model directories of other families: they give what transformers gives, or are refused in one line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.families.random_models import write_random_model
from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.rows import Output, Read, Row

GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 20, "sliding_window": 16}
RIGHT: dict[str, dict[str, Any]] = {
    "Cohere": {"logit_scale": 0.0625},
    "Granite": {"logits_scaling": 8.0, "attention_multiplier": 0.1, "embedding_multiplier": 3.0},
    "Gemma2": GEMMA | {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    "Gemma3": GEMMA,
    "GptOss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "Mistral": {"sliding_window": 16},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "Phi3": {
        "sliding_window": None,
        "original_max_position_embeddings": 64,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
    },
    "Llama": {"attention_bias": True, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Lfm2": ({"layer_types": ["conv", "full_attention"]}, "layer_types='conv'"),
    "Qwen3Next": ({"layer_types": ["linear_attention", "full_attention"], "head_dim": 8}, "layer_types='linear_att"),
    "Bamba": ({"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2}, "model_type='bamba'"),
    "Mamba": ({}, "model_type='mamba'"),
    "Falcon": ({}, "model_type='falcon'"),
    "OPT": ({"ffn_dim": 48, "word_embed_proj_dim": 32}, "model_type='opt'"),
    "StableLm": ({}, "model_type='stablelm'"),
    "Bloom": ({"n_layer": 2, "n_head": 4}, "model_type='bloom'"),
}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a small random model of a family with the pocket tokenizer."""
    return lambda family, **fields: write_random_model(family, tmp_path, **fields)


def logprobs_of(output: Output) -> list[float]:
    """The log-probabilities that a read found."""
    assert output.values is not None
    values: list[float] = output.values.tolist()
    return values


def edited(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def weights_changed(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite the weights of a directory."""
    weights = change(load_file(path / "model.safetensors"))
    save_file({name: value.clone() for name, value in weights.items()}, path / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("family", RIGHT)
def test_rows_of_one_batch_have_the_log_probabilities_of_transformers(make: Make, family: str) -> None:
    from transformers import AutoModelForCausalLM

    path = make(family, **RIGHT[family])
    ours = load_language_model(path)
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype="float32", attn_implementation="eager").eval()
    numbers = torch.Generator().manual_seed(1)
    rows = [tuple(torch.randint(2, 500, (n,), generator=numbers).tolist()) for n in (60, 31, 45)]
    reads = [Read(row, 1) for row in rows]
    samples = [Row(rows[place][:40], key, max_tokens=20) for key, place in enumerate((0, 1, 2, 0))]
    outputs = ours.engine(kv_bytes=1 << 24).run([*reads, *samples])
    found = [(row, logprobs_of(read)) for row, read in zip(rows, outputs, strict=False)]
    found += [(row.ids + out.ids, list(out.logprobs)) for row, out in zip(samples, outputs[3:], strict=True)]
    for ids, values in found:
        with torch.inference_mode():
            logprobs = theirs(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        places = range(len(ids) - len(values), len(ids))
        assert values == pytest.approx([float(logprobs[place - 1, ids[place]]) for place in places], abs=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["Gemma3", "Mixtral", "Qwen3"])
def test_a_model_of_16_bits_is_compared_in_float32_and_computes_in_its_own_type(
    make: Make, family: str, dtype: str
) -> None:
    from thinktime.models.engine.transformers_model import TOLERANCE, TransformersLM

    path = make(family, **RIGHT.get(family, {}), initializer_range=1.0)
    model = load_language_model(path, dtype)
    assert isinstance(model.model, TransformersLM)
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    assert model.model.verify(model.shape, model.dtype) < TOLERANCE
    for name, value in model.model.state_dict().items():
        assert value.dtype == weights[name].dtype and torch.equal(value, weights[name])
    (output,) = model.engine(kv_bytes=1 << 24).run([Row((5, 6, 7), 0, max_tokens=5)])
    assert len(output.ids) == 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_that_computes_something_else_is_refused_in_every_type(
    make: Make, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    from thinktime.models.engine.transformers_model import TransformersLM

    path, head = make("Qwen3"), TransformersLM.head
    monkeypatch.setattr(TransformersLM, "head", lambda self, hidden: head(self, hidden) * 1.01)
    with pytest.raises(InputError, match="its log-probabilities differ by"):
        load_language_model(path, dtype)


def test_the_context_ends_where_long_rotary_positions_begin(make: Make) -> None:
    assert load_language_model(make("Phi3", **RIGHT["Phi3"])).context == 64


@pytest.mark.parametrize("family", REFUSED)
def test_another_family_is_refused_in_one_line_that_names_the_field(make: Make, family: str) -> None:
    fields, says = REFUSED[family]
    with pytest.raises(InputError, match=says) as refusal:
        load_language_model(make(family, **fields))
    assert "\n" not in str(refusal.value) and "give its endpoint" in str(refusal.value)


def test_code_of_a_directory_is_never_run(make: Make, tmp_path: Path) -> None:
    path = make("Llama")
    (path / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    edited(path / "config.json", model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    with pytest.raises(InputError, match=r"model_type='own': .* its own code is not run"):
        load_language_model(path)
    assert not (tmp_path / "ran").exists()


def test_a_mixture_of_experts_counts_the_experts_that_a_token_uses(make: Make) -> None:
    path = make("Mixtral", num_local_experts=4, num_experts_per_tok=2)
    weights = load_file(path / "model.safetensors")
    sizes = {name: value.numel() for name, value in weights.items()}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    others = sum(size for name, size in sizes.items() if ".experts." not in name and "embed_tokens" not in name)
    assert experts and load_language_model(path).shape.parameters == others + experts // 2


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("architectures", 7, "TypeError"),
        ("architectures", [7], "it holds a 7"),
        ("mlp_bias", 16, "mlp_bias"),
        ("max_position_embeddings", None, "max_position_embeddings=None"),
        ("hidden_size", -32, "hidden_size=-32"),
        ("rope_scaling", [1], "AttributeError"),
    ],
)
def test_an_impossible_value_of_a_configuration_is_an_error_of_one_line(
    make: Make, field: str, value: Any, says: str
) -> None:
    path = make("Llama")
    edited(path / "config.json", **{field: value})
    with pytest.raises((InputError, ModelError), match=says) as error:
        load_language_model(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


# weights


def test_a_missing_head_is_an_error_that_names_it(make: Make) -> None:
    path = make("Llama")
    weights_changed(path, lambda all_: {name: value for name, value in all_.items() if name != "lm_head.weight"})
    with pytest.raises(ModelError, match=r"its files lack lm_head\.weight"):
        load_language_model(path)


def test_weights_that_the_model_does_not_use_are_named_in_a_warning(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = make("Llama")
    expected = logprobs_of(load_language_model(path).engine().run([Read((5, 6, 7, 8), 1)])[0])
    weights_changed(path, lambda all_: all_ | {"model.layers.0.another.weight": torch.ones(3)})
    with caplog.at_level(logging.WARNING):
        found = logprobs_of(load_language_model(path).engine().run([Read((5, 6, 7, 8), 1)])[0])
    assert found == pytest.approx(expected, abs=1e-5)
    assert "weights that a llama does not use: model.layers.0.another.weight" in caplog.text


@pytest.mark.parametrize("kind", ["inverse frequencies", "no prefix", "tied with a head", "a variant"])
def test_published_oddities_of_weight_files_load_right(make: Make, kind: str) -> None:
    path = make("Llama", tie_word_embeddings=kind == "tied with a head")
    expected = logprobs_of(load_language_model(path).engine().run([Read((5, 6, 7, 8), 1)])[0])
    if kind == "inverse frequencies":
        surplus = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        weights_changed(path, lambda all_: all_ | surplus)
    elif kind == "no prefix":
        weights_changed(path, lambda all_: {name.removeprefix("model."): value for name, value in all_.items()})
    elif kind == "tied with a head":
        weights_changed(path, lambda all_: all_ | {"lm_head.weight": all_["model.embed_tokens.weight"]})
    else:
        (path / "model.safetensors").rename(path / "model.fp16.safetensors")
    found = logprobs_of(load_language_model(path).engine().run([Read((5, 6, 7, 8), 1)])[0])
    assert found == pytest.approx(expected, abs=1e-5)


# end tokens


@pytest.mark.parametrize(
    ("name", "fields", "ends"),
    [
        ("generation_config.json", {"eos_token_id": [1, 7, 9]}, (1, 7, 9)),
        ("config.json", {"eos_token_id": 7}, (1, 7)),
        ("special_tokens_map.json", {"eos_token": {"content": "0"}}, None),
    ],
)
def test_all_end_tokens_of_a_directory_end_a_row(
    make: Make, name: str, fields: dict[str, Any], ends: tuple[int, ...] | None
) -> None:
    path = make("Llama")
    (path / "generation_config.json").unlink(missing_ok=True)
    edited(path / name, **fields)
    model = load_language_model(path)
    expected = ends or (1, *model.tokenizer.encode("0"))
    assert model.tokenizer.end_ids == expected
    row = Row((5, 6), 3, max_tokens=200, temperature=3.0)
    (output,) = model.engine().run([row])
    assert set(output.ids[:-1]).isdisjoint(expected)
    assert output.finish == ("eos" if output.ids[-1] in expected else "length")


def test_a_directory_without_an_end_token_is_refused(make: Make) -> None:
    path = make("Llama")
    edited(path / "tokenizer_config.json", eos_token=None)
    for name in ("config.json", "generation_config.json"):
        edited(path / name, eos_token_id=None)
    with pytest.raises(InputError, match="no file names an end token"):
        load_language_model(path)
