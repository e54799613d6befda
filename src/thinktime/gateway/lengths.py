"""Which fields of a request decide how much an endpoint generates, by call and by engine.

A request under a budget may have only fields whose effect is known. Any other field could make the answer longer than
the reservation. Engines have length limits of their own (``n_predict``, ``max_new_tokens``). They ignore some limits,
and prefer some to others, without a word. Sources: OpenAI's API reference, the request schemas of vLLM, SGLang,
llama.cpp's server, Ollama, Text Generation Inference, transformers serve and OpenRouter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinktime.core.errors import InputError

CHAT, COMPLETIONS, RESPONSES = "chat/completions", "completions", "responses"
MESSAGES, EMBEDDINGS = "messages", "embeddings"

LIMITS: Mapping[str, tuple[str, ...]] = {
    CHAT: ("max_tokens", "max_completion_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
    MESSAGES: ("max_tokens",),
    EMBEDDINGS: (),
}
"""Limits of one sample in tokens. If a request has several, the largest one counts."""

COUNTS: Mapping[str, tuple[str, ...]] = {
    CHAT: ("n", "best_of"),
    COMPLETIONS: ("n", "best_of"),
    RESPONSES: (),
    MESSAGES: (),
    EMBEDDINGS: (),
}
"""Numbers of samples for each prompt. If a request has several, the largest one counts."""

_COMMON = frozenset(
    {"model", "stream", "stream_options", "temperature", "top_p", "top_logprobs", "user", "safety_identifier"}
    | {"metadata", "store", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls", "tool_choice", "tools"}
    | {"thinktime", "optillm_approach"}
)
_SAMPLING = frozenset(
    {"seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "echo", "response_format"}
    | {"top_k", "top_a", "min_p", "typical_p", "repetition_penalty", "repeat_penalty", "repeat_last_n", "mirostat"}
    | {"mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base", "dry_allowed_length", "xtc_probability"}
    | {"xtc_threshold", "stop_token_ids", "ignore_eos", "bad_words", "skip_special_tokens", "add_special_tokens"}
    | {"spaces_between_special_tokens", "include_stop_str_in_output", "structured_outputs", "guided_json"}
    | {"guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema", "regex", "ebnf", "cache_prompt"}
    | {"return_token_ids", "return_tokens_as_token_ids", "truncate_prompt_tokens"}
)
ALLOWED: Mapping[str, frozenset[str]] = {
    CHAT: _COMMON
    | _SAMPLING
    | {"messages", "functions", "function_call", "reasoning_effort", "verbosity", "chat_template_kwargs"}
    | {"add_generation_prompt", "continue_final_message", "include_reasoning", "separate_reasoning"},
    COMPLETIONS: _COMMON | _SAMPLING | {"prompt", "suffix"},
    RESPONSES: _COMMON
    | _SAMPLING
    | {"input", "instructions", "include", "reasoning", "text", "truncation", "previous_response_id", "conversation"},
    EMBEDDINGS: frozenset({"model", "input", "encoding_format", "dimensions", "user", "input_type", "thinktime"}),
    MESSAGES: _COMMON
    | _SAMPLING
    | {"messages", "system", "stop_sequences", "thinking", "output_config", "context_management", "mcp_servers"}
    | {"anthropic_version", "anthropic_beta", "cache_control", "container", "inference_geo", "speed"},
}
"""Fields that leave the number and the length of samples within the limits."""

ONLY: Mapping[str, tuple[Any, ...]] = {
    "background": (False,),  # no reply reports the usage of an answer in the background
    "min_tokens": (0,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default", "flex", "standard_only"),  # other tiers cost more than the listed price
    "use_beam_search": (False,),
}
"""Fields that are allowed with these values only."""

ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), "another call of OpenAI"),
    **dict.fromkeys(("n", "best_of", "messages", "input"), "another call of OpenAI"),
    **dict.fromkeys(("n_predict", "n_cmpl", "n_keep", "n_indent", "t_max_predict_ms"), "llama.cpp"),
    **dict.fromkeys(("min_tokens", "use_beam_search", "length_penalty", "prompt_logprobs", "prompt_embeds"), "vLLM"),
    **dict.fromkeys(("thinking_token_budget", "chat_template", "vllm_xargs", "priority"), "vLLM"),
    **dict.fromkeys(("max_new_tokens", "min_new_tokens", "sampling_params", "custom_params", "n_beams"), "SGLang"),
    **dict.fromkeys(("parameters", "inputs", "details", "adapter_id"), "Text Generation Inference"),
    **dict.fromkeys(("num_predict", "num_ctx", "options", "raw", "context"), "Ollama"),
    **dict.fromkeys(("max_length", "min_length", "num_beams", "num_return_sequences"), "transformers"),
    "generation_config": "transformers serve",
    **dict.fromkeys(("max_tokens_to_sample", "thinking"), "Anthropic"),
    **dict.fromkeys(("models", "route", "provider", "plugins", "transforms"), "OpenRouter"),
    "max_gen_len": "Llama's own API",
    "nvext": "NVIDIA NIM",
    "extra_body": "OpenAI's Python client, which unpacks it",
}
"""Known fields of other calls and engines, for the message of the refusal."""

TOOLS = ("function", "custom")
"""Types of tools that the client runs. The endpoint runs all others, and may generate and read without a limit."""
TEXT_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
"""Types of messages and of items of the Responses API that hold all of their text."""
MOST = 10**9
"""Largest length limit."""


@dataclass(frozen=True)
class Extent:
    """The most that a request can generate."""

    samples: int
    """Number of samples, for all prompts together."""
    tokens: int
    """Most tokens of each sample."""
    prompts: int
    """Number of prompts."""


def check(body: Mapping[str, Any], api: str) -> None:
    """Check that the effect of every field on the length of the answer is known; null is a missing field.

    Args:
        body: the JSON body of a request under a budget.
        api: the call of the request.

    Raises:
        InputError: a field is unknown, belongs to another call or engine, or has a value that makes answers longer.
    """
    known = ALLOWED[api] | {*LIMITS[api], *COUNTS[api]}
    for name, value in body.items():
        if value is None or name in known or value in ONLY.get(name, ()):
            continue
        reason = f"it belongs to {ELSEWHERE[name]}" if name in ELSEWHERE else "the gateway cannot bound its cost"
        limit = f"; the limit of this call is {' or '.join(LIMITS[api])}" if LIMITS[api] else ""
        raise InputError(name, value, f"{reason}; leave it out, because a budget holds{limit}")
    settings = body.get("chat_template_kwargs") or {}
    if not isinstance(settings, Mapping) or not all(_is_simple(value) for value in settings.values()):
        fix = "a budget holds; give an object of numbers and single words"  # a longer text may be a template
        raise InputError("chat_template_kwargs", settings, fix)
    for index, tool in enumerate(_items(body, "tools")):
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if kind not in TOOLS:
            raise InputError(f"tools[{index}].type", kind, "a budget holds; give tools of the type function")


def extent(body: Mapping[str, Any], api: str, most_samples: int) -> Extent:
    """The most that a request can generate, by its own fields.

    Args:
        body: the JSON body.
        api: the call of the request.
        most_samples: most samples of one request.

    Raises:
        InputError: there is no limit, a field is no whole number in its range, the prompt has another form, or there
            are too many samples.
    """
    limits = [_whole(body, name, MOST) for name in LIMITS[api] if body.get(name) is not None]
    if not limits:
        raise InputError(LIMITS[api][0], None, "a budget holds; say how long an answer may be, 1 or more")
    counts = [_whole(body, name, most_samples) for name in COUNTS[api] if body.get(name) is not None]
    prompts = _prompts(body.get("prompt")) if api == COMPLETIONS else 1
    samples = prompts * max(counts, default=1)
    if samples > most_samples:
        raise InputError("prompt", f"{prompts} prompts", f"one request may draw {most_samples} samples")
    return Extent(samples, max(limits), prompts)


def has_several(body: Mapping[str, Any], api: str) -> bool:
    """Whether a request without a budget may draw several samples."""
    prompts = body.get("prompt") if api == COMPLETIONS else None
    return isinstance(prompts, list) or any(body.get(name) not in (None, 1) for name in COUNTS[api])


def check_text(raw: bytes) -> None:
    """Check that all JSON parsers read a body alike: it is UTF-8, and no object has a name twice.

    Raises:
        InputError: parsers may read it differently.
    """
    try:
        json.loads(raw.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise InputError("body", "…", "a budget holds; write it in UTF-8") from None
    except ValueError as error:  # a byte order mark
        raise InputError("body", "…", f"a budget holds; write plain JSON ({error})") from None


def is_text(body: Mapping[str, Any]) -> bool:
    """Whether the body has the whole prompt as text. Pictures, sounds and stored conversations have no known size."""
    if any(body.get(name) for name in ("previous_response_id", "conversation")):
        return False
    items = [item for name in ("messages", "input") for item in _items(body, name)]
    return _are_texts(items) or all(map(_is_text_item, items))


def _are_texts(items: Sequence[Any]) -> bool:
    """Whether these are the inputs of embeddings: texts, or token ids."""
    return _are_ids(items) or all(isinstance(item, str) or _are_ids(item) for item in items)


def _is_text_item(item: object) -> bool:
    if not isinstance(item, Mapping) or item.get("audio") or item.get("type", "message") not in TEXT_ITEMS:
        return False
    return all(isinstance(item.get(name) or "", str) for name in ("content", "output"))


def _is_simple(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and value.isidentifier())


def _items(body: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = body.get(name)
    return value if isinstance(value, list) else () if value is None or isinstance(value, str) else [value]


def _whole(body: Mapping[str, Any], name: str, most: int) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(name, value, f"a budget holds; give a whole number from 1 to {most}")
    return value


def _prompts(prompt: object) -> int:
    """Number of prompts: a text or a list of token ids is one; a list of texts or of such lists is several."""
    if prompt is None or isinstance(prompt, str) or (isinstance(prompt, list) and prompt and _are_ids(prompt)):
        return 1
    if isinstance(prompt, list) and prompt and all(isinstance(p, str) or _are_ids(p) for p in prompt):
        return len(prompt)
    raise InputError("prompt", prompt, "a budget holds; give a text, token ids, or a list of either")


def _are_ids(prompt: object) -> bool:
    return isinstance(prompt, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(name, value, "the body has this name twice; give it once")
        found[name] = value
    return found
