"""Model files of strangers, whose checksums fit: used as they say, or refused in one sentence, whatever they say."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forgery import forge, members

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.errors import ModelFileError
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, load_model, read_card, save_model
from caml_core.model_library import ModelLibrary

NETWORK = NetworkConfig(base_filters=1, attention_heads=1, head_features=2)
STRANGE = (None, True, -1, 0, 2, 10**30, 1e308, float("nan"), float("inf"), "", "x", "XYZ", [], [7, 7, 7], {"a": {}})


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.caml"
    spec = ModelSpec(Geometry((1.0,) * 3, (32, 16, 16)), NETWORK, (ChannelIntensity(),), (Segment("x", 1),), (0,))
    info = ModelInfo("m", metrics={"held_out": {"count": 3}}, provenance={"cases": {"p": {"role": "labeled"}}}, plan={})
    torch.manual_seed(0)
    save_model(path, spec=spec, state=build_network(NETWORK).state_dict(), info=info)
    return path


@pytest.fixture
def a_model_file(original, tmp_path) -> Path:
    (tmp_path / "user").mkdir()
    return Path(shutil.copy(original, tmp_path / "user" / "stranger.caml"))


def refusal(call, path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        call(path)
    sentence = str(caught.value)
    assert path.name in sentence and sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("network", {"attention_heads": 0}, "attention heads"),
        ("network", {"attention_heads": -1}, "attention heads"),
        ("network", {"head_features": 0}, "head_features"),
        ("network", {"head_features": -3}, "head_features"),
        ("network", {"dropout": 5}, "dropout"),
        ("network", {"dropout": float("nan")}, "dropout"),
        ("network", {"attention_dropout": -0.1}, "attention_dropout"),
        ("network", {"in_channels": 3}, "1 channel descriptions for 3"),
        ("network", {"in_channels": 10**30}, "1 to 256 channels"),
        ("network", {"classes": 3}, "1 segments for 3 classes"),
        ("geometry", {"patch": [8, 16, 16]}, "divisible"),
        ("geometry", {"patch": [40, 16, 16]}, "divisible"),
        ("geometry", {"orientation": "XYZ"}, "three patient axes"),
        ("geometry", {"orientation": "LPR"}, "three patient axes"),
        ("geometry", {"orientation": "LPSX"}, "three patient axes"),
        ("geometry", {"orientation": ""}, "three patient axes"),
        ("channels", {"mean": float("nan")}, "not all finite"),
        ("channels", {"std": float("inf")}, "not all finite"),
        ("channels", {"lower": -1}, "Percentiles"),
        ("channels", {"upper": 100.5}, "Percentiles"),
        (None, {"flip_axes": [7]}, "0, 1 or 2"),
        (None, {"flip_axes": [0, -1]}, "0, 1 or 2"),
    ],
)
def test_what_no_network_can_be_is_said_by_the_card_already(a_model_file, part, change, words):
    def changed(document: dict[str, Any]) -> None:
        found = document["spec"] if part is None else document["spec"][part]
        (found[0] if isinstance(found, list) else found).update(change)

    forge(a_model_file, changed)
    assert words in refusal(read_card, a_model_file)
    assert words in refusal(load_model, a_model_file)
    (entry,) = ModelLibrary(user=a_model_file.parent).entries()
    assert entry.card is None and words in entry.fault


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SPL", "ILA"])
@pytest.mark.parametrize("flips", [(), (2,), (0, 1, 2)])
def test_what_networks_can_be_is_taken(orientation, flips):
    geometry = Geometry((1.0,) * 3, (16, 32, 48), orientation)
    ModelSpec(geometry, NetworkConfig(dropout=1.0), (ChannelIntensity(),), (Segment("x", 1),), flips)


def test_a_network_that_cannot_be_built_is_refused(a_model_file):
    forge(a_model_file, lambda d: d["spec"]["network"].update(head_features=2**62))
    assert "cannot be built" in refusal(load_model, a_model_file)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all that a document holds, and to all that is in it."""
    if way:
        yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*way, key))


def replaced(document: dict[str, Any], way: tuple[Any, ...], value: Any) -> None:
    for key in way[:-1]:
        document = document[key]
    document[way[-1]] = copy.deepcopy(value)


def test_whatever_stands_wherever_the_library_is_listed(a_model_file):
    """A model can then be loaded, or is refused in one sentence."""
    content = a_model_file.read_bytes()
    document = json.loads(members(a_model_file)["model.json"])
    ways = [way for way in places(document) if way[0] not in ("weights", "format", "checksum") or len(way) == 1]
    assert ("spec", "network", "attention_heads") in ways and len(ways) > 50
    loaded = 0
    for way in ways:
        for value in STRANGE if way[0] == "spec" else STRANGE[::5]:
            forge(a_model_file, lambda d, way=way, value=value: replaced(d, way, value))
            (entry,) = ModelLibrary(user=a_model_file.parent).entries()
            if entry.card is None:
                assert entry.fault.endswith(".") and "\n" not in entry.fault, (way, value)
            elif way[:2] == ("spec", "network"):
                loaded += 1
                try:
                    load_model(a_model_file)
                except ModelFileError as error:
                    assert str(error).endswith("."), (way, value)
            a_model_file.write_bytes(content)
    assert loaded


@pytest.mark.parametrize("version", ["\u00b2", "9" * 5000, "..", "\x1b[2J"])
def test_a_version_that_is_none_hides_no_fault(a_model_file, version):
    forge(a_model_file, lambda d: (d["spec"].update(novelty=1), d.update(caml_version=version)))
    assert "makes no sense" in refusal(read_card, a_model_file)


@pytest.mark.parametrize("depth", [50, 400, 700, 900])
@pytest.mark.parametrize("wrapped", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_what_is_nested_too_deeply_to_be_shown_is_refused(a_model_file, caml, depth, wrapped):
    nested: Any = "x"
    for _ in range(depth):
        nested = wrapped(nested)
    forge(a_model_file, lambda d: d["info"]["provenance"].update(deep=nested))
    for more in ((), ("--json",)):
        code, _, err = caml("info", a_model_file, *more)
        assert code == (0 if depth < 100 else 4), err
    (entry,) = ModelLibrary(user=a_model_file.parent).entries()
    assert (entry.card is not None) == (depth < 100) and entry.fault.endswith("." if depth > 100 else "")
