"""GGUF files as Hugging Face directories, converted once and kept.

The weights are dequantised. Quantised ones are kept in float16, whose rounding is far below that of the quantisation.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from thinktime.core.errors import InputError
from thinktime.files import cache_folder, known_sha256

_LOG = logging.getLogger(__name__)
CONVERTER = "converter-1"
"""Grows when the same file gives another directory than before."""


class UnsupportedFamilyError(InputError):
    """A family of GGUF files that the engine cannot compute."""

    def __init__(self, family: str) -> None:
        others = "take --engine llamacpp (pip install 'thinktime[llamacpp]'), or serve it with llama.cpp"
        fix = f"transformers cannot read this family from GGUF; {others}, and give its endpoint"
        super().__init__("general.architecture", family, fix)


def converted(path: Path) -> tuple[Path, str]:
    """The Hugging Face directory of a GGUF file, from the cache if it was converted before, and the file's SHA-256.

    Raises:
        InputError: there is no such file.
        UnsupportedFamilyError: ``transformers`` cannot read its family.
        OSError: the cache cannot be written.
    """
    if not path.is_file():
        raise InputError("model", str(path), "there is no such file")
    sha256 = known_sha256(path)
    kept = cache_folder() / "converted" / f"{sha256[:32]}-{CONVERTER}"
    directory = kept / "model"
    if not directory.is_dir():
        kept.mkdir(parents=True, exist_ok=True)
        _convert(path, directory)
    return directory, sha256


def _convert(path: Path, directory: Path) -> None:
    """Write the directory at once: another process sees all of it or nothing."""
    import torch
    from gguf import GGMLQuantizationType, GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.utils import logging as progress

    file = GGUFReader(path)
    family = str(file.fields["general.architecture"].contents())
    if family not in GGUF_CONFIG_MAPPING:
        raise UnsupportedFamilyError(family)
    kinds = {tensor.tensor_type for tensor in file.tensors if len(tensor.shape) > 1}
    wide = {GGMLQuantizationType.F32: torch.float32, GGMLQuantizationType.BF16: torch.bfloat16}
    dtype = wide.get(kinds.pop(), torch.float16) if len(kinds) == 1 else torch.float16
    _LOG.warning("model=%r: it is converted for the engine, once; this takes a minute", str(path))
    unfinished = Path(tempfile.mkdtemp(dir=directory.parent))
    progress.disable_progress_bar()
    try:
        where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
        AutoTokenizer.from_pretrained(**where).save_pretrained(unfinished)
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=dtype
        )
        model.save_pretrained(unfinished, max_shard_size="1TB")
        os.rename(unfinished, directory)
    except OSError:
        if not directory.is_dir():  # another process was faster
            raise
    finally:
        progress.enable_progress_bar()
        shutil.rmtree(unfinished, ignore_errors=True)
