"""``caml info`` tells a person, and a program, what a model file is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from caml_core.cli import info
from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.errors import ModelFileError
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, load_model, save_model


@pytest.fixture
def a_model_file(tmp_path):
    network = NetworkConfig(classes=2, base_filters=2)
    spec = ModelSpec(
        geometry=Geometry(spacing=(0.625, 0.625, 1.25), patch=(64, 64, 32)),
        network=network,
        channels=(ChannelIntensity(),),
        segments=(Segment("Left atrium", 1),),
    )
    card = ModelInfo(
        name="Atrium, caf\u00e9 edition",
        license="CC-BY-4.0",
        labeled_cases=8,
        unlabeled_cases=52,
        metrics={"dice": {"v": {"Left atrium": 0.90123}}},
        provenance={"seed": 7, "cases": {f"case_{i}": "0" * 64 for i in range(60)}},
    )
    save_model(tmp_path / "m.caml", spec=spec, state=build_network(network).state_dict(), info=card)
    return tmp_path / "m.caml"


@pytest.fixture
def show(capsys):
    def call(*arguments: object) -> str:
        parser = argparse.ArgumentParser()
        info.add_arguments(parser)
        assert info.run(parser.parse_args([str(a) for a in arguments])) == 0
        return capsys.readouterr().out

    return call


def test_the_card_names_what_a_person_asks_for(show, a_model_file):
    text = show(a_model_file)
    for part in (
        "Atrium, caf\u00e9 edition",
        "1 Left atrium (SCT 85756007 Tissue)",
        "0.625 x 0.625 x 1.25 mm",
        "64 x 64 x 32 voxels",
        "8 labelled and 52 unlabelled cases",
        "dice v Left atrium: 0.9012",
        "CC-BY-4.0",
        "seed: 7",
        "cases: 60 entries",
    ):
        assert part in text


def test_held_out_figures_are_words_and_not_keys(show, tmp_path, a_model_file):
    model = load_model(a_model_file)
    figures = {"dice": {"mean": 0.9076, "std": 0.024}, "hd95_mm": {"mean": 4.301, "std": 2.218}}
    held_out = {"count": 20, "of": "cases 61-80", "remarks": ["One is empty."], "summary": {"mean": {"LA": figures}}}
    crossed = {"count": 8, "summary": {"v": {"LA": {"dice": {"mean": 0.8, "std": 0.1}}}}}
    info = dataclasses.replace(model.info, metrics={"held_out": held_out, "cross_validation": crossed, "odd": 3})
    save_model(tmp_path / "n.caml", spec=model.spec, state=model.state, info=info)
    lines = [" ".join(line.split()) for line in show(tmp_path / "n.caml").splitlines()]
    at = lines.index("Held out: LA: Dice 90.8 +- 2.4 %, 95HD 4.3 +- 2.2 mm (mean of both sub-models), 20 cases")
    assert lines[at + 1 : at + 3] == ["cases 61-80", "One is empty."]
    assert "In folds: LA: Dice 80.0 +- 10.0 % (sub-model v), 8 cases" in lines and "Figures: odd: 3" in lines
    assert not any("summary" in line for line in lines)


def test_cases_are_counted_however_few_they_are(show, tmp_path, a_model_file):
    learned = {"learned": ["p01", "p02"], "learned_scans": [["p01", "0RZDK2"], ["p02", "1D7CUD"]], "sizes": [1.5, 2.5]}
    shown = show(card_of(tmp_path / "n.caml", a_model_file, provenance=learned))
    assert "learned: 2 entries" in shown and "learned_scans: 2 entries" in shown and "p01" not in shown
    assert "sizes: [1.5, 2.5]" in shown


def card_of(path, model_file, **changes):
    model = load_model(model_file)
    info = dataclasses.replace(model.info, **changes)
    save_model(path, spec=model.spec, state=model.state, info=info)
    return path


@pytest.mark.parametrize(
    "summary",
    [
        {"mean": {"LA": {"dice": {"mean": None, "std": None}}}},
        {"mean": {"LA": {"dice": {"mean": 0.9, "std": None}, "hd95_mm": {"mean": "3", "std": [1]}}}},
        {"mean": {"LA": {"dice": 5, "hd95_mm": ["mean", "std"]}, "RA": 7}},
        {"v": {"LA": {"dice": {"mean": 10**400, "std": True}}}},
        {"": 5},
        {"mean": []},
        [],
    ],
)
def test_figures_that_are_none_are_left_out(show, tmp_path, a_model_file, summary):
    metrics = {"held_out": {"summary": summary, "remarks": 5, "count": {}}}
    lines = show(card_of(tmp_path / "n.caml", a_model_file, metrics=metrics))
    assert "+-" not in lines and "CC-BY-4.0" in lines


def test_a_card_cannot_steer_the_terminal(show, tmp_path, a_model_file):
    text = "\x1b[2Jgone\x07\x9b1m\u202eback\rover\tthere"
    card = card_of(
        tmp_path / "n.caml", a_model_file, name=text, description="two\nlines", provenance={"by": text, text: "x"}
    )
    shown = show(card)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert r"\x1b[2Jgone\x07\x9b1m\u202eback\rover\tthere" in shown and "two\nlines" in shown


def test_json_holds_everything(show, a_model_file):
    document = json.loads(show(a_model_file, "--json"))
    assert document["info"]["name"] == "Atrium, caf\u00e9 edition"
    assert len(document["info"]["provenance"]["cases"]) == 60
    assert document["spec"]["geometry"]["spacing"] == [0.625, 0.625, 1.25]
    assert document["checked"] is False


def test_check_reads_the_weights(show, a_model_file):
    assert "every weight is finite and fits" in show(a_model_file, "--check")
    content = bytearray(a_model_file.read_bytes())
    content[len(content) // 2] ^= 1
    a_model_file.write_bytes(bytes(content))
    assert "Left atrium" in show(a_model_file)
    with pytest.raises(ModelFileError):
        show(a_model_file, "--check")


def test_a_foreign_file_is_refused(show, tmp_path):
    torch.save({}, tmp_path / "m.caml")
    with pytest.raises(ModelFileError, match="not a CAML model file"):
        show(tmp_path / "m.caml")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
@pytest.mark.parametrize(("entries", "expected"), [(3, 0), (3000, 141)])
def test_a_reader_that_has_had_enough_is_no_fault(tmp_path, caml_environment, entries, expected):
    """A short card waits in the buffer until the end, a long one meets the closed pipe while it is printed."""
    network = NetworkConfig(classes=2, base_filters=2)
    spec = ModelSpec(Geometry((1.0,) * 3, (16,) * 3), network, (ChannelIntensity(),), (Segment("x", 1),))
    card = ModelInfo("m", provenance={f"entry {i}": "0" * 64 for i in range(entries)})
    save_model(tmp_path / "m.caml", spec=spec, state=build_network(network).state_dict(), info=card)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "caml_core", "info", tmp_path / "m.caml", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**caml_environment, "PYTHONUNBUFFERED": ""},
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (expected, b"")
