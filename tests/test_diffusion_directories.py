"""Directories of ``diffusers``: what they say is applied as ``diffusers`` applies it, or refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import torch
from safetensors.torch import load_file, save_file
from test_diffusion import STEPS, painted, random, searching

from thinktime import cli
from thinktime.core.errors import InputError, ModelError, TooLongError
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.calls import Call
from thinktime.models.diffusion.folder import fingerprint, parts_of
from thinktime.models.diffusion.gradient import Part, Pull
from thinktime.models.diffusion.models import DiffusionModel
from thinktime.scorers.pictures import PictureScorer, clip_score, compressibility, ink

UNET, VAE, SCHEDULER, INDEX = (
    "unet/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "model_index.json",
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.classes(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.stable_diffusion(tmp_path_factory.mktemp("latent"))


Changed = Callable[..., Path]


@pytest.fixture
def changed(tmp_path: Path) -> Changed:
    """A copy of a directory with other fields in one of its files."""

    def change(source: Path, file: str, fields: dict[str, Any], without: tuple[str, ...] = ()) -> Path:
        copy = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(source, copy)
        old = json.loads((copy / file).read_text()) | fields
        (copy / file).write_text(json.dumps({name: value for name, value in old.items() if name not in without}))
        if file == SCHEDULER and "_class_name" in fields:
            index = json.loads((copy / INDEX).read_text()) | {"scheduler": ["diffusers", fields["_class_name"]]}
            (copy / INDEX).write_text(json.dumps(index))
        return copy

    return change


def assert_steps_equal(model: DiffusionModel, theirs: Any, eta: float = 0.7, steps: int = STEPS) -> None:
    """Every step of a sampler of ``diffusers`` with random predictions is ours."""
    levels = model.levels(steps)
    theirs.set_timesteps(steps)
    assert levels.timesteps == tuple(int(t) for t in theirs.timesteps)
    x = random(model.shape, 0)
    for position, timestep in enumerate(theirs.timesteps):
        predicted, noise = 2 * random(model.shape, 100 + position), random(model.shape, 200 + position)
        step = levels.step(x, predicted, position, eta)
        shown, state, drawn = (torch.from_numpy(each)[None] for each in (predicted, x, noise))
        told = theirs.step(shown, timestep, state, eta=eta, variance_noise=drawn)
        np.testing.assert_allclose(step.clean, told.pred_original_sample[0].numpy(), rtol=2e-4, atol=1e-4)
        x = (step.mean + np.float32(step.sigma) * noise).astype(np.float32)
        np.testing.assert_allclose(x, told.prev_sample[0].numpy(), rtol=2e-4, atol=1e-4)


BETAS = np.linspace(1e-3, 3e-2, 1000).tolist()


@pytest.mark.parametrize(
    "fields",
    [
        {"clip_sample": True, "clip_sample_range": 0.5},
        {"clip_sample": False},
        {"thresholding": True, "sample_max_value": 3.0},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.6, "sample_max_value": 1.5, "clip_sample": False},
        {"thresholding": True, "sample_max_value": 1.0},
        {"beta_schedule": "linear", "beta_start": 1e-3, "beta_end": 1e-2},
        {"beta_schedule": "scaled_linear", "clip_sample": False},
        {"trained_betas": BETAS, "timestep_spacing": "leading"},
        {"set_alpha_to_one": False, "timestep_spacing": "leading"},
        {"set_alpha_to_one": False, "timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False},
        {"timestep_spacing": "leading", "steps_offset": 3},
        {"num_train_timesteps": 100, "prediction_type": "sample"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "beta_schedule": "linear"},
        {"rescale_betas_zero_snr": True, "prediction_type": "sample", "beta_schedule": "scaled_linear"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "leading", "beta_schedule": "linear"},
    ],
)
def test_the_fields_of_a_sampler_are_applied_as_in_diffusers(
    plain: Path, changed: Changed, fields: dict[str, Any]
) -> None:
    from diffusers import DDIMScheduler

    directory = changed(plain, SCHEDULER, fields)
    assert_steps_equal(DiffusionModel(directory), DDIMScheduler.from_pretrained(directory / "scheduler"))


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("schedule", ["sigmoid", "laplace", "linear"])
def test_a_ddpm_has_its_own_steps_at_full_noise(plain: Path, changed: Changed, schedule: str, spacing: str) -> None:
    from diffusers import DDPMScheduler

    fields = {"_class_name": "DDPMScheduler", "beta_schedule": schedule, "timestep_spacing": spacing}
    without = ("set_alpha_to_one",)
    directory = changed(plain, SCHEDULER, fields | {"clip_sample": False, "beta_end": 0.01}, without)
    theirs: Any = DDPMScheduler.from_pretrained(directory / "scheduler")
    levels = DiffusionModel(directory).levels(STEPS)
    theirs.set_timesteps(STEPS)
    assert levels.timesteps == tuple(int(t) for t in theirs.timesteps)
    x, predicted = random((1, 8, 8), 0), random((1, 8, 8), 1)
    for position, timestep in enumerate(theirs.timesteps):
        mean, sigma, _ = levels.step(x, predicted, position, 1.0)
        drawn = torch.Generator().manual_seed(0)
        told = theirs.step(torch.from_numpy(predicted), timestep, torch.from_numpy(x), generator=drawn)
        noise = torch.randn((1, 8, 8), generator=torch.Generator().manual_seed(0)).numpy()
        np.testing.assert_allclose(mean + sigma * noise, told.prev_sample.numpy(), rtol=1e-3, atol=1e-4)


def test_a_sampler_without_clipping_gets_none_and_its_replacement_is_logged(
    plain: Path, changed: Changed, caplog: pytest.LogCaptureFixture
) -> None:
    """Without noise, DDIM and Euler's method take the same steps; Euler scales its states by another factor."""
    from diffusers import EulerDiscreteScheduler

    fields = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "beta_schedule": "linear"}
    without = ("clip_sample", "clip_sample_range", "thresholding", "set_alpha_to_one")
    directory = changed(plain, SCHEDULER, fields, without)
    levels = DiffusionModel(directory).levels(STEPS)
    assert "the levels are those of its EulerDiscreteScheduler, the steps are those of DDIM" in caplog.text
    theirs: Any = EulerDiscreteScheduler.from_pretrained(directory / "scheduler")
    theirs.set_timesteps(STEPS)
    x = random((1, 8, 8), 0)
    told = torch.from_numpy(x) * (theirs.sigmas[0] ** 2 + 1) ** 0.5
    for position, timestep in enumerate(theirs.timesteps):
        predicted = 2 * random((1, 8, 8), 10 + position)
        x = levels.step(x, predicted, position, 0.0).mean
        told = theirs.step(torch.from_numpy(predicted), timestep, told).prev_sample
        there = (theirs.sigmas[position + 1] ** 2 + 1) ** 0.5
        np.testing.assert_allclose(x, (told / there).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "last"),
    [("PNDMScheduler", False), ("UniPCMultistepScheduler", True), ("DPMSolverMultistepScheduler", True)],
)
def test_missing_fields_have_the_defaults_of_their_own_sampler(
    plain: Path, changed: Changed, kind: str, last: bool
) -> None:
    fields = {"_class_name": kind, "timestep_spacing": "leading"}
    directory = changed(plain, SCHEDULER, fields, ("set_alpha_to_one", "clip_sample"))
    model = DiffusionModel(directory)
    levels = model.levels(STEPS)
    assert levels.clip is None
    assert (levels.alphas[-1] == 1) is last


def test_fields_that_another_sampler_left_in_the_file_change_nothing(plain: Path, changed: Changed) -> None:
    """As in the files of Stable Diffusion XL."""
    fields = {
        "_class_name": "EulerDiscreteScheduler",
        "clip_sample": False,
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
        "not_yet_known": None,
    }
    levels = DiffusionModel(changed(plain, SCHEDULER, fields)).levels(STEPS)
    assert levels.alphas[-1] == 1 and levels.clip is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"prediction_type": "flow_prediction"},
            "prediction_type='flow_prediction': unknown; there are: epsilon, v_pr",
        ),
        ({"prediction_type": "x0"}, "prediction_type='x0': unknown"),
        ({"timestep_spacing": "karras"}, "timestep_spacing='karras': unknown; there are: leading"),
        ({"timestep_spacing": "linspace"}, "timestep_spacing='linspace': its steps would not lead"),
        ({"beta_schedule": "cosine"}, "beta_schedule='cosine': unknown"),
        ({"beta_schedule": "sigmoid"}, "scheduler='DDIMScheduler': its fields cannot be used"),
        ({"trained_betas": [0.1, 0.2]}, "num_train_timesteps=1000: trained_betas has 2 numbers"),
        ({"trained_betas": [0.0] * 1000}, "trained_betas='…': the noise does not grow"),
        ({"beta_schedule": "linear", "beta_end": 1.5}, "beta_end=1.5: the noise does not grow"),
        ({"clip_sample": "false"}, "clip_sample='false': give a value like true"),
        ({"num_train_timesteps": 0}, "num_train_timesteps=0: give a value like 1000"),
        (
            {"thresholding": True, "dynamic_thresholding_ratio": 2.0},
            "dynamic_thresholding_ratio=2.0: give a value like",
        ),
        ({"thresholding": True, "sample_max_value": 0.0}, "sample_max_value=0.0: give a value like 1.0"),
        ({"steps_offset": 0.5}, r"steps_offset=0.5: give a value like 0"),
        (
            {"_class_name": "DDPMScheduler", "variance_type": "fixed_large"},
            "variance_type='fixed_large': only 'fixed_sm",
        ),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "variance_type='learned_range': only"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas=True: only False"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type='continuous': only"),
        ({"_class_name": "EulerDiscreteScheduler", "sigma_max": 80.0}, "sigma_max=80.0: only None"),
        (
            {"_class_name": "EulerDiscreteScheduler", "clip_sample": True},
            "clip_sample=True: a EulerDiscreteScheduler has",
        ),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas=True: only False"),
        ({"shift": 3.0}, "shift=3.0: a DDIMScheduler has no such field; remove it"),
        ({"_class_name": "EDMEulerScheduler"}, "scheduler='EDMEulerScheduler': only variance-preserving"),
        ({"_class_name": "LCMScheduler"}, "scheduler='LCMScheduler': only variance-preserving"),
        ({"_class_name": ["mine", "Mine"]}, "scheduler=.*'Mine'.*: only variance-preserving"),
    ],
)
def test_a_field_of_a_sampler_that_cannot_be_applied_is_refused_by_name(
    plain: Path, changed: Changed, fields: dict[str, Any], message: str
) -> None:
    without = () if "clip_sample" in fields else ("clip_sample",)
    with pytest.raises(InputError, match=message):
        DiffusionModel(changed(plain, SCHEDULER, fields, without))


def test_the_two_files_that_name_the_sampler_must_agree(plain: Path, changed: Changed) -> None:
    with pytest.raises(InputError, match=r"scheduler='PNDMScheduler': model_index.json names PNDMScheduler, and"):
        DiffusionModel(changed(plain, INDEX, {"scheduler": ["diffusers", "PNDMScheduler"]}))


def test_steps_outside_of_the_training_are_refused(plain: Path, changed: Changed) -> None:
    model = DiffusionModel(changed(plain, SCHEDULER, {"timestep_spacing": "leading", "steps_offset": 1}))
    assert model.levels(999).timesteps[-1] == 1
    with pytest.raises(InputError, match="steps=1000: with steps_offset 1 this needs timesteps outside"):
        model.levels(1000)


def test_a_first_level_of_pure_noise_is_refused_for_predicted_noise_and_for_guidance(
    plain: Path, changed: Changed
) -> None:
    fields = {"rescale_betas_zero_snr": True, "beta_schedule": "linear"}
    with pytest.raises(InputError, match="prediction_type='epsilon': the first level is pure noise"):
        DiffusionGenerator(changed(plain, SCHEDULER, fields), steps=STEPS)
    pull = Pull([Part("ink", ink)])
    directory = changed(plain, SCHEDULER, fields | {"prediction_type": "v_prediction"})
    with pytest.raises(InputError, match=r"pull=1\.0: the model has a first level of pure noise"):
        DiffusionGenerator(directory, steps=STEPS, pull=pull)
    with pytest.raises(InputError, match=r"pull=1\.0: the model has thresholding"):
        DiffusionGenerator(changed(plain, SCHEDULER, {"thresholding": True}), steps=STEPS, pull=pull)


@pytest.mark.parametrize("fields", [{"clip_sample": True}, {"steps_offset": 0}])
def test_a_value_that_the_pipeline_of_stable_diffusion_replaces_is_refused(
    latent: Path, changed: Changed, fields: dict[str, Any]
) -> None:
    (name,) = fields
    with pytest.raises(InputError, match=rf"scheduler.{name}={fields[name]}: .*write"):
        DiffusionModel(changed(latent, SCHEDULER, fields))


def test_stable_diffusion_with_a_v_model_and_euler_equals_its_pipeline(latent: Path, changed: Changed) -> None:
    from diffusers import StableDiffusionPipeline

    fields = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "timestep_spacing": "leading"}
    directory = changed(latent, SCHEDULER, fields, ("clip_sample", "set_alpha_to_one"))
    search = searching(directory, "a cat", eta=0, guidance=3.0)
    answer = painted("single", search)
    assert answer.node is not None
    model = search.generator.model  # type: ignore[attr-defined]
    pipeline: Any = StableDiffusionPipeline.from_pretrained(directory, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    rng = np.random.Generator(np.random.Philox(key=int(answer.node.key, 16)))
    latents = torch.from_numpy(rng.standard_normal(model.shape, np.float32))[None]
    theirs = pipeline("a cat", num_inference_steps=STEPS, guidance_scale=3.0, latents=latents, output_type="np").images
    np.testing.assert_allclose(model.pictures([answer.node.state.x])[0].transpose(1, 2, 0), theirs[0], atol=1e-4)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (UNET, {"addition_embed_type": "text_time"}, "unet.addition_embed_type='text_time': not supported, and"),
        (UNET, {"time_cond_proj_dim": 8}, "unet.time_cond_proj_dim=8: not supported"),
        (UNET, {"encoder_hid_dim": 8}, "unet.encoder_hid_dim=8"),
        (UNET, {"class_embed_type": "timestep"}, "unet.class_embed_type='timestep'"),
        (UNET, {"attention_type": "gated"}, "unet.attention_type='gated'"),
        (UNET, {"shiny": 3}, "unet.shiny=3: its class has no such field"),
        (UNET, {"sample_size": None}, "unet.sample_size=None: write the side"),
        (VAE, {"shift_factor": 0.1}, "vae.shift_factor=0.1"),
        (VAE, {"latents_mean": [0.0] * 4}, "vae.latents_mean="),
        (VAE, {"shiny": 3}, "vae.shiny=3: its class has no such field"),
        (VAE, {"scaling_factor": None}, "vae.scaling_factor=None: give a number above 0"),
        ("text_encoder/config.json", {"use_attention_mask": True}, "text_encoder.use_attention_mask=True"),
        (
            "text_encoder/config.json",
            {"model_type": "bert"},
            "text_encoder.model_type='bert': it has to be clip_text_model",
        ),
        (VAE, {"_class_name": "AutoencoderTiny"}, "vae._class_name='AutoencoderTiny': it has to be AutoencoderKL"),
        (INDEX, {"scheduler": ["mine", "DDIMScheduler"]}, "model_index.scheduler=.*: only samplers of diffusers"),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 77},
            "tokenizer.model_max_length=77: the text encoder reads 8",
        ),
        (
            INDEX,
            {"_class_name": "StableDiffusionXLPipeline"},
            "model_index._class_name='StableDiffusionXLPipeline': not",
        ),
        (INDEX, {"_class_name": "StableDiffusionInpaintPipeline"}, "_class_name='StableDiffusionInpaintPipeline'"),
        (INDEX, {"_class_name": "PixArtAlphaPipeline"}, "_class_name='PixArtAlphaPipeline'"),
        (INDEX, {"_class_name": ["mine", "Pipe"]}, "_class_name=.*: not .* code of a directory is never run"),
        (INDEX, {"unet": ["mine", "UNet2DConditionModel"]}, "unet=.*'mine'.*: only UNet2DModel or UNet2DC"),
        (INDEX, {"vae": ["diffusers", "AutoencoderTiny"]}, "vae=.*: only AutoencoderKL of diffusers"),
        (INDEX, {"tokenizer": ["transformers", "T5Tokenizer"]}, "tokenizer=.*: only CLIPTokenizer"),
        (
            INDEX,
            {"text_encoder_2": ["transformers", "CLIPTextModel"]},
            "text_encoder_2=.*: a StableDiffusionPipeline h",
        ),
        (INDEX, {"unet": ["diffusers", "UNet2DModel"]}, "unet='UNet2DModel': a StableDiffusionPipeline needs a"),
    ],
)
def test_a_field_of_a_part_that_changes_the_picture_is_refused_by_name(
    latent: Path, changed: Changed, file: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        DiffusionModel(changed(latent, file, fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"in_channels": 9}, "it predicts 4 channels for states of 9; use a model that takes no further pictures"),
        ({"out_channels": 8}, "it predicts 8 channels for states of 4; use a model that predicts no variances"),
        ({"cross_attention_dim": 24}, "unet.cross_attention_dim=24: its text encoder gives 16 numbers"),
        ({"num_class_embeds": 3}, "unet.num_class_embeds=3: a text model with classes"),
    ],
)
def test_a_network_with_other_inputs_is_refused(
    latent: Path, changed: Changed, fields: dict[str, Any], message: str
) -> None:
    from diffusers import UNet2DConditionModel

    directory = changed(latent, UNET, fields)
    config = json.loads((directory / UNET).read_text())
    UNet2DConditionModel.from_config(config).save_pretrained(directory / "unet")
    with pytest.raises(InputError, match=message):
        DiffusionModel(directory)


def test_a_network_that_cannot_run_is_refused_before_a_search(plain: Path, changed: Changed) -> None:
    with pytest.raises(InputError, match="its network does not take these inputs"):
        DiffusionModel(changed(plain, UNET, {"sample_size": 9}))


def test_labels_that_do_not_fit_the_network_are_refused(plain: Path, changed: Changed) -> None:
    for labels in ({"labels": list("abcdef")}, {"hidden": 7}, {"hidden": "none"}):
        with pytest.raises(InputError, match=r"labels.json.*: the network has 5 classes"):
            DiffusionModel(changed(plain, "labels.json", labels))


@pytest.mark.parametrize(
    "file",
    [
        *(INDEX, SCHEDULER, UNET, VAE, "text_encoder/config.json", "tokenizer/tokenizer.json"),
        *("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
        "text_encoder/model.safetensors",
    ],
)
def test_a_missing_file_is_named(latent: Path, changed: Changed, file: str) -> None:
    directory = changed(latent, INDEX, {})
    (directory / file).unlink()
    shown = {"tokenizer/tokenizer.json": "tokenizer/vocab.json"}.get(file, file)
    named = f"there are no weights in {file.split('/')[0]}" if file.endswith(".safetensors") else shown
    with pytest.raises(InputError, match=named) as caught:
        DiffusionModel(directory)
    assert "\n" not in str(caught.value)


def test_a_missing_part_is_named(latent: Path, changed: Changed) -> None:
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        directory = changed(latent, INDEX, {})
        shutil.rmtree(directory / part)
        with pytest.raises(InputError, match=rf"it has no {part}/.*; download all parts"):
            DiffusionModel(directory)


@pytest.mark.parametrize("suffix", [".fp32.safetensors", ".bin"])
def test_weights_of_other_formats_paint_the_same(latent: Path, changed: Changed, suffix: str) -> None:
    expected, directory = DiffusionModel(latent), changed(latent, INDEX, {})
    for part in ("unet", "vae", "text_encoder"):
        (old,) = (directory / part).glob("*.safetensors")
        weights = load_file(old)
        old.unlink()
        if suffix == ".bin":
            stem = "pytorch_model" if part == "text_encoder" else old.stem
            torch.save(weights, directory / part / f"{stem}{suffix}")
        else:
            save_file(weights, directory / part / f"{old.stem}{suffix}", {"format": "pt"})
    model, x = DiffusionModel(directory), random(expected.shape, 0)
    np.testing.assert_array_equal(model.pictures([x])[0], expected.pictures([x])[0])
    call = Call(x, 7, "a cat", 3.0)
    np.testing.assert_array_equal(model.predict([call])[0], expected.predict([call])[0])


def test_missing_weights_are_an_error_with_their_names(plain: Path, changed: Changed) -> None:
    directory = changed(plain, INDEX, {})
    path = directory / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"its files lack conv_in.weight; download them again"):
        DiffusionModel(directory)
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="it cannot be loaded"):
        DiffusionModel(directory)


def test_weights_of_other_sizes_are_an_error(latent: Path, changed: Changed) -> None:
    with pytest.raises(InputError, match=r"it cannot be loaded \(Cannot load .* expected shape .*\); check its files"):
        DiffusionModel(changed(latent, UNET, {"cross_attention_dim": 24}))
    with pytest.raises(ModelError, match=r"text_encoder': other sizes than config.json says: .* more; check both"):
        DiffusionModel(changed(latent, "text_encoder/config.json", {"hidden_size": 12}))


def test_everything_that_decides_a_picture_is_in_the_fingerprint(latent: Path, changed: Changed) -> None:
    parts = parts_of(latent, json.loads((latent / INDEX).read_text()))
    names = {fingerprint(latent, parts)}
    for file, fields in (
        (SCHEDULER, {"beta_end": 0.01}),
        (UNET, {"norm_eps": 1e-3}),
        (VAE, {"scaling_factor": 0.5}),
        ("text_encoder/config.json", {"layer_norm_eps": 1e-3}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 7}),
    ):
        names.add(fingerprint(changed(latent, file, fields), parts))
    labelled = changed(latent, INDEX, {})
    (labelled / "labels.json").write_text("{}")
    names.add(fingerprint(labelled, parts))
    assert len(names) == 7


def test_a_prompt_that_the_text_encoder_does_not_read_to_its_end_is_refused(latent: Path) -> None:
    model = DiffusionModel(latent)
    assert model.condition("a a a a a a") == "a a a a a a"
    with pytest.raises(TooLongError, match="prompt='9 tokens': the text encoder reads 8; shorten it"):
        model.condition("a a a a a a a")
    assert model.condition(None) == ""


def test_a_prompt_that_clip_does_not_read_to_its_end_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measure = clip_score(tiny_diffusion.clip(tmp_path))
    for _ in range(2):
        measure(torch.zeros(1, 3, 16, 16), ["a a a a a a a"])
    assert caplog.text.count("the prompt has 9 tokens, and CLIP reads 8") == 1


def broken(directory: Path, part: str, name: str) -> Path:
    """The directory, with a weight that is infinite."""
    path = directory / part / "diffusion_pytorch_model.safetensors"
    save_file(
        {key: value / 0 if key == name else value for key, value in load_file(path).items()}, path, {"format": "pt"}
    )
    return directory


def test_a_state_with_nan_is_a_failed_sample_with_a_reason(plain: Path, changed: Changed) -> None:
    directory = broken(changed(plain, INDEX, {}), "unet", "conv_out.weight")
    for strategy, eta in (("best_of_n:n=2", 1.0), ("zero_order:start=2,rounds=0,final_steps=9", 0.0)):
        search = searching(directory, eta=eta)
        with pytest.raises(ModelError, match=r"NaN or infinity in a state at position 0; check its weights"):
            painted(strategy, search)
        assert search.ledger.spent.denoiser_calls > 0
        assert not any(record.node.done for record in search.trace.values())


def test_a_picture_with_nan_is_not_written(
    latent: Path, changed: Changed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = broken(changed(latent, INDEX, {}), "vae", "decoder.conv_out.weight")
    out = tmp_path / "cat.png"
    words = ["a cat", "--model", str(directory), "--strategy", "single", "--steps", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["thinktime", "paint", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.run()
    assert stopped.value.code == 1
    assert "its decoder gives NaN or infinity" in capsys.readouterr().err
    assert not out.exists()
    generator = DiffusionGenerator(directory, steps=2)
    scorer = PictureScorer(generator, compressibility, "compressibility")
    assert np.isnan(scorer._compute([(random(generator.model.shape, 0), "a cat")])).all()


def test_a_device_that_does_not_exist_is_refused(plain: Path) -> None:
    with pytest.raises(InputError, match="device='abacus': "):
        DiffusionModel(plain, "abacus")
