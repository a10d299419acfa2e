"""A folder of model files is a library: bad files are shown with their fault, and nothing that is there is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caml_core import cache_location, model_library
from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.errors import CamlError, ModelFileError, ResourceError, UsageError
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, save_model
from caml_core.model_library import ModelLibrary

NETWORK = NetworkConfig(base_filters=1, attention_heads=1)


def write_model(path, name="Left atrium", segment="Left atrium", seed=0, **info):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    spec = ModelSpec(Geometry((1.0,) * 3, (16,) * 3), NETWORK, (ChannelIntensity(),), (Segment(segment, 1),))
    save_model(path, spec=spec, state=build_network(NETWORK).state_dict(), info=ModelInfo(name, **info))
    return path


@pytest.fixture
def a_library(tmp_path):
    write_model(tmp_path / "bundled" / "atrium.caml", "Left atrium", modality="MR")
    write_model(tmp_path / "bundled" / "vessels.caml", "coronary arteries", "Arteria coronaria", modality="CT")
    return ModelLibrary([tmp_path / "bundled", tmp_path / "absent"], tmp_path / "user")


@pytest.fixture
def a_model(tmp_path):
    return write_model(tmp_path / "download" / "mine.caml", "My model", seed=1, description="With scar, of pilot B.")


def one_sentence(error) -> str:
    sentence = str(error.value)
    assert isinstance(error.value, CamlError) and sentence.endswith(".") and "\n" not in sentence
    return sentence


def leftovers(folder):
    return [p.name for p in folder.rglob("*") if "part" in p.name]


# Listing


def test_models_are_listed_by_name_and_folders_need_not_exist(a_library, tmp_path):
    assert [(e.name, e.bundled) for e in a_library.entries()] == [("coronary arteries", True), ("Left atrium", True)]
    assert ModelLibrary([], tmp_path / "nowhere").entries() == ()
    assert not (tmp_path / "nowhere").exists() and not a_library.user.exists()


def test_files_that_cannot_be_used_are_shown_with_their_fault(a_library, a_model):
    a_library.user.mkdir()
    (a_library.user / "torn.caml").write_bytes(a_model.read_bytes()[:500])
    (a_library.user / "foreign.CAML").write_bytes(b"hello world")
    (a_library.user / "folder.caml").mkdir()
    (a_library.user / "notes.txt").touch()
    (a_library.user / ".mine.caml.1.part").touch()
    (a_library.user / ".hidden.caml").touch()
    faulty = {e.path.name: e for e in a_library.entries() if e.fault}
    assert sorted(faulty) == ["folder.caml", "foreign.CAML", "torn.caml"]
    for entry in faulty.values():
        assert entry.card is None and not entry.bundled
        assert entry.fault.endswith(".") and "\n" not in entry.fault and entry.name == entry.path.stem
    assert len(a_library.entries()) == 5


def test_only_changed_files_are_read_again(a_library, monkeypatch):
    read = []
    original = model_library.read_card
    monkeypatch.setattr(model_library, "read_card", lambda path: read.append(path.name) or original(path))
    first = a_library.entries()
    assert sorted(read) == ["atrium.caml", "vessels.caml"]
    assert a_library.entries() == first and len(read) == 2
    path = first[0].path
    write_model(path, "another", seed=3)
    os.utime(path, ns=(1, 1))
    assert "another" in [e.name for e in a_library.entries()] and read[2:] == [path.name]
    path.unlink()
    assert len(a_library.entries()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_folder_that_may_not_be_read_says_so(an_open_folder, a_plain_user):
    folder = an_open_folder / "locked"
    folder.mkdir(mode=0o000)
    with a_plain_user():
        (entry,) = ModelLibrary([], folder).entries()
    folder.chmod(0o700)
    assert entry.card is None and str(folder) in entry.fault and entry.fault.endswith(".")


def test_search_takes_all_words_from_any_part_of_the_card(a_library, a_model):
    a_library.add(a_model)
    entries = a_library.entries()

    def found(text):
        return [e.name for e in a_library.search(entries, text)]

    assert found("") == [e.name for e in entries] and len(entries) == 3
    assert found("ARTERIA") == ["coronary arteries"]
    assert found("scar  pilot") == ["My model"]
    assert found("mr atrium") == ["Left atrium", "My model"]
    assert found("ct atrium") == []
    assert found("vessels") == ["coronary arteries"]


# Adding


def test_a_model_is_copied_into_the_users_folder(a_library, a_model):
    path = a_library.add(a_model)
    assert path == a_library.user / "mine.caml" and path.read_bytes() == a_model.read_bytes()
    (entry,) = [e for e in a_library.entries() if not e.bundled]
    assert entry.path == path and entry.card.info.name == "My model" and not leftovers(a_library.user)


def test_the_same_model_is_added_once_and_another_of_its_name_gets_a_number(a_library, a_model, tmp_path):
    first = a_library.add(a_model)
    assert a_library.add(a_model) == first and a_library.add(first) == first
    other = write_model(tmp_path / "other" / "mine.caml", seed=2)
    second = a_library.add(other)
    assert second.name == "mine (2).caml" and second.read_bytes() == other.read_bytes()
    assert a_library.add(other) == second
    assert a_library.add(write_model(tmp_path / "third" / "mine.caml", seed=3)).name == "mine (3).caml"
    assert first.read_bytes() == a_model.read_bytes()


def test_a_bundled_model_is_not_copied(a_library):
    path = a_library.entries()[0].path
    assert a_library.add(path) == path and not a_library.user.exists()


@pytest.mark.parametrize(("name", "expected"), [("m.zip", "m.zip.caml"), (".m.caml", "m.caml"), ("M.CAML", "M.caml")])
def test_an_odd_name_becomes_one_that_is_listed(a_library, a_model, name, expected):
    path = a_library.add(a_model.rename(a_model.with_name(name)))
    assert path.name == expected
    assert path in [e.path for e in a_library.entries()]


@pytest.mark.parametrize("content", [None, b"", b"hello", b"PK\x03\x04 torn"])
def test_what_is_no_model_is_not_added(a_library, tmp_path, content):
    path = tmp_path / "no.caml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError) as error:
        a_library.add(path)
    assert "no.caml" in one_sentence(error) and not a_library.user.exists()


def test_a_full_disk_leaves_nothing_behind(a_library, a_model, a_full_disk):
    with a_full_disk(1000), pytest.raises(ResourceError) as error:
        a_library.add(a_model)
    assert "full" in one_sentence(error)
    assert list(a_library.user.iterdir()) == []


def test_a_users_folder_that_cannot_be_made_is_told(a_model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError) as error:
        ModelLibrary([], tmp_path / "file" / "models").add(a_model)
    one_sentence(error)


# Taking along, removing


def test_a_model_is_taken_along_as_one_file(a_library, tmp_path):
    source = a_library.entries()[0].path
    (tmp_path / "stick").mkdir()
    for destination, expected in (
        (tmp_path / "stick", tmp_path / "stick" / source.name),
        (tmp_path / "copy", tmp_path / "copy.caml"),
        (tmp_path / "new folder" / "b.caml", tmp_path / "new folder" / "b.caml"),
    ):
        assert a_library.export(source, destination) == expected
        assert ModelLibrary([], tmp_path / "elsewhere").add(expected).read_bytes() == source.read_bytes()


def test_a_model_is_never_copied_onto_itself(a_library):
    source = a_library.entries()[0].path
    before = source.read_bytes()
    with pytest.raises(UsageError) as error:
        a_library.export(source, source.parent)
    one_sentence(error)
    assert source.read_bytes() == before


def test_only_the_users_models_are_removed(a_library, a_model):
    mine = a_library.add(a_model)
    for path, words in ((a_library.entries()[0].path, "comes with the extension"), (a_model, "does not lie in")):
        with pytest.raises(UsageError, match="only your own") as error:
            a_library.remove(path)
        assert words in one_sentence(error) and path.exists()
    a_library.remove(mine)
    assert not mine.exists() and all(e.bundled for e in a_library.entries())
    with pytest.raises(ModelFileError, match="removed already"):
        a_library.remove(mine)


# Where it lies


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("linux", {"CAML_MODELS_DIR": "named"}, Path("named")),
        ("linux", {"XDG_DATA_HOME": "data"}, Path("data/caml/models")),
        ("linux", {}, Path.home() / ".local/share/caml/models"),
        ("win32", {"LOCALAPPDATA": "local"}, Path("local/caml/models")),
        ("darwin", {}, Path.home() / "Library/Application Support/caml/models"),
    ],
)
def test_the_users_folder_follows_the_system(monkeypatch, system, variables, expected):
    for name in ("CAML_MODELS_DIR", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache_location.sys, "platform", system)
    assert cache_location.user_models_folder() == expected == ModelLibrary().user


def test_a_library_is_listed_without_any_package(a_library, caml_environment):
    code = (
        "import sys; from pathlib import Path; from caml_core.model_library import ModelLibrary; "
        f"entries = ModelLibrary([Path({str(a_library.bundled[0])!r})], Path('nowhere')).entries(); "
        "assert all(e.card for e in entries) and len(entries) == 2; "
        "assert not {'torch', 'numpy', 'SimpleITK'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=caml_environment, timeout=60)


# Which library, and what is in it


def test_a_model_is_found_by_its_content_under_any_name(a_library, a_model, tmp_path):
    assert a_library.find(a_model) is None and a_library.find(tmp_path / "gone.caml") is None
    added = a_library.add(a_model)
    renamed = added.rename(added.with_name("called otherwise.caml"))
    assert a_library.find(a_model) == renamed
    assert a_library.find(a_library.bundled[0] / "atrium.caml") == a_library.bundled[0] / "atrium.caml"
    content = bytearray(a_model.read_bytes())
    content[-1] ^= 1  # as long as the other, and another
    (tmp_path / "altered.caml").write_bytes(content)
    assert a_library.find(tmp_path / "altered.caml") is None


def test_a_library_stays_itself_and_is_no_other(a_library, tmp_path):
    identity = a_library.identity()
    assert identity and ModelLibrary([], a_library.user).identity() == identity
    assert ModelLibrary([], tmp_path / "elsewhere").identity() != identity
    assert ModelLibrary([], a_library.user).entries() == ()


def test_an_identity_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "models").write_text("no folder")
    with pytest.raises(ResourceError) as error:
        ModelLibrary([], tmp_path / "models").identity()
    assert "Cannot write" in one_sentence(error)
