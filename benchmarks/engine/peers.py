"""``transformers`` as a peer, with a padded batch and with continuous batching."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from benchmarks.engine.measure import Timed

PAGE = 32


@dataclass(frozen=True)
class Continuation:
    """New ids, including the stop token, and their summed log-probability at temperature 1 if requested."""

    ids: tuple[int, ...]
    logprob: float = 0.0


class Transformers:
    """One model for both kinds of batching. Each has its own copy, because they set the attention differently."""

    def __init__(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
        self._directory, self._dtype = directory, dtype

    @cached_property
    def _padded(self) -> Any:
        return self._loaded()

    @cached_property
    def _continuous(self) -> Any:
        return self._loaded()

    def _loaded(self) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self._directory, dtype=self._dtype, attn_implementation="sdpa")
        return model.eval()

    @property
    def pad(self) -> int:
        """The id that fills short rows."""
        return self._padded.config.pad_token_id or 0

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        stop_ids: Sequence[int],
        temperature: float = 0.0,
        logprobs: bool = False,
    ) -> list[Continuation]:
        """``generate`` on a left-padded batch; temperature 0 is greedy."""
        longest = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        lengths = torch.tensor([[len(prompt)] for prompt in prompts])
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        out = self._padded.generate(
            input_ids=ids,
            attention_mask=(torch.arange(longest) >= longest - lengths).long(),
            max_new_tokens=max_tokens,
            eos_token_id=list(stop_ids),
            pad_token_id=self.pad,
            return_dict_in_generate=True,
            output_logits=logprobs,
            **sampling,
        )
        new = out.sequences[:, longest:]
        stops = torch.isin(new, torch.tensor(list(stop_ids)))
        counts = torch.where(stops.any(1), stops.int().argmax(1) + 1, new.shape[1])
        sums = torch.zeros(len(prompts), dtype=torch.float64)
        if logprobs:
            scores = torch.stack(out.logits, 1).log_softmax(-1).gather(2, new[..., None])[..., 0]
            sums = (scores.double() * (torch.arange(new.shape[1]) < counts[:, None])).sum(1)
        rows = zip(new.tolist(), counts.tolist(), sums.tolist(), strict=True)
        return [Continuation(tuple(row[:count]), total) for row, count, total in rows]

    def generate_batch(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, eos_id: int, at_once: int
    ) -> tuple[Timed, list[Continuation]]:
        """Greedy continuations by ``generate_batch``. The time does not include the creation of its cache.

        Without flash attention, every query is multiplied with the keys of all running rows, so more rows ``at_once``
        are not always faster.
        """
        rows = min(len(prompts), at_once)
        pages = -(-(max(map(len, prompts)) + max_tokens) // PAGE) + 1
        generation = GenerationConfig(
            do_sample=False, max_new_tokens=max_tokens, eos_token_id=eos_id, pad_token_id=self.pad
        )
        batching = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=rows * pages,
            max_batch_tokens=max(128, rows),
            max_requests_per_batch=rows,
            allow_block_sharing=False,
        )
        with self._continuous.continuous_batching_context_manager(
            generation_config=generation, continuous_batching_config=batching
        ) as manager:
            started = time.perf_counter()
            names = manager.add_requests(inputs=[list(prompt) for prompt in prompts], max_new_tokens=max_tokens)
            done: dict[str, Any] = {}
            while len(done) < len(prompts):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    done[result.request_id] = result
                elif not manager.is_running():
                    raise RuntimeError("continuous batching of transformers stopped before it was done")
            seconds = time.perf_counter() - started
        rows_done = [Continuation(tuple(done[name].generated_tokens)) for name in names]
        return Timed(sum(len(row.ids) for row in rows_done), seconds), rows_done
