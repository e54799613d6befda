"""The SHA-256 of large files, which is remembered while a file stays the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from thinktime import files
from thinktime.files import known_sha256
from thinktime.models.engine import directories
from thinktime.models.engine.directories import digest_of, weights_digest


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read for their hash, in an own cache folder."""
    monkeypatch.setenv("THINKTIME_HOME", str(tmp_path / "home"))
    read, sha256_of = list[Path](), files.sha256_of

    def reading(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr(files, "sha256_of", reading)
    return read


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_stays_the_same_is_read_once(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED", -1.0)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"first")
    two.write_bytes(b"other")
    for path, content in ((one, b"first"), (two, b"other"), (one, b"first")):
        assert known_sha256(path) == hash_of(content)
    assert reads == [one, two]
    one.write_bytes(b"again")
    os.utime(one, ns=(0, 0))
    assert known_sha256(one) == hash_of(b"again")
    two.unlink()
    (tmp_path / "two").write_bytes(b"third")
    assert known_sha256(two) == hash_of(b"third")
    assert reads == [one, two, one, two]


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "model"
    for content in (b"first", b"other"):
        path.write_bytes(content)
        assert known_sha256(path) == hash_of(content)
    assert reads == [path, path]


def test_a_digest_of_several_files_is_computed_again_if_one_of_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKTIME_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "SETTLED", -1.0)
    monkeypatch.setattr(directories, "LARGE", 4)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        path.write_bytes(b"weights")
    expected = hashlib.blake2b(b"weightsweights", digest_size=6).hexdigest()
    assert weights_digest(tmp_path) == expected
    assert digest_of(paths, start="other") != digest_of(paths, 8) != expected
    with monkeypatch.context() as patch:
        patch.setattr(directories, "hashlib", None)
        assert weights_digest(tmp_path) == expected
    paths[1].write_bytes(b"Weights")
    assert weights_digest(tmp_path) == hashlib.blake2b(b"weightsWeights", digest_size=6).hexdigest()


@pytest.mark.parametrize("memory", ["{", "[]", '{"x": 1}', "null"])
def test_a_broken_memory_is_no_memory(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    monkeypatch.setattr(files, "SETTLED", -1.0)
    path = tmp_path / "model"
    path.write_bytes(b"first")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hashes.json").write_text(memory)
    assert known_sha256(path) == known_sha256(path) == hash_of(b"first")
    assert reads == [path]
