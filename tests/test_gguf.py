"""GGUF files: a small Qwen2 that is quantised with llama.cpp's own package, and read by the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel

from thinktime.core.errors import InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.types import Problem
from thinktime.files import cache_folder
from thinktime.generators.local import LocalGenerator
from thinktime.models.engine.gguf import converted
from thinktime.models.engine.llama import Llama
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.products import packs
from thinktime.models.engine.rows import Row

SIZES = {"layers": 2, "hidden": 64, "wide": 96, "heads": 4, "kv_heads": 2, "context": 128}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of a Qwen2 by their names in a GGUF file."""
    c, generator = SIZES, torch.Generator().manual_seed(seed)
    kv = c["hidden"] // c["heads"] * c["kv_heads"]
    vocabulary = 257 + len(SPECIAL)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, c["hidden"])}
    shapes |= {"output.weight": (vocabulary, c["hidden"]), "output_norm.weight": (c["hidden"],)}
    for i in range(c["layers"]):
        for name, size in (("attn_q", c["hidden"]), ("attn_k", kv), ("attn_v", kv)):
            shapes |= {f"blk.{i}.{name}.weight": (size, c["hidden"]), f"blk.{i}.{name}.bias": (size,)}
        shapes |= {f"blk.{i}.attn_output.weight": (c["hidden"], c["hidden"])}
        shapes |= {f"blk.{i}.{name}.weight": (c["wide"], c["hidden"]) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{i}.ffn_down.weight": (c["hidden"], c["wide"])}
        shapes |= {f"blk.{i}.{name}.weight": (c["hidden"],) for name in ("attn_norm", "ffn_norm")}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def write(path: Path, family: str = "qwen2", seed: int = 0, *, quantised: bool = True) -> dict[str, torch.Tensor]:
    """Write a file with matrices in Q8_0, or float32; return its weights as the file has them."""
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(SIZES["context"])
    writer.add_embedding_length(SIZES["hidden"])
    writer.add_block_count(SIZES["layers"])
    writer.add_feed_forward_length(SIZES["wide"])
    writer.add_head_count(SIZES["heads"])
    writer.add_head_count_kv(SIZES["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    words = [*sorted(ByteLevel.alphabet()), "in", *SPECIAL]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges(["i n"])
    writer.add_eos_token_id(words.index("<|im_end|>"))
    writer.add_bos_token_id(words.index("<|endoftext|>"))
    writer.add_pad_token_id(words.index("<|endoftext|>"))
    writer.add_chat_template(TEMPLATE)
    found = {}
    for name, values in tensors(seed).items():
        if values.ndim == 1 or not quantised:
            writer.add_tensor(name, values.numpy())
            found[name] = values
            continue
        packed = gguf.quantize(values.numpy(), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        found[name] = torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def greedy(model: Any, prompt: str, n: int = 12) -> tuple[int, ...]:
    """The ids of a greedy reply."""
    (output,) = model.engine(kv_bytes=1 << 22).run([Row(tuple(model.tokenizer.encode_chat(prompt)), 0, n, 0.0)])
    ids: tuple[int, ...] = output.ids
    return ids


def test_a_file_is_converted_once_and_has_its_own_weights_template_and_end(tmp_path: Path) -> None:
    weights = write(tmp_path / "tiny.gguf")
    directory, sha256 = converted(tmp_path / "tiny.gguf")
    first = (directory / "model.safetensors").stat().st_mtime_ns
    kept = load_file(directory / "model.safetensors")
    pairs = {"model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight", "lm_head.weight": "output.weight"}
    pairs |= {"model.layers.0.self_attn.k_proj.bias": "blk.0.attn_k.bias"}
    for theirs, ours in pairs.items():
        torch.testing.assert_close(kept[theirs].float(), weights[ours], rtol=1e-3, atol=1e-6)
    model = load_language_model(tmp_path / "tiny.gguf", "float32")
    assert (directory / "model.safetensors").stat().st_mtime_ns == first
    assert isinstance(model.model, Llama) and model.model.config.qkv_bias and model.context == SIZES["context"]
    assert model.tokenizer.end_tokens == ["<|im_end|>"]
    assert model.tokenizer.decode(model.tokenizer.encode("1 + 1 = 2")) == "1 + 1 = 2"
    assert model.tokenizer.template is not None
    assert model.tokenizer.template.render([{"role": "user", "content": "hi"}]) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.weights == sha256[:12]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_engine_computes_what_transformers_computes(tmp_path: Path, dtype: str) -> None:
    from thinktime.models.engine.transformers_model import difference

    write(tmp_path / "tiny.gguf")
    model = load_language_model(tmp_path / "tiny.gguf", dtype)
    assert isinstance(model.model, Llama)
    if dtype == "float16" and packs(torch.float16, torch.device("cpu")):
        assert model.dtype == torch.float32
    directory, _ = converted(tmp_path / "tiny.gguf")
    assert difference(model.model, directory, model.shape, model.dtype) < (1e-4 if dtype != "float16" else 1e-3)
    assert greedy(model, "What is 2 + 2?") == greedy(load_language_model(directory, "float64"), "What is 2 + 2?")


def test_auto_is_a_type_of_16_bits_for_a_quantised_file_and_float32_for_a_checkpoint_in_float32(tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf")
    directory, _ = converted(tmp_path / "tiny.gguf")
    chosen = load_language_model(tmp_path / "tiny.gguf", "auto")
    assert chosen.weights_dtype in ("bfloat16", "float16" if packs(torch.float16, torch.device("cpu")) else "float32")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert load_language_model(directory, "auto").weights_dtype == "float32"


def test_the_type_that_auto_takes_and_the_same_type_by_name_give_the_same_samples_in_the_bank(tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf")
    chosen = LocalGenerator(tmp_path / "tiny.gguf", dtype="auto")
    named = LocalGenerator(tmp_path / "tiny.gguf", dtype=chosen.model.weights_dtype)
    assert chosen.name == named.name and chosen.fingerprint == named.fingerprint
    keys = [Search(Problem("1", "2 + 2?"), each).root.key for each in (chosen, named)]
    assert keys[0] == keys[1]
    assert LocalGenerator(tmp_path / "tiny.gguf", dtype="float64").name != chosen.name


def test_another_file_is_another_model(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", seed=0)
    write(tmp_path / "b.gguf", seed=1)
    a, b = (load_language_model(tmp_path / name, "float32") for name in ("a.gguf", "b.gguf"))
    assert a.weights != b.weights and a.fingerprint != b.fingerprint


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ModelError, match=r"text\.gguf.*check its files") as broken:
        load_language_model(tmp_path / "text.gguf")
    assert "\n" not in str(broken.value)
    with pytest.raises(InputError, match="there is no such file"):
        load_language_model(tmp_path / "nothing.gguf")
    write(tmp_path / "strange.gguf", family="rwkv6")
    with pytest.raises(InputError, match=r"rwkv6.*serve it with llama.cpp"):
        load_language_model(tmp_path / "strange.gguf")


def test_a_cut_file_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        load_language_model(tmp_path / "cut.gguf")
    assert cache_folder().exists() and not list(cache_folder().rglob("*.safetensors"))
