"""Tiny diffusion models with random weights, written as ``diffusers`` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ["<|startoftext|>", "<|endoftext|>", "a</w>", "cat</w>", "dog</w>", "red</w>", "c", "a", "t"]


def classes(directory: Path, *, prediction: str = "epsilon", count: int = 4, side: int = 8) -> Path:
    """A class-conditional model with one more class, for unconditional pictures."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        num_class_embeds=count + 1 if count else None,
    )
    sampler: Any = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction, timestep_spacing="trailing"
    )
    DDIMPipeline(unet, sampler).save_pretrained(directory)
    if count:
        labels = {"labels": [str(label) for label in range(count)], "hidden": count}
        (directory / "labels.json").write_text(json.dumps(labels))
    return directory


def stable_diffusion(directory: Path) -> Path:
    """A latent text-to-image model of the format of Stable Diffusion: tokenizer, text encoder, VAE, UNet, scheduler."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    tokenizer = _tokenizer(directory / "words")
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(config),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(directory / "pipeline")
    return directory / "pipeline"


def clip(directory: Path) -> Path:
    """A CLIP of ``transformers`` for pictures of 16 by 16 pixels."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**small, "image_size": 16, "patch_size": 8}
    config: Any = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    size = {"height": 16, "width": 16}
    pictures: Any = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
    CLIPModel(config).save_pretrained(directory)
    CLIPProcessor(pictures, _tokenizer(directory / "words")).save_pretrained(directory)
    return directory


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)
