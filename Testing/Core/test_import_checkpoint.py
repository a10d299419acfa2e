"""A published checkpoint becomes a model file with the same numbers; anything else is refused without running it."""

from __future__ import annotations

import json
import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from fixtures.seeded_weights import seeded_input, seeded_tensor

from caml_core.cli import import_checkpoint
from caml_core.errors import ModelFileError
from caml_core.model import build_network
from caml_core.model_file import load_model, network_shapes
from caml_core.published import published_spec, read_published


@pytest.fixture(scope="session")
def a_published_state(fixtures_folder) -> OrderedDict[str, torch.Tensor]:
    names = json.loads((fixtures_folder / "caml3d_v1_state_dict.json").read_text())
    return OrderedDict((name, torch.from_numpy(seeded_tensor(name, tuple(shape)))) for name, shape in names.items())


@pytest.fixture
def a_checkpoint(tmp_path, a_published_state):
    path = tmp_path / "caml_8_labels.pth"
    torch.save(a_published_state, path)
    return path


@pytest.fixture
def import_command():
    import argparse

    def call(*arguments: object) -> int:
        parser = argparse.ArgumentParser()
        import_checkpoint.add_arguments(parser)
        parser.set_defaults(command="import-checkpoint")
        return import_checkpoint.run(parser.parse_args([str(a) for a in arguments]))

    return call


def refusal(path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_published(path)
    sentence = str(caught.value)
    assert path.name in sentence and sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_the_network_has_the_published_names_shapes_and_order(a_published_state):
    shapes = network_shapes(published_spec().network)
    assert len(shapes) == 470
    assert [(name, tuple(t.shape)) for name, t in a_published_state.items()] == [(n, s) for n, (s, _) in shapes.items()]


def test_an_imported_model_computes_the_published_logits(tmp_path, a_checkpoint, import_command, fixtures_folder):
    output = tmp_path / "model.caml"
    assert import_command(a_checkpoint, "-o", output, "--name", "Left atrium (8 labels)") == 0
    loaded = load_model(output)
    network = build_network(loaded.spec.network)
    network.load_state_dict(loaded.state)
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(seeded_input(7, (3, 1, 48, 32, 32))))
    with np.load(fixtures_folder / "caml3d_v1_parity.npz") as expected:
        for name, logits in (("v", found.logits_v), ("a", found.logits_a)):
            difference = np.abs(logits[:, :, ::3, ::3, ::3].numpy() - expected[f"eval_logits_{name}"]).max()
            assert difference < 1e-4, name
    assert loaded.info.name == "Left atrium (8 labels)"


def test_the_card_says_what_the_published_network_expects(tmp_path, a_checkpoint, import_command):
    output = tmp_path / "model.caml"
    import_command(a_checkpoint, "-o", output)
    spec = load_model(output).spec
    assert spec.geometry.spacing == (0.625, 0.625, 0.625) and spec.geometry.patch == (112, 112, 80)
    (channel,), (segment,) = spec.channels, spec.segments
    assert (channel.kind, channel.lower, channel.upper, channel.region) == ("zscore", 0.0, 100.0, "image")
    assert segment.label == 1 and "SCT^82471001^Left atrium" in segment.terminology
    assert spec.flip_axes == (0, 1)


@pytest.mark.parametrize("nest", ["state_dict", "model", "net"])
def test_a_nested_state_dict_is_found(tmp_path, a_published_state, nest):
    path = tmp_path / "c.pth"
    torch.save({"epoch": 5, nest: a_published_state}, path)
    assert read_published(path).keys() == a_published_state.keys()


def test_the_prefix_of_data_parallel_is_dropped_and_order_restored(tmp_path, a_published_state):
    path = tmp_path / "c.pth"
    torch.save({f"module.{name}": a_published_state[name] for name in reversed(a_published_state)}, path)
    assert list(read_published(path)) == list(a_published_state)


def test_an_old_style_checkpoint_is_read(tmp_path, a_published_state):
    path = tmp_path / "c.pth"
    torch.save(a_published_state, path, _use_new_zipfile_serialization=False)
    assert read_published(path).keys() == a_published_state.keys()


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, witness) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("new_style", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run(tmp_path, a_published_state, new_style):
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    torch.save({**a_published_state, "evil": Evil(witness)}, path, _use_new_zipfile_serialization=new_style)
    assert "could run code" in refusal(path)
    assert not witness.exists()


def test_a_whole_pickled_network_is_refused(tmp_path):
    path = tmp_path / "c.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "could run code" in refusal(path)


@pytest.mark.parametrize("new_style", [True, False])
@pytest.mark.parametrize("share", [0.0001, 0.4, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, a_published_state, share, new_style):
    path = tmp_path / "c.pth"
    torch.save(a_published_state, path, _use_new_zipfile_serialization=new_style)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("content", [b"hello world", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(300)])
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    assert "damaged or of another kind" in refusal(path)


def test_missing_empty_and_folder_are_refused(tmp_path):
    assert "There is no checkpoint" in refusal(tmp_path / "absent.pth")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "c.pth").touch()
    assert "is empty" in refusal(tmp_path / "c.pth")


def test_what_does_not_fit_is_named(tmp_path, a_published_state):
    path = tmp_path / "c.pth"
    name = "decoder2.out_conv.weight"
    assert name in a_published_state
    torch.save({n: t for n, t in a_published_state.items() if n != name}, path)
    assert f"1 of 470 tensors are missing, the first being {name}" in refusal(path)
    torch.save({**a_published_state, name: torch.zeros(4, 16, 1, 1, 1)}, path)
    assert f"{name} has the shape (4, 16, 1, 1, 1), expected (2, 16, 1, 1, 1)" in refusal(path)
    torch.save({**a_published_state, name: torch.full((2, 16, 1, 1, 1), float("nan"))}, path)
    assert "not finite" in refusal(path)
    torch.save({**a_published_state, name: torch.full((2, 16, 1, 1, 1), 1e300, dtype=torch.float64)}, path)
    assert "not finite" in refusal(path)  # not as a float32, which is what a model holds
    for strange in (torch.zeros(2, 16, 1, 1, 1).to_sparse(), torch.zeros(2, 16, 1, 1, 1, device="meta")):
        torch.save({**a_published_state, name: strange}, path)
        assert "of another kind" in refusal(path)
    torch.save({"epoch": 3}, path)
    assert "no state dict" in refusal(path)
    torch.save([1, 2], path)
    assert "no state dict" in refusal(path)


def test_nothing_is_written_when_the_import_fails(tmp_path, import_command):
    path = tmp_path / "c.pth"
    path.write_bytes(b"hello")
    with pytest.raises(ModelFileError):
        import_command(path, "-o", tmp_path / "model.caml")
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


@pytest.mark.parametrize("name", ["caml_8_labels.pth", "model.pth", "model", "model.caml.zip"])
def test_only_a_model_file_is_written_and_never_over_the_checkpoint(tmp_path, a_checkpoint, caml, name):
    before = a_checkpoint.read_bytes()
    code, _, err = caml("import-checkpoint", a_checkpoint, "-o", tmp_path / name, "--progress", "none")
    assert code == 2 and err.count("\n") == 1 and ".caml" in err
    assert [p.name for p in tmp_path.iterdir()] == [a_checkpoint.name] and a_checkpoint.read_bytes() == before


def test_a_checkpoint_that_is_called_a_model_is_kept(tmp_path, a_checkpoint, caml):
    named = a_checkpoint.rename(tmp_path / "m.caml")
    before = named.read_bytes()
    code, _, err = caml("import-checkpoint", named, "-o", tmp_path / "." / "m.caml", "--progress", "none")
    assert code == 2 and "the checkpoint itself" in err and named.read_bytes() == before


def test_the_command_prints_where_the_model_lies(tmp_path, a_checkpoint, import_command, capsys):
    import_command(a_checkpoint, "-o", tmp_path / "model.caml", "--half", "--license", "Apache-2.0")
    assert str(tmp_path / "model.caml") in capsys.readouterr().out
    loaded = load_model(tmp_path / "model.caml")
    assert loaded.info.license == "Apache-2.0" and len(loaded.info.provenance["sha256"]) == 64
    assert (tmp_path / "model.caml").stat().st_size < 0.6 * a_checkpoint.stat().st_size


def test_a_panel_follows_the_import(tmp_path, a_checkpoint, caml):
    output = tmp_path / "model.caml"
    code, out, err = caml("import-checkpoint", a_checkpoint, "-o", output, "--progress", "json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and not err
    assert [e["event"] for e in events] == ["started", "stage", "stage", "finished"]
    assert events[-1]["result"] == {"output": str(output)} and output.is_file()
    (tmp_path / "bad.pth").write_bytes(b"no")
    code, out, _ = caml("import-checkpoint", tmp_path / "bad.pth", "-o", output, "--progress", "json")
    last = json.loads(out.splitlines()[-1])
    assert (code, last["event"], last["exit_code"]) == (4, "error", 4) and "damaged" in last["message"]


def test_an_import_that_is_stopped_writes_nothing(tmp_path, a_checkpoint, caml):
    (tmp_path / "stop").touch()
    output = tmp_path / "model.caml"
    code, _, err = caml("import-checkpoint", a_checkpoint, "-o", output, "--stop-file", tmp_path / "stop")
    assert code == 130 and "Stopped" in err and not output.exists()
