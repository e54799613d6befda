"""Directories of ``diffusers`` pipelines: which ones are supported, their parts and files, and their fingerprint.

Networks are built by ``diffusers`` from their own configuration. A field is refused by name if its class does not know
it, or if it asks for an input that a call does not have.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from thinktime.core.errors import InputError
from thinktime.models.engine.directories import digest_of

PLAIN = ("DDIMPipeline", "DDPMPipeline", "PNDMPipeline")
"""Pipelines of a network and a sampler."""
TEXT = "StableDiffusionPipeline"
_CLASSES = {
    "unet": ("UNet2DModel", "UNet2DConditionModel"),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_UNUSED = {"safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"}
"""Entries of a pipeline that do not change what it paints from a text."""
_AVERAGING = {
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"),
}
"""Fields that training with averaged weights leaves in a network's configuration."""
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_REQUESTED = {
    "unet": {
        *("class_embed_type", "addition_embed_type", "encoder_hid_dim", "encoder_hid_dim_type", "time_cond_proj_dim"),
        *("dual_cross_attention", "attention_type"),
    },
    "vae": {"shift_factor", "latents_mean", "latents_std"},
    "text_encoder": {"use_attention_mask", "quantization_config"},
}
"""Fields that need more than a state, a timestep and a condition, or another formula for the decoder's input."""


class WeightFiles(NamedTuple):
    """The files of a part's weights, and the options that load them."""

    files: list[Path]
    options: dict[str, Any]


def read_fields(path: Path) -> dict[str, Any]:
    """An object in a JSON file.

    Raises:
        InputError: the file is missing or holds no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("model", str(path), f"no diffusers directory ({error})") from None
    if not isinstance(found, dict):
        raise InputError("model", str(path), "no diffusers directory (it holds no JSON object)")
    return found


def parts_of(directory: Path, index: Mapping[str, Any]) -> list[str]:
    """The parts to load. All their files exist.

    Args:
        directory: the pipeline.
        index: the content of its ``model_index.json``.

    Raises:
        InputError: the pipeline or the class of a part is not supported, or a file is missing.
    """
    kind = index.get("_class_name")
    if kind not in (*PLAIN, TEXT):
        own = "; code of a directory is never run" if isinstance(kind, list) else ""
        fix = f"not supported; give a directory of a {', '.join(PLAIN)} or {TEXT}{own}"
        raise InputError("model_index._class_name", kind, fix)
    parts = ["unet", *(("vae", "text_encoder", "tokenizer") if kind == TEXT else ())]
    for name, value in index.items():
        if name.startswith("_") or name in _UNUSED or value in (None, False, [None, None]):
            continue
        if name == "scheduler":
            if not isinstance(value, list) or value[:1] != ["diffusers"]:
                raise InputError("model_index.scheduler", value, "only samplers of diffusers are supported")
            continue
        if name not in parts:
            raise InputError(f"model_index.{name}", value, f"a {kind} has no such part; remove it")
        library = "transformers" if name in ("text_encoder", "tokenizer") else "diffusers"
        if value not in [[library, made] for made in _CLASSES[name]]:
            fix = f"only {' or '.join(_CLASSES[name])} of {library} is supported for this part"
            raise InputError(f"model_index.{name}", value, fix)
    wanted = "UNet2DConditionModel" if kind == TEXT else "UNet2DModel"
    if (found := class_of(index, "unet")) != wanted:
        raise InputError("model_index.unet", found, f"a {kind} needs a {wanted}; use the parts of one pipeline")
    for part in parts:
        if part == "tokenizer":
            if not (directory / part / "tokenizer.json").exists():
                require(directory, "tokenizer/vocab.json", "tokenizer/merges.txt")
        else:
            require(directory, f"{part}/config.json")
            weights_of(directory / part)
    return parts


def class_of(index: Mapping[str, Any], part: str) -> str | None:
    """The class that ``model_index.json`` names for a part."""
    value = index.get(part)
    return str(value[1]) if isinstance(value, list) and len(value) == 2 else None


def require(directory: Path, *names: str) -> None:
    """Refuse a directory that lacks one of these files.

    Raises:
        InputError: a file is missing.
    """
    for name in names:
        if not (directory / name).exists():
            raise InputError("model", str(directory), f"it has no {name}; download all parts of the pipeline")


def weights_of(part: Path) -> WeightFiles:
    """The weights of a part: safetensors first, then their variants such as ``.fp16.``, then PyTorch's own format.

    Raises:
        InputError: there are none.
    """
    names = sorted(path.name for path in part.iterdir())
    for suffix in (".safetensors", ".bin"):
        plain = [name for name in names if name.endswith(suffix) and name.count(".") == 1 and name.startswith(_STEMS)]
        if plain:
            return WeightFiles([part / name for name in plain], {"use_safetensors": suffix != ".bin"})
        for stem in _STEMS:
            variants = [name for name in names if name.startswith(f"{stem}.") and name.endswith(suffix)]
            if variants:
                options = {"use_safetensors": suffix != ".bin", "variant": variants[0].split(".")[1]}
                return WeightFiles([part / variants[0]], options)
    fix = f"there are no weights in {part.name} (*.safetensors or *.bin); download all parts of the pipeline"
    raise InputError("model", str(part.parent), fix)


def check_fields(part: str, config: Mapping[str, Any], known: Iterable[str] | None = None) -> None:
    """Refuse fields of a network that ``diffusers`` would ignore, or that need inputs that a call does not have.

    Args:
        part: the name of the part.
        config: the content of its ``config.json``.
        known: the fields of its class; None does not check for unknown fields.

    Raises:
        InputError: there is such a field.
    """
    handled = None if known is None else {*known, *_AVERAGING}
    for name, value in config.items():
        if name.startswith("_") or value in (None, False, "default"):
            continue
        if name in _REQUESTED[part]:
            raise InputError(f"{part}.{name}", value, "not supported, and it changes the picture; give another model")
        if handled is not None and name not in handled:
            fix = "its class has no such field in this version of diffusers; remove it, or update diffusers"
            raise InputError(f"{part}.{name}", value, fix)


def fields(kind: Any) -> dict[str, Any]:
    """The fields of a class's configuration with their defaults."""
    parameters = inspect.signature(kind.__init__).parameters
    return {name: each.default for name, each in parameters.items() if name != "self"}


def fingerprint(directory: Path, parts: Collection[str]) -> str:
    """Sixteen hexadecimal digits that change with everything that decides a picture: the files and the backend."""
    from diffusers import __version__

    described = {path for part in (*parts, "scheduler") for path in (directory / part).iterdir()}
    files = {path for path in described if path.suffix in (".json", ".txt") and "index" not in path.name}
    files |= {path for part in _networks(parts) for path in weights_of(directory / part).files}
    return digest_of(sorted([*files, *directory.glob("labels.json")]), 8, f"diffusers {__version__.partition('.')[0]}")


def weights_digest(directory: Path, parts: Collection[str]) -> str:
    """Twelve hexadecimal digits that change with the weights of any part, or with the sampler."""
    files = [path for part in _networks(parts) for path in weights_of(directory / part).files]
    return digest_of(sorted([*files, directory / "scheduler" / "scheduler_config.json"]))


def _networks(parts: Collection[str]) -> list[str]:
    return [part for part in parts if part != "tokenizer"]
