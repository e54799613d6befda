"""The noise schedule of a ``diffusers`` directory as a DDIM sampler.

The directory gives the levels, the prediction and the limits of the clean estimate. The steps between the levels are
always those of DDIM. So fields that only choose other steps have no effect. All other fields are applied or refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from thinktime.core.errors import InputError
from thinktime.models.diffusion.folder import fields

KINDS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    *("HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    "DEISMultistepScheduler",
)
"""Samplers whose forward process preserves variance."""
_APPLIED = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
    *("prediction_type", "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio"),
    *("sample_max_value", "set_alpha_to_one", "timestep_spacing", "steps_offset"),
}
_OF_A_SOLVER = {
    *("skip_prk_steps", "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final"),
    *("predict_x0", "disable_corrector", "solver_p"),
}
"""Fields that choose the steps between levels. They have no effect, because the steps are those of DDIM."""
_SWITCHED = {"clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value", "set_alpha_to_one"}
"""Fields that may be in the file of a sampler that does not read them. There they have no effect."""
_CHOICES = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"),
}
_ABOVE_0 = {"num_train_timesteps", "clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio"}


def sampler_of(config: Mapping[str, Any], *, latent: bool, named: str | None = None) -> Any:
    """The DDIM sampler of ``diffusers`` with this schedule.

    Args:
        config: the content of ``scheduler_config.json``.
        latent: whether the directory is a Stable Diffusion pipeline, which fixes two of the fields.
        named: the sampler that ``model_index.json`` names.

    Raises:
        InputError: the sampler or one of its fields is not supported.
    """
    import diffusers

    kind = config.get("_class_name", "unknown")
    if kind not in KINDS:
        fix = "only variance-preserving samplers (DDPM, DDIM and similar) are supported; give another model"
        raise InputError("scheduler", kind, fix)
    if named not in (None, kind):
        fix = f"model_index.json names {named}, and scheduler_config.json {kind}; write the same in both"
        raise InputError("scheduler", named, fix)
    own = fields(getattr(diffusers, kind))
    chosen = own | {name: value for name, value in config.items() if name in own}
    _check(kind, config, own)
    if latent:
        _check_latent(kind, chosen)
    try:
        noise = getattr(diffusers, kind)(**{name: chosen[name] for name in own})
        betas = noise.betas.tolist()
        alphas = noise.betas.neg().add(1).cumprod(0).tolist()
    except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        fix = f"its fields cannot be used ({str(error).splitlines()[0]}); correct scheduler_config.json"
        raise InputError("scheduler", kind, fix) from None
    if len(betas) != chosen["num_train_timesteps"]:
        fix = f"trained_betas has {len(betas)} numbers; give one for each timestep"
        raise InputError("scheduler.num_train_timesteps", chosen["num_train_timesteps"], fix)
    if not all(1 > a > b >= 0 for a, b in pairwise(alphas)):
        name = "beta_end" if chosen["trained_betas"] is None else "trained_betas"
        value = chosen[name] if name == "beta_end" else "…"
        raise InputError(
            f"scheduler.{name}", value, "the noise does not grow at every timestep; give betas from 0 to 1"
        )
    copied = {"prediction_type", "timestep_spacing", "steps_offset", "num_train_timesteps", *_SWITCHED, "thresholding"}
    return diffusers.DDIMScheduler(
        trained_betas=betas,
        clip_sample=bool(chosen.get("clip_sample", False)),
        **{name: chosen[name] for name in copied if name in chosen},
    )


def _check(kind: str, config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse fields that change the levels or the noise in a way that is not supported."""
    import diffusers

    elsewhere = [fields(getattr(diffusers, each)) for each in KINDS]
    for name, value in config.items():
        where = f"scheduler.{name}"
        if name.startswith("_") or name in _OF_A_SOLVER:
            continue
        if name in _CHOICES and value not in _CHOICES[name]:
            raise InputError(where, value, f"unknown; there are: {', '.join(_CHOICES[name])}")
        if name in own:
            if type(own[name]) in (bool, int, float) and not _fits(name, value, own[name]):
                raise InputError(where, value, f"give a value like {json.dumps(own[name])}")
            if name not in _APPLIED and value != own[name]:
                fix = f"only {own[name]!r} is supported; write it in scheduler_config.json"
                raise InputError(where, value, fix)
        elif not (
            value in (None, False)
            or name in _SWITCHED
            or (value is not True and any(name in other and other[name] == value for other in elsewhere))
        ):
            fix = f"a {kind} has no such field; remove it, or name its sampler in _class_name"
            raise InputError(where, value, fix)
    if kind == "DDIMScheduler" and config.get("timestep_spacing") == "linspace":
        fix = "its steps would not lead to these timesteps; write leading or trailing"
        raise InputError("scheduler.timestep_spacing", "linspace", fix)


def _fits(name: str, value: Any, example: bool | int | float) -> bool:
    """Whether a value has the type of the example and is in the range of its field."""
    if isinstance(example, bool) or isinstance(value, bool):
        return type(value) is type(example)
    if not isinstance(value, (int, float) if isinstance(example, float) else int):
        return False
    return (name not in _ABOVE_0 or value > 0) and (name != "dynamic_thresholding_ratio" or value <= 1)


def _check_latent(kind: str, chosen: Mapping[str, Any]) -> None:
    """Refuse two values that the pipeline of Stable Diffusion replaces by others."""
    if chosen.get("clip_sample"):
        fix = f"latents are not clipped, and a {kind} without this field clips; write false in scheduler_config.json"
        raise InputError("scheduler.clip_sample", True, fix)
    if chosen["timestep_spacing"] == "leading" and chosen["steps_offset"] != 1:
        fix = "Stable Diffusion starts at timestep 1; write 1 in scheduler_config.json"
        raise InputError("scheduler.steps_offset", chosen["steps_offset"], fix)
