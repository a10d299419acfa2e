"""The models that are part of the project, and what writes their cards and installs them."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import train_models
from cards import MOST_BYTES, coarse, faults, write_model
from recipes import BUNDLED, FOR_MEASURING, RECIPES, Cohorts, Recipe
from synthetic import tiny_plan, write_cohort

from caml_core.case_names import digest_of
from caml_core.data.cohort import load_cohort
from caml_core.errors import CamlError
from caml_core.events import silent
from caml_core.model_file import ModelInfo, load_model, read_card, save_model
from caml_core.training.run import Session, run_training
from caml_core.training.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = RECIPES["left-atrium"]


def models() -> list[Path]:
    """The model files that belong to the project; one that was laid there to try it does not."""
    found = sorted(path for home in (BUNDLED, FOR_MEASURING) for path in home.glob("*.caml"))
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--error-unmatch"]
    return [p for p in found if subprocess.run([*command, str(p)], capture_output=True, check=False).returncode != 1]


# What is there


def test_every_model_is_small_opens_and_has_a_full_card():
    assert {path.name: found for path in models() if (found := faults(path))} == {}


def test_every_model_can_be_made_anew():
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {recipe.make for recipe in RECIPES.values()} <= set(targets)
    for path in models():
        recipe = RECIPES[path.stem]
        assert path.parent == recipe.home
        origin = read_card(path).info.provenance
        assert origin["reproduction"] == recipe.command(origin["iterations"])


def test_the_command_that_makes_a_model_anew_names_it_and_its_length():
    for recipe in RECIPES.values():
        words = shlex.split(recipe.command(123))
        if words[0] == "make":
            assert words == ["make", recipe.make, "ARGS=--iterations 123"]
        else:
            options = train_models._options(words[2:])
            assert (options.models, options.iterations) == ([recipe.name], 123)


def test_bundled_models_are_listed_where_they_are_built():
    listed = (REPOSITORY / "CAMLSegmentation" / "CMakeLists.txt").read_text(encoding="utf-8")
    names = [path.name for path in models() if path.parent == BUNDLED]
    assert sorted(re.findall(r"^\s*Resources/Models/(\S+\.caml)$", listed, re.MULTILINE)) == names


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_name_licence_sources_and_what_they_do_not_know(recipe):
    assert "Gao" in recipe.citation and "Apache-2.0" in recipe.license and "research" in recipe.limits.lower()
    if recipe.modality == "MR":
        assert "Xiong" in recipe.citation and "Atrial Segmentation Challenge" in recipe.data
    else:
        assert "not known" in recipe.limits and "No patient" in recipe.data
    assert len(recipe.about + recipe.limits) < 600  # the panel shows both


# What writes a card


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Two finished run folders of tiny networks: a twin with a held-out case, and a model without."""
    home = tmp_path_factory.mktemp("runs")
    for name, validation in (("twin", 1), ("final", 0)):
        cohort = load_cohort(write_cohort(home / f"cohort-{name}", labeled=3, unlabeled=3, validation=validation))
        folder, plan = RunFolder(home / name), tiny_plan()
        with folder:
            folder.create(plan, cohort)
            session = Session(silent, lambda: False, home / "cache")
            assert run_training(plan, cohort, folder, session, None, resumed=False).reason == "finished"
    return {name: home / name for name in ("twin", "final")}


@pytest.fixture
def a_model(runs, tmp_path) -> Path:
    """A model's file as it would ship."""
    path = tmp_path / "models" / "left-atrium.caml"
    assert write_model(RECIPE, runs["final"], runs["twin"], "case 7, by a twin", path) == []
    return path


def rewritten(path: Path, *, drop: str = "", **changes: object) -> list[str]:
    """What a file lacks once its card says less."""
    model = load_model(path)
    info = model.info
    if drop:
        info = dataclasses.replace(info, provenance={k: v for k, v in info.provenance.items() if k != drop})
    info = dataclasses.replace(info, **{k: v for k, v in changes.items() if k != "labeled_only"})
    spec = dataclasses.replace(model.spec, labeled_only=bool(changes.get("labeled_only")))
    save_model(path, spec=spec, state=model.state, info=info)
    return faults(path)


def test_a_card_has_its_words_counts_and_the_twin_s_figures(a_model, runs):
    card, trained = read_card(a_model), read_card(RunFolder(runs["final"]).model)
    info = card.info
    assert (info.name, info.license, info.citation) == (RECIPE.title, RECIPE.license, RECIPE.citation)
    assert RECIPE.about in info.description and RECIPE.limits in info.description
    assert (info.labeled_cases, info.unlabeled_cases) == (3, 3)
    held_out = info.metrics["held_out"]
    assert (held_out["count"], held_out["of"]) == (1, "case 7, by a twin")
    twin = read_card(RunFolder(runs["twin"]).model).info.metrics["held_out"]["summary"]
    for segment, figures in held_out["summary"]["mean"].items():
        assert {k: figures[k] for k in twin["mean"][segment]} == twin["mean"][segment]
        assert figures["hd95_pooled_mm"]["mean"] <= figures["hd95_mm"]["mean"]
    # What the training noted stays: a later training must know which cases this model has seen.
    assert info.provenance["cases"] == trained.info.provenance["cases"] and info.plan == trained.info.plan


def test_the_weights_are_those_that_were_trained_as_far_as_five_bits_go_in_a_smaller_file(a_model, runs):
    trained = RunFolder(runs["final"]).model
    before, after = load_model(trained), load_model(a_model)
    assert before.spec == after.spec
    for name, tensor in before.state.items():
        # Beyond the bits (these networks have no kernels that keep fewer): float16 ends at steps of 2**-24.
        steps = 2**5 if tensor.numel() >= 20_000 else 2**8
        assert torch.allclose(after.state[name], tensor, rtol=1 / steps, atol=2.0**-24), name
        assert tensor.dim() > 1 or torch.equal(after.state[name], tensor), name
    assert a_model.stat().st_size < 0.85 * trained.stat().st_size


def test_the_panel_can_show_the_card(a_model, caml):
    code, out, _ = caml("info", a_model)
    assert code == 0
    for part in (RECIPE.title, "3 labelled and 3 unlabelled cases", "by a twin", "make model-la", "Xiong"):
        assert part in out


@pytest.mark.parametrize("word", ["data", "limits", "reproduction", "license", "citation", "anatomy", "modality"])
def test_a_card_that_lacks_a_word_is_found(a_model, word):
    of_the_info = word in {field.name for field in dataclasses.fields(ModelInfo)}
    lacking = rewritten(a_model, **{word: " "}) if of_the_info else rewritten(a_model, drop=word)
    assert len(lacking) == 1 and word in lacking[0]


def test_a_card_without_counts_or_figures_is_found(a_model):
    held_out = load_model(a_model).info.metrics["held_out"]
    assert "labelled cases" in " ".join(rewritten(a_model, labeled_cases=0))
    assert "how many" in " ".join(rewritten(a_model, labeled_cases=3, metrics={"held_out": {**held_out, "of": ""}}))
    fewer = {"dim": held_out["summary"]["mean"]["dim"]}
    (found,) = rewritten(a_model, metrics={"held_out": {**held_out, "summary": {"mean": fewer}}})
    assert "bright" in found and "dim" not in found
    assert len(rewritten(a_model, metrics={})) == 3


def test_half_a_model_and_an_unfinished_one_are_found(a_model):
    provenance = load_model(a_model).info.provenance
    assert rewritten(a_model, labeled_only=True) == ["It has sub-model v alone."]
    (found,) = rewritten(a_model, provenance={**provenance, "iterations": 7})
    assert "not trained to its end (7" in found


def test_limits_that_the_panel_would_not_show_are_found(a_model):
    (found,) = rewritten(a_model, description="A model.")
    assert "description" in found


def test_a_damaged_file_is_found(a_model):
    content = bytearray(a_model.read_bytes())
    content[len(content) // 2] ^= 1
    a_model.write_bytes(bytes(content))
    (found,) = faults(a_model)
    assert found.startswith("It cannot be opened")


# What installs it


def test_a_model_is_installed_under_its_name(a_model, tmp_path):
    copy = train_models.install(a_model, tmp_path, [])
    assert copy == tmp_path / "left-atrium.caml" and copy.read_bytes() == a_model.read_bytes()


def test_a_model_that_is_too_large_or_lacks_something_is_not_installed(a_model, tmp_path):
    with pytest.raises(CamlError, match="says nothing of: limits"):
        train_models.install(a_model, tmp_path, ["The card says nothing of: limits."])
    with a_model.open("ab") as stream:
        stream.truncate(MOST_BYTES + 1)
    assert any("at most 12" in fault for fault in faults(a_model))
    with pytest.raises(CamlError, match="at most 12"):
        train_models.install(a_model, tmp_path, [])
    assert not (tmp_path / a_model.name).exists()


@pytest.mark.slow
def test_a_trial_goes_from_phantoms_to_a_full_card_and_is_not_installed(tmp_path):
    words = ["contrast-vessels", "--trial", "--output", str(tmp_path), "--base-filters", "2", "--threads", "1"]
    assert train_models.main(words) == 0
    folder = tmp_path / "contrast-vessels-trial"
    assert faults(folder / "contrast-vessels.caml") == []
    card = read_card(folder / "contrast-vessels.caml")
    assert (card.info.labeled_cases, card.info.unlabeled_cases) == (4, 0)
    assert card.info.metrics["held_out"]["count"] == 2 and "trial" in card.info.name
    roles = {name: case["role"] for name, case in card.info.provenance["cases"].items()}
    names = [case.id for case in load_cohort(folder / "final.json").cases]
    assert sorted(roles) == sorted(map(digest_of, names)), "no case is named"
    assert all((roles[digest_of(name)] == "validation") == name.startswith("seed202") for name in names)
    assert (folder / "final.log").is_file() and (folder / "final" / "plan.json").is_file()
    with pytest.raises(SystemExit):
        train_models.main([*words, "--install"])


# A training that is a twin already


@pytest.fixture
def benchmarked(runs, tmp_path) -> Path:
    """The twin's folder as a benchmark leaves it."""
    folder = runs["twin"].parent / tmp_path.name  # beside the scans, which its list names from there
    shutil.copytree(runs["twin"], folder)
    (folder / "asked.json").write_text(json.dumps({"cohort": "", "options": [], "changes": {}}))
    (folder / "measured.json").write_text(json.dumps({"training_seconds": 1.0}))
    return folder


def test_a_training_of_the_same_cases_is_a_twin(benchmarked):
    done = train_models.finished_twin(benchmarked, benchmarked / "cohort.json")
    assert done.plan["iterations"] == tiny_plan().iterations and done.scores and len(done.scores["cases"]) == 1


def test_what_trained_on_others_or_otherwise_is_no_twin(benchmarked, runs, tmp_path):
    own = benchmarked / "cohort.json"
    with pytest.raises(CamlError, match="other cases"):
        train_models.finished_twin(benchmarked, runs["final"] / "cohort.json")
    with pytest.raises(CamlError, match="other cases"):  # a model that needs no twin
        train_models.finished_twin(benchmarked, None)
    with pytest.raises(CamlError, match="trained from scratch, and is to be trained from a model"):
        train_models.finished_twin(benchmarked, own, from_model=True)
    (benchmarked / "asked.json").write_text(json.dumps({"changes": {"mixing": "none"}}))
    with pytest.raises(CamlError, match="CAML as it is"):
        train_models.finished_twin(benchmarked, own)
    (benchmarked / "validation.json").unlink()
    with pytest.raises(CamlError, match="no finished"):
        train_models.finished_twin(benchmarked, own)


# A model that starts from another


@pytest.fixture
def starting(runs, tmp_path, monkeypatch) -> Recipe:
    """A recipe that starts from the model of another recipe, which is there."""

    def cohorts(folder: Path, shared: Path | None, trial: bool) -> Cohorts:
        lists = [write_cohort(folder / name, labeled=3, validation=held) for name, held in (("all", 0), ("some", 1))]
        return Cohorts(lists[0], lists[1], "case 4, by a twin")

    before = dataclasses.replace(RECIPE, name="before", home=tmp_path, cohorts=cohorts, start=None, options=())
    recipe = dataclasses.replace(before, name="after", start="before")
    assert write_model(before, runs["final"], runs["twin"], "case 7, by a twin", before.file) == []
    monkeypatch.setitem(RECIPES, "before", before)
    monkeypatch.setitem(RECIPES, "after", recipe)
    return recipe


@pytest.mark.slow
def test_a_model_starts_from_another_and_its_twin_from_that_one_s_twin(starting, tmp_path):
    home, before = tmp_path / "out", RECIPES["before"].file
    words = ["after", "--iterations", "3", "--base-filters", "2", "--threads", "1", "--output", str(home)]
    assert train_models.main(words) == 0
    start, twin, final = (read_card(RunFolder(home / "after" / n).model) for n in ("start/twin", "twin", "final"))
    origins = [card.info.provenance["start_model"] for card in (start, twin, final)]
    assert origins == [None, start.info.name, RECIPE.title] and start.info.name != RECIPE.title
    # The start's twin is as long as the start model, has its grid, and knows the held-out case as little as the twin.
    assert start.info.provenance["iterations"] == read_card(before).info.provenance["iterations"]
    assert start.spec.geometry == twin.spec.geometry == final.spec.geometry == read_card(before).spec.geometry
    for card in (start, twin):
        assert [c["role"] for c in card.info.provenance["cases"].values()].count("validation") == 1
    assert faults(home / "after" / "after.caml") == []


def test_where_a_twin_starts_is_asked_only_of_a_model_that_starts_from_another(capsys):
    for words in (["la-08-labels"], ["left-atrium", "--trial"], ["left-atrium", "contrast-vessels"]):
        with pytest.raises(SystemExit):
            train_models.main([*words, "--start", "run"])
        assert "--start" in capsys.readouterr().err


@pytest.mark.parametrize("values, steps", [(400_000, 2**2), (100_000, 2**3), (99_999, 2**5), (19_999, 2**8)])
def test_the_larger_a_kernel_is_the_fewer_bits_it_keeps(values, steps):
    weights = torch.randn(values, 1, generator=torch.Generator().manual_seed(3))
    rounded = coarse({"kernel": weights, "bias": weights[:, 0]})
    assert torch.equal(rounded["bias"], weights[:, 0])
    assert torch.all((rounded["kernel"] - weights).abs() <= weights.abs() / steps)
    halves, _ = torch.frexp(rounded["kernel"])
    # Nothing is kept below the last of the bits, and all of the values that they allow are there.
    assert halves.abs().unique().tolist() == [place / steps for place in range(steps // 2, steps)]
