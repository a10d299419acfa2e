"""A model file gives back what was put in, and refuses everything else with one plain sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cards import SIGNIFICANT, coarse
from forgery import forge, forge_weights, members, rewrite

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.errors import ModelFileError, ResourceError
from caml_core.model import build_network
from caml_core.model_archive import MAX_DOCUMENT
from caml_core.model_file import ModelInfo, load_model, network_shapes, read_card, save_model

NETWORK = NetworkConfig(classes=3, base_filters=4)
SPEC = ModelSpec(
    geometry=Geometry(spacing=(0.7, 0.7, 1.5), patch=(32, 32, 16)),
    network=NETWORK,
    channels=(ChannelIntensity(kind="window", lower=-100.0, upper=400.0, mean=80.0, std=90.0, modality="CT"),),
    segments=(Segment("left atrium", 1), Segment("wall", 2, color=(1.0, 0.5, 0.0))),
    flip_axes=(0,),
)
INFO = ModelInfo(
    name="two classes",
    anatomy="heart",
    labeled_cases=8,
    unlabeled_cases=52,
    metrics={"dice": {"left atrium": 0.91}},
    provenance={"seed": 3},
    plan={"iterations": 10},
)


@pytest.fixture
def a_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return build_network(NETWORK).state_dict()


@pytest.fixture
def a_model_file(tmp_path, a_state) -> Path:
    path = tmp_path / "model.caml"
    save_model(path, spec=SPEC, state=a_state, info=INFO)
    return path


def refusal(path: Path) -> str:
    """The sentence of the refusal: one, ended, on one line, naming the file."""
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    sentence = str(caught.value)
    assert path.name in sentence
    assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence
    return sentence


# What was put in comes out


def test_full_precision_comes_back_bit_for_bit(tmp_path, a_state):
    path = tmp_path / "m.caml"
    save_model(path, spec=SPEC, state=a_state, info=INFO, half=False)
    loaded = load_model(path)
    assert list(loaded.state) == list(a_state)
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in a_state.items())
    assert (loaded.spec, loaded.info, loaded.path) == (SPEC, INFO, path)


def test_half_precision_rounds_kernels_alone_and_halves_the_file(tmp_path, a_state, a_model_file):
    full = tmp_path / "full.caml"
    save_model(full, spec=SPEC, state=a_state, info=INFO, half=False)
    assert a_model_file.stat().st_size < 0.6 * full.stat().st_size
    for name, tensor in load_model(a_model_file).state.items():
        expected = a_state[name]
        assert tensor.dtype == expected.dtype
        if expected.dim() >= 2:
            expected = expected.half().float()
        assert torch.equal(tensor, expected), name


def test_a_packed_file_holds_the_same_and_coarse_weights_make_it_much_smaller(tmp_path, a_state, a_model_file):
    packed, small = tmp_path / "packed.caml", tmp_path / "small.caml"
    rounded = coarse(a_state)
    save_model(packed, spec=SPEC, state=a_state, info=INFO, packed=True)
    save_model(small, spec=SPEC, state=rounded, info=INFO, packed=True)
    assert small.stat().st_size < 0.55 * a_model_file.stat().st_size
    assert packed.stat().st_size < a_model_file.stat().st_size
    unpacked, loaded = load_model(a_model_file).state, load_model(packed).state
    assert all(torch.equal(loaded[name], tensor) for name, tensor in unpacked.items())
    loaded = load_model(small).state
    for name, tensor in a_state.items():
        if tensor.dim() < 2:
            assert torch.equal(loaded[name], tensor), name
            continue
        assert not torch.equal(rounded[name], tensor), name
        steps = 2 ** next(bits for values, bits in SIGNIFICANT if tensor.numel() >= values)
        assert torch.all((rounded[name] - tensor).abs() <= tensor.abs() / steps), name
        # float16 holds eight bits exactly, down to its smallest steps.
        assert torch.allclose(loaded[name], rounded[name], rtol=0, atol=2.0**-24), name


def test_a_value_too_large_for_half_precision_survives(tmp_path, a_state):
    name = "encoder1.block_one.conv.0.weight"
    a_state[name][0, 0, 0, 0, 0] = 1e6
    path = tmp_path / "m.caml"
    save_model(path, spec=SPEC, state=a_state, info=INFO)
    assert torch.equal(load_model(path).state[name], a_state[name])


def test_the_state_loads_into_the_network_it_describes(a_model_file):
    loaded = load_model(a_model_file)
    network = build_network(loaded.spec.network)
    network.load_state_dict(loaded.state)
    logits = network.eval().forward_v(torch.zeros(1, 1, 16, 16, 16))
    assert logits.shape == (1, 3, 16, 16, 16)


def test_equal_content_gives_equal_bytes(tmp_path, a_state):
    paths = [tmp_path / "one.caml", tmp_path / "two.caml"]
    for path in paths:
        save_model(path, spec=SPEC, state={name: tensor.clone() for name, tensor in a_state.items()}, info=INFO)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_tensors_that_share_memory_or_need_gradients_are_saved(tmp_path, a_state):
    name = "encoder1.block_one.conv.0.weight"
    other = "encoder2.block_one.conv.0.weight"
    a_state[name] = torch.nn.Parameter(a_state[name])
    a_state[other] = a_state[name]
    save_model(tmp_path / "m.caml", spec=SPEC, state=a_state, info=INFO, half=False)
    assert torch.equal(load_model(tmp_path / "m.caml").state[other], a_state[name])


def test_figures_without_a_value_become_null_and_the_file_stays_strict_json(tmp_path, a_state):
    import numpy as np

    info = replace(INFO, metrics={"hd95_mm": float("nan"), "assd_mm": float("inf"), "dice": np.float32(0.5)})
    path = tmp_path / "m.caml"
    save_model(path, spec=SPEC, state=a_state, info=info)
    json.loads(members(path)["model.json"], parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert load_model(path).info.metrics == {"hd95_mm": None, "assd_mm": None, "dice": 0.5}


def test_the_file_holds_two_members_and_no_pickle(a_model_file):
    contents = members(a_model_file)
    assert sorted(contents) == ["model.json", "weights.safetensors"]
    contents["model.json"].decode("ascii")
    for content in contents.values():
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError)):
            pickle.loads(content)


def test_shapes_are_those_of_the_real_network(a_state):
    shapes = network_shapes(NETWORK)
    assert {name: tuple(tensor.shape) for name, tensor in a_state.items()} == {n: s for n, (s, _) in shapes.items()}


def test_a_file_packed_again_by_a_zip_program_still_loads(a_model_file, a_state):
    rewrite(a_model_file, members(a_model_file), zipfile.ZIP_DEFLATED)
    assert load_model(a_model_file).state.keys() == a_state.keys()


def test_a_card_is_read_without_torch(a_model_file, caml_environment):
    code = (
        "import sys; from pathlib import Path; from caml_core.model_file import read_card; "
        f"card = read_card(Path({str(a_model_file)!r})); assert card.info.name == 'two classes', card; "
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=caml_environment, timeout=60)


def test_a_card_counts_and_names(a_model_file, a_state):
    card = read_card(a_model_file)
    assert card.spec == SPEC and card.info == INFO and card.size == a_model_file.stat().st_size
    assert card.parameters == sum(t.numel() for t in a_state.values() if t.is_floating_point())


# What is refused


def test_a_missing_file_is_refused(tmp_path):
    assert "There is no model file" in refusal(tmp_path / "absent.caml")


def test_a_folder_is_refused(tmp_path):
    assert "is a folder" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "m.caml"
    path.touch()
    assert "is empty" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    path = tmp_path / "m.caml"
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)


def test_a_file_that_may_not_be_read_is_refused(a_model_file, an_open_folder, a_plain_user):
    path = an_open_folder / "m.caml"
    path.write_bytes(a_model_file.read_bytes())
    path.chmod(0)
    with a_plain_user():
        assert "may not be read" in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(a_model_file, share):
    content = a_model_file.read_bytes()
    a_model_file.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refusal(a_model_file)


@pytest.mark.parametrize("place", range(12))
def test_a_flipped_bit_anywhere_is_noticed(a_model_file, place):
    content = bytearray(a_model_file.read_bytes())
    loaded = load_model(a_model_file)
    content[1 + place * (len(content) - 2) // 11] ^= 0x10
    a_model_file.write_bytes(bytes(content))
    try:
        again = load_model(a_model_file)
    except ModelFileError as error:
        assert "\n" not in str(error)
    else:  # a bit of the zip's own headers that means nothing, such as a date
        assert again.spec == loaded.spec and again.info == loaded.info
        assert all(torch.equal(again.state[name], tensor) for name, tensor in loaded.state.items())


def test_other_weights_are_refused(a_model_file, tmp_path, a_state):
    other = tmp_path / "other.caml"
    changed = {name: t + 1 if t.is_floating_point() else t for name, t in a_state.items()}
    save_model(other, spec=SPEC, state=changed, info=INFO)
    contents = members(a_model_file)
    contents["weights.safetensors"] = members(other)["weights.safetensors"]
    rewrite(a_model_file, contents)
    assert "not those it was made with" in refusal(a_model_file)


def test_a_description_changed_by_hand_is_refused(a_model_file):
    contents = members(a_model_file)
    contents["model.json"] = contents["model.json"].replace(b"left atrium", b"left kidney")
    rewrite(a_model_file, contents)
    assert "was changed after it was made" in refusal(a_model_file)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04N.", b"\x93NUMPY" * 100, bytes(5000)])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "m.caml"
    path.write_bytes(content)
    assert "is not a CAML model file" in refusal(path)


def test_another_programs_zip_is_refused(tmp_path):
    path = tmp_path / "m.caml"
    rewrite(path, {"word/document.xml": b"<w/>"})
    assert "is not a CAML model file" in refusal(path)
    torch.save({"a": torch.zeros(2)}, path)
    assert "import-checkpoint" in refusal(path)
    rewrite(path, {"model.json": b'{"format": "other"}', "weights.safetensors": b""})
    assert "is not a CAML model file" in refusal(path)


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/passwd", "C:\\evil.exe", "run.pkl", "model.json/"])
def test_further_members_are_refused(a_model_file, name, tmp_path):
    rewrite(a_model_file, {**members(a_model_file), name: b"x"})
    assert "holds more than a CAML model does" in refusal(a_model_file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.caml"]


def test_a_member_twice_is_refused(a_model_file):
    with zipfile.ZipFile(a_model_file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.json", b"{}")
    assert refusal(a_model_file)


def test_a_bomb_is_refused_before_it_is_unpacked(a_model_file):
    contents = members(a_model_file)
    rewrite(a_model_file, {**contents, "weights.safetensors": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert "larger than in any CAML model" in refusal(a_model_file)
    rewrite(a_model_file, {**contents, "model.json": b" " * (MAX_DOCUMENT + 1)})
    assert "larger than in any CAML model" in refusal(a_model_file)


def test_weights_larger_than_the_network_needs_are_not_unpacked(a_model_file):
    weights = members(a_model_file)["weights.safetensors"]
    forge_weights(a_model_file, weights + os.urandom(20_000_000))
    assert "larger than the network" in refusal(a_model_file)


def test_a_directory_that_understates_a_member_is_refused(a_model_file):
    """The zip's directory says 100 bytes, the member unpacks to more: no more than declared is ever read."""
    contents = members(a_model_file)
    rewrite(a_model_file, contents, zipfile.ZIP_DEFLATED)
    size = len(contents["weights.safetensors"]).to_bytes(4, "little")
    a_model_file.write_bytes(a_model_file.read_bytes().replace(size, (100).to_bytes(4, "little")))
    assert refusal(a_model_file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.update(format_version=2, caml_version="7.0.0", extra=1), "newer version of CAML"),
        (lambda d: (d["spec"].update(novelty=1), d.update(caml_version="7.0.0")), "newer version of CAML"),
        (lambda d: d["spec"].update(novelty=1), "makes no sense"),
        (lambda d: d.update(format_version="x"), "damaged"),
        (lambda d: d.update(format_version=0), "damaged"),
        (lambda d: d.pop("spec"), "makes no sense"),
        (lambda d: d.pop("weights"), "damaged"),
        (lambda d: d["spec"]["geometry"].update(spacing=[0, 1, 1]), "makes no sense"),
        (lambda d: d["spec"]["geometry"].update(spacing=[float("nan"), 1, 1]), "makes no sense"),
        (lambda d: d["spec"]["network"].update(base_filters=10**9), "makes no sense"),
        (lambda d: d["spec"]["network"].update(base_filters=8), "do not fit"),
        (lambda d: d["spec"]["network"].update(head_features=10**6), "do not fit"),
        (lambda d: d["spec"]["network"].update(classes=4), "2 segments for 4 classes"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(a_model_file, change, sentence):
    forge(a_model_file, change)
    assert sentence in refusal(a_model_file)


def test_a_newer_format_with_more_members_says_so(a_model_file):
    forge(a_model_file, lambda document: document.update(format_version=2, caml_version="7.0.0"))
    rewrite(a_model_file, {**members(a_model_file), "preview.png": b"x"})
    assert "newer version of CAML ('7.0.0'" in refusal(a_model_file)


def test_deeply_nested_json_is_refused(a_model_file):
    rewrite(a_model_file, {**members(a_model_file), "model.json": b"[" * 200_000})
    assert "damaged" in refusal(a_model_file)


def _weights(state: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.clone() for name, tensor in state.items()})


def test_weights_that_do_not_fit_are_refused(a_model_file, a_state):
    name = "decoder1.out_conv.weight"
    assert name in a_state
    without = {n: t for n, t in a_state.items() if n != name}
    forge_weights(a_model_file, _weights(without))
    assert f"1 of {len(a_state)} tensors are missing, the first being {name}" in refusal(a_model_file)
    forge_weights(a_model_file, _weights({**a_state, "evil": torch.zeros(1)}))
    assert "do not belong to the network" in refusal(a_model_file)
    forge_weights(a_model_file, _weights({**a_state, name: torch.zeros(5)}))
    assert re.search(rf"{name} has the shape \(5,\), expected \(3, 4, 1, 1, 1\)", refusal(a_model_file))
    forge_weights(a_model_file, _weights({**a_state, name: a_state[name].double()}))
    assert "type 'F64'" in refusal(a_model_file)
    forge_weights(a_model_file, _weights({**a_state, name: a_state[name].long()}))
    assert f"{name} has the type int64" in refusal(a_model_file)
    forge_weights(a_model_file, _weights({**a_state, name: torch.full_like(a_state[name], float("nan"))}))
    assert "not finite" in refusal(a_model_file)


@pytest.mark.parametrize("weights", [b"", b"\xff" * 100, b"\x10" + bytes(7) + b"[" * 16, bytes(64)])
def test_weights_that_are_no_safetensors_are_refused(a_model_file, weights):
    forge_weights(a_model_file, weights)
    assert "damaged" in refusal(a_model_file)


# What cannot be written


def test_weights_that_do_not_fit_or_are_not_finite_are_not_written(tmp_path, a_state):
    name = "decoder2.out_conv.bias"
    for bad in (torch.full_like(a_state[name], float("inf")), torch.zeros(7)):
        with pytest.raises(ModelFileError, match=name):
            save_model(tmp_path / "m.caml", spec=SPEC, state={**a_state, name: bad}, info=INFO)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_older_file_as_it_was(a_model_file, a_state, a_full_disk):
    before = a_model_file.read_bytes()
    with a_full_disk(20_000), pytest.raises(ResourceError, match="no room on the disk"):
        save_model(a_model_file, spec=SPEC, state=a_state, info=INFO)
    assert a_model_file.read_bytes() == before
    assert [p.name for p in a_model_file.parent.iterdir()] == [a_model_file.name]


def test_a_folder_without_permission_is_named(an_open_folder, a_state, a_plain_user):
    folder = an_open_folder / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    with a_plain_user(), pytest.raises(ResourceError, match="may not be written"):
        save_model(folder / "m.caml", spec=SPEC, state=a_state, info=INFO)


def test_a_missing_folder_and_a_folder_as_target_are_named(tmp_path, a_state):
    with pytest.raises(ResourceError, match="does not exist"):
        save_model(tmp_path / "absent" / "m.caml", spec=SPEC, state=a_state, info=INFO)
    with pytest.raises(ResourceError, match="is a folder"):
        save_model(tmp_path, spec=SPEC, state=a_state, info=INFO)
    assert not list(tmp_path.iterdir())


def test_the_document_is_plain_ascii_json_with_the_format_named(a_model_file):
    document = json.loads(io.BytesIO(members(a_model_file)["model.json"]).read())
    assert (document["format"], document["format_version"]) == ("caml-model", 1)
