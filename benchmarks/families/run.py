"""Which model families give the log-probabilities of ``transformers``, and which are refused, one line each.

    python -m benchmarks.families.run            # three minutes

Each configuration is a small random model. Its rows run in one batch through the engine and one by one through
``transformers``; the difference is the largest over all tokens, read and sampled. It writes ``result.json`` beside
this file.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.families.random_models import write_random_model
from thinktime.bench.environment import environment
from thinktime.core.errors import ThinktimeError
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.rows import Read, Row

HERE = Path(__file__).parent
GRANITE = {"logits_scaling": 8.0, "attention_multiplier": 0.1}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 20, "sliding_window": 16}
EXPERTS = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}
LONG = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "Bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2},
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Cohere": {"logit_scale": 0.0625},
    "Cohere2": {"sliding_window": 16},
    "DeepseekV3": LATENT | ROUTED | {"first_k_dense_replace": 1},
    "Ernie4_5": {"head_dim": 8},
    "Exaone4": {"sliding_window": 16},
    "Falcon": {},
    "FalconH1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "GPTNeoX": {},
    "Gemma": {"head_dim": 8},
    "Gemma2": GEMMA | {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    "Gemma3": GEMMA,
    "Gemma3n": {"head_dim": 8, "sliding_window": 16},
    "Glm4": {"head_dim": 8},
    "GptOss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "Granite": GRANITE | {"residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "GraniteMoe": GRANITE,
    "Helium": {"head_dim": 8},
    "HunYuanDenseV1": {"head_dim": 8},
    "Jamba": {"num_experts": 2, "mamba_dt_rank": 4},
    "Lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "Llama, biases": {"attention_bias": True},
    "Llama, dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "Llama, yarn": {"rope_scaling": YARN},
    "Llama4": {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 16},
    "Mamba": {},
    "Mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "MiniMax": {"head_dim": 8, "num_local_experts": 2},
    "Mistral": {"sliding_window": None},
    "Mistral, window": {"sliding_window": 16},
    "Mixtral": {"num_local_experts": 4},
    "Nemotron": {},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Olmo2": {},
    "Olmo3": {"sliding_window": 16},
    "Persimmon": {},
    "Phi": {},
    "Phi3": {"sliding_window": None},
    "Phi3, longrope": {"sliding_window": None, "original_max_position_embeddings": 64, "rope_scaling": LONG},
    "Qwen2, window": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "Qwen3": {"head_dim": 8},
    "Qwen3Moe": EXPERTS | {"moe_intermediate_size": 16},
    "Qwen3Next": EXPERTS,
    "Rwkv": {},
    "SmolLM3": {},
    "StableLm": {},
    "Starcoder2": {"sliding_window": 16},
    "Zamba2": {},
}
"""The fields of each configuration beyond those of every model, by the name of its family and of the variant."""


def difference(folder: Path) -> float:
    """The largest difference from ``transformers`` of a log-probability, over rows that are read and rows sampled."""
    ours = load_language_model(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="eager"
    ).eval()
    numbers = torch.Generator().manual_seed(1)
    rows = [tuple(torch.randint(2, 500, (n,), generator=numbers).tolist())[: ours.context] for n in (90, 31, 60)]
    starts = [row[:40] for row in rows]
    sampled = [Row(start, key, max_tokens=20) for key, start in enumerate(starts)]
    outputs = ours.engine(kv_bytes=1 << 26).run([*(Read(row, 1) for row in rows), *sampled])
    apart = 0.0
    for output, row in zip(outputs, [*rows, *starts], strict=True):
        ids, first = (*row, *output.ids), len(row) if output.ids else 1
        with torch.inference_mode():
            logits = theirs(torch.tensor([ids])).logits[0].log_softmax(-1)
        right = [float(logits[place - 1, ids[place]]) for place in range(first, len(ids))]
        found = list(output.logprobs) if output.values is None else output.values.tolist()
        apart = max([apart, *(abs(a - b) for a, b in zip(found, right, strict=True))])
    return apart


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    found: dict[str, dict[str, Any]] = {"right": {}, "refused": {}, "not made": {}}
    for name in CONFIGURATIONS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                fields = CONFIGURATIONS[name] | {"num_hidden_layers": 3}
                write_random_model(name.split(",")[0], Path(folder), **fields)
            except Exception as error:  # whatever a constructor of transformers raises on made-up sizes
                found["not made"][name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                continue
            try:
                found["right"][name] = float(f"{difference(Path(folder)):.2g}")
            except ThinktimeError as error:
                found["refused"][name] = str(error).replace(folder, "DIRECTORY")
        print(name, *(kind[name] for kind in found.values() if name in kind), flush=True)
    counts = {kind: len(names) for kind, names in found.items()}
    largest = max(found["right"].values())
    head = {"command": "python -m benchmarks.families.run", "environment": environment()}
    result = head | {"counts": counts, "largest difference": largest} | found
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(counts, "largest difference", largest)


if __name__ == "__main__":
    main()
