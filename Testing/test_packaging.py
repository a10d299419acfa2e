"""The extension's own files: complete, and of one mind about what the extension is."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

REPOSITORY = Path(__file__).resolve().parents[1]
NAME = "CAMLSegmentation"
MODULE = REPOSITORY / NAME
MODULES = (NAME, "CAMLTraining")
ROOT_CMAKE = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
MODULE_CMAKE = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
CMAKES = {name: (REPOSITORY / name / "CMakeLists.txt").read_text(encoding="utf-8") for name in MODULES}

#: Properties of version 1.0.2 of the index's schema, which refuses any other.
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
)
PROPERTIES = {
    "$schema": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "category": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "scm_revision": str,
    "scm_type": str,
    "scm_url": str,
    "tier": int,
}
#: What the build writes into a .s4ext file, in its order.
KEYS = (
    *("scm", "scmurl", "scmrevision", "depends", "recommends", "build_subdirectory", "homepage", "contributors"),
    *("category", "iconurl", "status", "tier", "description", "screenshoturls", "enabled", "dicom_support_rule"),
    "keywords",
)
#: Come with Slicer, or with its PyTorch extension.
WITH_SLICER = {"numpy", "scipy", "SimpleITK"}
WITH_PYTORCH = {"torch"}
#: Only for pieces of the command line that the panel does not use; imported within functions.
COMMAND_LINE = {"tqdm"}


def variable(text: str, name: str) -> list[str]:
    """The values of ``set(name ...)``, quotes taken off."""
    found = re.search(rf"^set\({name}\s(.*?)\)\s*$", text, re.DOTALL | re.MULTILINE)
    assert found, f"no set({name} ...)"
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', found.group(1))]


def metadata(name: str) -> str:
    """``set(EXTENSION_name "...")``, quoted, as the checks of the index look for it."""
    (value,) = re.findall(rf'^set\(EXTENSION_{name} "([^"]+)"\)$', ROOT_CMAKE, re.MULTILINE)
    return value


@pytest.fixture(scope="module")
def entry() -> dict:
    return json.loads((REPOSITORY / f"{NAME}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def description() -> dict[str, str]:
    lines = (REPOSITORY / f"{NAME}.s4ext").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    assert tuple(key for key, _, _ in pairs) == KEYS
    return {key: value for key, _, value in pairs}


# One extension, said three times


def test_the_index_entry_fits_its_schema(entry):
    assert set(entry) <= set(PROPERTIES)
    assert {"$schema", "category", "scm_url", "build_dependencies", "scm_revision", "tier"} <= set(entry)
    assert all(isinstance(value, PROPERTIES[key]) for key, value in entry.items())
    assert entry["$schema"] == SCHEMA and 1 <= entry["tier"] <= 5
    # Rules of the index beyond the schema.
    assert entry["scm_url"].startswith("https://")
    assert entry["scm_url"].rsplit("/", 1)[1].startswith("Slicer") and not NAME.lower().startswith("slicer")


def test_names_agree():
    assert re.findall(r"^project\((\w+)\)$", ROOT_CMAKE, re.MULTILINE) == [NAME]
    assert re.findall(r"^add_subdirectory\((\w+)\)$", ROOT_CMAKE, re.MULTILINE) == list(MODULES)
    for name in MODULES:
        assert variable(CMAKES[name], "MODULE_NAME") == [name]
        assert (REPOSITORY / name / f"{name}.py").is_file()
        assert (REPOSITORY / name / "Resources" / "UI" / f"{name}.ui").is_file()


def test_descriptions_agree(entry, description):
    assert description["depends"].split() == entry["build_dependencies"] == metadata("DEPENDS").split() == ["PyTorch"]
    assert description["scmurl"] == entry["scm_url"] and description["scmrevision"] == entry["scm_revision"]
    assert description["scm"] == entry.get("scm_type", "git")
    assert description["build_subdirectory"] == entry.get("build_subdirectory", ".")
    assert description["tier"] == str(entry["tier"])
    assert description["category"] == entry["category"] == metadata("CATEGORY")
    assert description["enabled"] == str(int(entry.get("enabled", True)))
    for key in ("homepage", "contributors", "iconurl", "status", "description", "screenshoturls"):
        assert description[key] == metadata(key.upper()), key


def test_addresses_lie_in_the_repository(entry):
    raw = entry["scm_url"].replace("https://github.com/", "https://raw.githubusercontent.com/")
    here = f"{raw}/{entry['scm_revision']}/"
    assert metadata("HOMEPAGE") == entry["scm_url"]
    icon = metadata("ICONURL")
    assert icon.startswith(here) and png_size(REPOSITORY / icon.removeprefix(here)) == (128, 128)
    for address in metadata("SCREENSHOTURLS").split():
        assert address.startswith(f"{here}Resources/Screenshots/") and address.endswith(".png")


def test_the_description_can_be_read_by_everyone():
    text = metadata("DESCRIPTION")
    assert text.isascii() and "<" not in text and len(text) < 400
    assert "research" in text.lower() and "patent" in text.lower()


def test_the_licence_is_there_and_named():
    assert "Apache License" in (REPOSITORY / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache-2.0" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", path
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize("module", MODULES)
def test_icons_are_small_pictures(module):
    folder = REPOSITORY / module / "Resources" / "Icons"
    for path in sorted(folder.glob("*.png")):
        assert max(png_size(path)) <= 512 and path.stat().st_size < 100_000, path.name
    assert png_size(folder / f"{module}.png") == (128, 128)


# What is shipped


def present(home: Path, *roots: Path, suffix: str = "") -> list[str]:
    found = [path for root in roots for path in (root.rglob(f"*{suffix}") if root.is_dir() else [root])]
    kept = [p for p in found if p.is_file() and "__pycache__" not in p.parts and not p.name.endswith(".part")]
    return sorted(path.relative_to(home).as_posix() for path in kept)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("listed", ["MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"])
def test_every_file_is_shipped_once(module, listed):
    home = REPOSITORY / module
    if listed == "MODULE_PYTHON_SCRIPTS":
        engine = [home / "caml_core"] if module == NAME else []
        there = present(home, home / f"{module}.py", home / f"{module}Lib", *engine, suffix=".py")
    else:
        there = [name for name in present(home, home / "Resources") if not _is_somebodys_model(name)]
    names = variable(CMAKES[module], listed)
    missing, surplus = sorted(set(there) - set(names)), sorted(set(names) - set(there))
    assert not missing, f"{module}/CMakeLists.txt, {listed}: add\n  " + "\n  ".join(missing)
    assert not surplus, f"{module}/CMakeLists.txt, {listed}: there is no\n  " + "\n  ".join(surplus)
    assert names == sorted(set(names)), f"{listed} is not sorted, or names a file twice"


def _is_somebodys_model(name: str) -> bool:
    """Whether a model was laid into the folder to try it, without being part of the project."""
    command = ["git", "-C", str(MODULE), "ls-files", "--error-unmatch", name]
    return name.endswith(".caml") and subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_no_script_lies_outside_the_shipped_packages():
    for module in MODULES:
        home = REPOSITORY / module
        homes = {Path(name).parts[0] for name in present(home, home, suffix=".py")} - {"build"}
        assert homes - {"caml_core"} == {f"{module}.py", f"{module}Lib"}


def test_the_module_is_built_and_tested():
    for text in CMAKES.values():
        assert re.search(r"slicerMacroBuildScriptedModule\([^)]*WITH_GENERIC_TESTS", text)
    listed = re.findall(r"SCRIPT (\S+\.py)", (REPOSITORY / "Testing/Python/CMakeLists.txt").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in (REPOSITORY / "Testing/Python").glob("*.py"))


# What is installed


def requirements() -> set[str]:
    lines = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    # Slicer's reader knows comments on lines of their own only.
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+([<>=!~]=?[0-9][0-9.]*,?)*", line) for line in wanted), wanted
    return {re.match(r"[A-Za-z0-9_-]+", line).group(0) for line in wanted}


def imported_by_the_engine() -> set[str]:
    roots: set[str] = set()
    for path in (MODULE / "caml_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                roots.add((node.module or "").split(".")[0])
    return roots - set(sys.stdlib_module_names) - {"caml_core"}


def test_slicer_is_asked_for_what_it_lacks_and_no_more():
    assert (
        requirements()
        == imported_by_the_engine() - WITH_SLICER - WITH_PYTORCH - COMMAND_LINE
        == {
            "safetensors",
            "matplotlib",
        }
    )


def test_floors_agree_with_the_packaging():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for line in (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert f'"{line}"' in text


# Sample data


SAMPLES = sorted((MODULE / "Resources" / "SampleData").glob("*.nrrd"))


def test_there_are_two_kinds_of_samples():
    assert len(SAMPLES) == 2


@pytest.mark.parametrize("scan", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_small_described_and_pictured(scan):
    assert scan.stat().st_size < 1_500_000
    assert scan.name in (scan.parent / "README.md").read_text(encoding="utf-8")
    assert (MODULE / "Resources" / "Icons" / f"{scan.stem}.png").is_file()


@pytest.mark.parametrize("scan", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_registered_with_its_checksum(scan):
    source = (MODULE / f"{NAME}Lib" / "SampleDataSource.py").read_text(encoding="utf-8")
    registered = dict(re.findall(r'"(CAMLPhantom\w+)".*?"([0-9a-f]{64})"', source, re.DOTALL))
    assert registered[scan.stem] == hashlib.sha256(scan.read_bytes()).hexdigest()


@pytest.mark.parametrize("scan", SAMPLES, ids=lambda path: path.stem)
def test_the_command_of_the_readme_makes_the_sample_anew(scan, tmp_path, caml):
    readme = (scan.parent / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^\| {scan.name} .*`caml (.*) -o OUT (.*)` \|$", readme, re.MULTILINE)
    code, _, err = caml(*command[0].split(), "-o", str(tmp_path), *command[1].split(), "--progress", "none")
    assert code == 0, err
    (made,) = (tmp_path / "images").iterdir()
    kept, again = sitk.ReadImage(str(scan)), sitk.ReadImage(str(made))
    assert kept.GetPixelID() == again.GetPixelID()
    # The made scan is NIfTI, which keeps geometry in single precision.
    for part in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(kept, part)() == pytest.approx(getattr(again, part)(), abs=1e-4), part
    # Another machine's mathematics may round a rare value to its neighbour.
    difference = np.abs(sitk.GetArrayFromImage(kept).astype(int) - sitk.GetArrayFromImage(again))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
