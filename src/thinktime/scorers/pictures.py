"""Scores of pictures, from the model's clean estimate of a state: class, ink, symmetry, compressibility, CLIP.

They score every node with a clean estimate, so searches over steps can use them. A root has no estimate, so its score
is missing. Higher is better for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from thinktime.core.errors import InputError, ModelError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.models.diffusion.batch import Batch
from thinktime.models.diffusion.calls import Condition
from thinktime.models.diffusion.gradient import Measure
from thinktime.models.diffusion.levels import Array

if TYPE_CHECKING:
    from thinktime.generators.diffusion import DiffusionGenerator
    from thinktime.models.diffusion.classifier import Classifier

_LOG = logging.getLogger(__name__)


class PictureScorer:
    """Decodes the clean estimates of nodes and measures them; all searches share its batches.

    Args:
        generator: the generator of the nodes.
        measure: maps pictures to numbers.
        name: the name of the measure; scores are banked under it.
        max_batch: pictures measured at once.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})

    def __init__(self, generator: DiffusionGenerator, measure: Measure, name: str, *, max_batch: int = 256) -> None:
        self.name = name
        self._generator, self._measure = generator, measure
        self._usages: dict[type, Usage] = {}
        self._batch: Batch[tuple[Array, Condition], float] = Batch(self._compute, max_batch)

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One picture.

        Raises:
            InputError: the measure does not apply to the prompt.
        """
        return self._cost(node.state.condition)

    def _cost(self, condition: Condition) -> Usage:
        if type(condition) not in self._usages:
            self._usages[type(condition)] = self._counted(condition)
        return self._usages[type(condition)]

    def _counted(self, condition: Condition) -> Usage:
        """The cost of one picture; its operations are counted on a grey one."""
        model = self._generator.model
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            self._measure(torch.from_numpy(np.stack(model.pictures([np.zeros(model.shape, np.float32)]))), [condition])
        return Usage(scorer_calls=1, scorer_flops=float(counter.get_total_flops()), decodes=int(model.text))

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node. A root, and a state whose decoded picture has NaN, have no score."""
        return list(await asyncio.gather(*map(self._score, nodes)))

    async def _score(self, node: Node) -> Score:
        clean = self._generator.clean(node.state)
        if clean is None:
            return Score(None, Usage())
        return Score(await self._batch.ask((clean, node.state.condition)), self._cost(node.state.condition))

    @torch.inference_mode()
    def _compute(self, items: Sequence[tuple[Array, Condition]]) -> list[float]:
        pictures = torch.from_numpy(np.stack(self._generator.model.pictures([state for state, _ in items])))
        found = self._measure(pictures.nan_to_num(), [condition for _, condition in items])
        if len(found) != len(items):
            raise ModelError(f"scorer={self.name!r}: it gave {len(found)} numbers for {len(items)} pictures")
        broken = pictures.isnan().flatten(1).any(1)
        return [nan if no_picture else float(value) for value, no_picture in zip(found, broken, strict=True)]


def class_score(classifier: Classifier, target: int | None = None) -> Measure:
    """The log-probability of the class in the prompt, or of ``target``, which the model does not see.

    Raises:
        InputError: the classifier has no such class.
    """
    if target is not None and not 0 <= target < len(classifier.labels):
        raise InputError("target", target, f"give a class from 0 to {len(classifier.labels) - 1}")

    def measure(pictures: Tensor, conditions: Sequence[Condition]) -> Tensor:
        targets = [condition if target is None else target for condition in conditions]
        classes = [each for each in targets if isinstance(each, int)]
        if len(classes) < len(targets):
            raise InputError("prompt", None, "it names no class, so no class can be scored; name one")
        table: Tensor = classifier(pictures).double().log_softmax(-1)
        return table.gather(1, torch.tensor(classes)[:, None])[:, 0]

    return measure


def ink(pictures: Tensor, conditions: Sequence[Condition]) -> Tensor:
    """The mean brightness of a picture, 0 to 1; for digits, the amount of ink."""
    return pictures.mean((1, 2, 3))


def symmetry(pictures: Tensor, conditions: Sequence[Condition]) -> Tensor:
    """Minus the mean difference between a picture and its mirror image."""
    return -(pictures - pictures.flip(-1)).abs().mean((1, 2, 3))


def compressibility(pictures: Tensor, conditions: Sequence[Condition]) -> list[float]:
    """Minus the size in kilobytes of the 8-bit picture after deflate compression."""
    levels = [np.round(picture.detach().numpy() * 255).astype(np.uint8).tobytes() for picture in pictures]
    return [-len(zlib.compress(each, 9)) / 1000 for each in levels]


SIMPLE: dict[str, Measure] = {"ink": ink, "symmetry": symmetry, "compressibility": compressibility}
"""Measures that need no model."""


def clip_score(directory: Path) -> Measure:
    """The cosine between a picture and its prompt by CLIP (Radford et al. 2021, arXiv 2103.00020).

    Raises:
        InputError: the directory holds no CLIP of ``transformers``.
    """
    from transformers import CLIPModel, CLIPProcessor

    try:
        model: Any = CLIPModel.from_pretrained(directory, local_files_only=True).eval().requires_grad_(False)
        processor: Any = CLIPProcessor.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        fix = f"no CLIP directory of transformers ({str(error).splitlines()[0]}); give one with weights and processor"
        raise InputError("scorer", str(directory), fix) from None

    cut: set[str] = set()

    def measure(pictures: Tensor, conditions: Sequence[Condition]) -> Tensor:
        most = processor.tokenizer.model_max_length
        for words in {str(condition) for condition in conditions} - cut:
            if (tokens := len(processor.tokenizer(words, verbose=False).input_ids)) > most:
                cut.add(words)
                _LOG.warning("scorer=%r: the prompt has %d tokens, and CLIP reads %d", str(directory), tokens, most)
        shown = [_rgb(picture) for picture in pictures]
        inputs = processor(
            text=[str(c) for c in conditions], images=shown, return_tensors="pt", padding=True, truncation=True
        )
        out = model(**inputs)
        cosine: Tensor = (out.image_embeds * out.text_embeds).sum(-1)
        return cosine

    return measure


def image_reward(directory: Path) -> Measure:
    """ImageReward (Xu et al. 2023, arXiv 2304.05977), from its own package ``image-reward``.

    Raises:
        InputError: the package is not installed, or the directory lacks its weights.
    """
    try:
        import ImageReward
    except ImportError:
        fix = "its package is not installed: pip install image-reward"
        raise InputError("scorer", "image_reward", fix) from None
    weights, config = directory / "ImageReward.pt", directory / "med_config.json"
    if not (weights.exists() and config.exists()):
        raise InputError("scorer", str(directory), "it lacks ImageReward.pt or med_config.json; download them first")
    model: Any = ImageReward.load(str(weights), med_config=str(config))

    def measure(pictures: Tensor, conditions: Sequence[Condition]) -> list[float]:
        from PIL import Image

        shown = [Image.fromarray(_rgb(picture)) for picture in pictures]
        return [float(model.score(str(words), each)) for words, each in zip(conditions, shown, strict=True)]

    return measure


def _rgb(picture: Tensor) -> Any:
    """A picture [height, width, 3] of 8 bits."""
    levels = np.round(picture.detach().numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels
