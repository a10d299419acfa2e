"""The house rules that a machine can check: who imports whom, what stays light, and what no file may hold."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULE = REPOSITORY / "CAMLSegmentation"
PACKAGE = MODULE / "caml_core"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TRAINING = REPOSITORY / "CAMLTraining"
LIBRARIES = {"CAMLSegmentationLib": MODULE, "CAMLTrainingLib": TRAINING}
LIBRARY = sorted(path for name, home in LIBRARIES.items() for path in (home / name).rglob("*.py"))
SLICER_SIDE = [MODULE / "CAMLSegmentation.py", TRAINING / "CAMLTraining.py", *LIBRARY]
LONGEST_FILE = 450

#: May be imported before any package is installed: at file scope they import the standard library and each other.
LIGHT = (
    *("__init__", "__main__", "config", "errors", "events", "serialization", "presets", "model_archive", "data.case"),
    *("data.files", "data.cohort", "cache_location", "model_file", "model_library", "model_fit", "anatomy", "project"),
    *("project.cases", "project.headers", "project.history", "project.labels", "project.outdated", "project.project"),
    *("locking", "training.request", "training.run_folder", "rounds.listing", "rounds.request", "rounds.round_folder"),
    *("data.cohort_folder", "data.case_table", "data.cells", "data.listing", "channel_titles", "case_names"),
)
HEAVY = ("torch", "numpy", "scipy", "SimpleITK", "matplotlib", "safetensors", "tqdm", "monai")
SLICER = ("slicer", "qt", "ctk", "vtk", "PythonQt", "SampleData", "PyTorchUtils")
#: What the Slicer side may import at file scope besides the standard library and light parts of the engine.
IN_EVERY_SLICER = {"slicer", "qt", "ctk", "vtk"}
RUNTIME = ("torch", "numpy", "SimpleITK", "scipy", "safetensors", "tqdm", "matplotlib")

#: What each part may know of the engine; a part may always know itself and what every part may know.
COMMON = {"__init__", "case_names", "channel_titles", "config", "errors", "events", "serialization"}
LAYERS = {
    "model": set(),
    "losses": set(),
    "memory_bank": {"losses"},
    "data": {"device", "seeding"},
    "metrics": set(),
    "cache_location": set(),
    "locking": {"data"},
    "model_fit": {"model_file"},
    "model_library": {"model_file", "cache_location", "data"},
    "project": {"data"},
    "inference": {"model", "data", "device", "metrics", "model_file", "model_fit", "cache_location"},
    "training": {
        *("model", "losses", "memory_bank", "data", "inference", "metrics", "device", "model_file", "presets"),
        *("seeding", "cache_location", "locking"),
    },
    "rounds": {"training", "inference", "data", "model", "model_file", "model_library", "device", "locking", "report"},
}


def module_name(path: Path) -> str:
    """``data.case`` of .../caml_core/data/case.py, relative to the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path, *, file_scope: bool) -> frozenset[str]:
    """Absolute names of all that a file imports; those within functions only where ``file_scope`` is False."""
    return frozenset(_imports(path, _at_file_scope(tree_of(path)) if file_scope else ast.walk(tree_of(path))))


def _imports(path: Path, nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            # "from .. import events" names modules, "from ..events import encode" a member of one.
            package = base in ("caml_core", *LIBRARIES)
            yield from (f"{base}.{alias.name}" if package else base for alias in node.names)


def _at_file_scope(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_file_scope(child)


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = path.relative_to(TRAINING if path.is_relative_to(TRAINING) else MODULE).parts[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join((*base, *filter(None, [node.module])))


def part(name: str) -> str:
    """The layer that a module of the package belongs to: ``data`` of ``caml_core.data.case``."""
    return (name.removeprefix("caml_core").strip(".").split(".") or [""])[0] or "__init__"


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, check=False, timeout=60
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [p for name in listed.stdout.decode().split("\0") if name and (p := REPOSITORY / name).is_file()]


def text_of(path: Path) -> str | None:
    content = path.read_bytes()
    return None if b"\0" in content[:8000] else content.decode("utf-8", errors="replace")


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=module_name)


# Imports


def test_there_is_something_to_check():
    assert len(SOURCES) > 10
    assert "caml_core.config" in imports(PACKAGE / "presets.py", file_scope=True)
    assert "caml_core.errors" in imports(PACKAGE / "cli" / "__init__.py", file_scope=True)
    assert "torch" not in imports(PACKAGE / "device.py", file_scope=True)
    assert "torch" in imports(PACKAGE / "device.py", file_scope=False)


@each(SOURCES)
def test_the_engine_knows_nothing_of_slicer(path):
    roots = {name.split(".")[0] for name in imports(path, file_scope=False)}
    assert not roots & set(SLICER)


@each(SOURCES)
def test_only_declared_packages_are_imported(path):
    roots = {name.split(".")[0] for name in imports(path, file_scope=False)}
    assert roots <= {*sys.stdlib_module_names, *RUNTIME, "caml_core"}


@each([p for p in SOURCES if module_name(p) in LIGHT or module_name(p).split(".")[0] == "cli"])
def test_light_modules_import_the_standard_library_alone(path):
    for name in imports(path, file_scope=True):
        root = name.split(".")[0]
        if root == "caml_core":
            target = name.removeprefix("caml_core").strip(".") or "__init__"
            light = target.split(".")[0] == "cli" or any(t in LIGHT for t in (target, target.rpartition(".")[0]))
            assert light or target == "__version__", f"{module_name(path)} imports {name} at file scope"
        else:
            assert root in sys.stdlib_module_names, f"{module_name(path)} imports {name} at file scope"


@each([p for p in SOURCES if part(module_name(p)) in LAYERS])
def test_layers_point_downwards(path):
    own = part(module_name(path))
    known = {part(name) for name in imports(path, file_scope=False) if name.split(".")[0] == "caml_core"}
    assert known <= {own, *COMMON, *LAYERS[own], "__version__"}, f"{own} reaches {sorted(known)}"


@each([p for p in SOURCES if part(module_name(p)) != "cli"])
def test_nothing_knows_the_command_line(path):
    if module_name(path) == "__main__":
        return
    assert not any(name.startswith("caml_core.cli") for name in imports(path, file_scope=False))


@each([p for p in SOURCES if part(module_name(p)) in ("model", "losses")])
def test_networks_and_losses_know_no_files(path):
    roots = {name.split(".")[0] for name in imports(path, file_scope=False)}
    assert not roots & {"pathlib", "os", "io", "json", "shutil", "tempfile", "SimpleITK", "argparse"}
    assert not re.search(r"(?<![\w.])open\(", path.read_text(encoding="utf-8"))


def test_pickle_is_never_loaded():
    """Only names of pickle's errors are of use here; torch.load is called with weights_only."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call = ast.unparse(node.func)
            assert call not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), path
            if call == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
            if call in ("np.load", "numpy.load"):
                assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords), path


def test_help_is_immediate(caml_environment):
    code = (
        "import sys\nfrom caml_core.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code in (0, None)\n"
        f"loaded = set({HEAVY!r}) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=caml_environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "import-checkpoint" in done.stdout


@pytest.mark.parametrize(
    "command",
    ["plan", "preflight", "train", "round", "predict", "evaluate", "info", "devices", "import-checkpoint", "phantom"],
)
def test_every_command_explains_itself(caml, command):
    code, out, err = caml(command, "--help")
    assert code == 0 and not err
    assert out.isascii() and len(out.splitlines()) > 3


# The Slicer side


def each_file(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda path: f"{path.parent.name}-{path.stem}")


@functools.cache
def reached_at_file_scope(name: str) -> frozenset[str]:
    """Roots of all that importing a module of the engine imports, over as many steps as there are; not itself."""
    reached: set[str] = set()
    waiting, seen = [name], set()
    while waiting:
        parts = waiting.pop().split(".")
        if parts[0] != "caml_core":
            reached.add(parts[0])
            continue
        # Importing a.b.c runs a and a.b first. What names no file is a member of its module.
        for length in range(1, len(parts) + 1):
            home = MODULE.joinpath(*parts[:length])
            file = next((f for f in (home.with_suffix(".py"), home / "__init__.py") if f.is_file()), None)
            if file is not None and file not in seen:
                seen.add(file)
                waiting.extend(imports(file, file_scope=True))
    return frozenset(reached)


def calls(path: Path) -> set[str]:
    """``slicer.util.errorDisplay`` of all attributes that a file names, as written."""
    return {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}


def test_there_is_a_slicer_side_to_check():
    assert {"Widget", "Logic", "VolumeExchange"} <= {path.stem for path in LIBRARY}
    assert "torch" in reached_at_file_scope("caml_core.model.build")
    assert "numpy" in reached_at_file_scope("caml_core.data.geometry")
    assert "CAMLSegmentationLib.VolumeExchange" in imports(MODULE / "CAMLSegmentationLib" / "Logic.py", file_scope=True)


@each_file(SLICER_SIDE)
def test_the_panel_opens_before_any_package_is_installed(path):
    for name in imports(path, file_scope=True):
        root = name.split(".")[0]
        if root == "caml_core":
            heavy = reached_at_file_scope(name) - set(sys.stdlib_module_names)
            assert not heavy, f"{path.name} imports {name} at file scope, which imports {sorted(heavy)}"
        else:
            allowed = root in sys.stdlib_module_names or root in IN_EVERY_SLICER or root in LIBRARIES
            assert allowed, f"{path.name} imports {name} at file scope"


@each_file(SLICER_SIDE)
def test_the_slicer_side_does_no_deep_learning(path):
    """PyTorch runs in the worker process alone; numpy, which comes with Slicer, is all that is computed with here."""
    roots = {name.split(".")[0] for name in imports(path, file_scope=False)}
    assert not roots & (set(HEAVY) - {"numpy"})


@each_file([p for p in LIBRARY if p.parent.name == "CAMLSegmentationLib"])
def test_segmentation_knows_nothing_of_training(path):
    assert not any(name.startswith("CAMLTraining") for name in imports(path, file_scope=False))


@each_file([p for p in LIBRARY if p.stem != "VolumeExchange"])
def test_volume_exchange_alone_turns_nodes_into_arrays_and_files(path):
    modules = imports(path, file_scope=False)
    assert not {name.split(".")[0] for name in modules} & {"vtkTeem", "vtkITK", "vtkAddon", "sitkUtils", "SimpleITK"}
    assert not any(name.startswith("vtk.util") or name.startswith("vtkmodules") for name in modules)
    forbidden = re.compile(
        r"slicer\.util\.(array\w*|update\w*FromArray|addVolumeFromArray|saveNode|exportNode)"
        r"|\w*\.?(vtk_to_numpy|numpy_to_vtk|vtkMRML(Volume|Segmentation)\w*StorageNode)"
    )
    assert [name for name in calls(path) if forbidden.fullmatch(name)] == []


def _may_ask(path: Path) -> bool:
    return path.stem == "Widget" or path.stem.endswith("Section")


@each_file([p for p in SLICER_SIDE if not _may_ask(p)])
def test_only_the_panel_opens_dialogs(path):
    dialog = re.compile(r"slicer\.util\.(\w+Display|tryWithErrorDisplay)|qt\.Q\w*(MessageBox|Dialog)(\.\w+)*")
    assert [name for name in calls(path) if dialog.fullmatch(name)] == []


@each_file([p for p in LIBRARY if not _may_ask(p)])
def test_logic_knows_no_widgets(path):
    known = {name.rpartition(".")[2] for name in imports(path, file_scope=False) if name.startswith(tuple(LIBRARIES))}
    assert not [name for name in known if name == "Widget" or name.endswith("Section")]


@each_file(SLICER_SIDE)
def test_texts_can_be_translated(path):
    """A translator's tool reads literals: no f-string and no computed text within _(), format() outside of it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "translate"):
            texts = node.args[-1:]
            assert texts and all(isinstance(t, ast.Constant) and isinstance(t.value, str) for t in texts), (
                f"{path.name}:{node.lineno}: {ast.unparse(node)}"
            )


#: Where a text appears before the user's eyes; as an assignment or as a call's first argument.
SHOWN = {"text", "toolTip", "windowTitle", "title", "placeholderText"}
SAYS = {"setText", "setToolTip", "setWindowTitle", "setPlaceholderText", "addButton", "errorDisplay", "warningDisplay"}


@each_file(SLICER_SIDE)
def test_shown_texts_are_marked_for_translation(path):
    for node in ast.walk(tree_of(path)):
        shown = None
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Attribute) and t.attr in SHOWN for t in node.targets):
            shown = node.value
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SAYS and node.args
        ):
            shown = node.args[0]
        bare = shown is not None and isinstance(shown, (ast.Constant, ast.JoinedStr)) and _has_words(shown)
        assert not bare, f"{path.name}:{node.lineno}: {ast.unparse(node)}"


def _has_words(node: ast.AST) -> bool:
    texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return any(re.search(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>", "", text)) for text in texts)


@each_file(LIBRARY)
def test_names_on_the_slicer_side_are_in_camel_case(path):
    """snake_case inside the engine, camelCase here: typography shows the border."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = not (node.name.startswith("__") and node.name.endswith("__"))
            assert not own or "_" not in node.name.strip("_"), f"{path.name}:{node.lineno}: {node.name}"


# What files may hold


@pytest.mark.parametrize("path", [*SOURCES, *SLICER_SIDE], ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_files_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines; split the file"


TEXTS = {".py", ".toml", ".txt", ".cmake", ".ui", ".json", ".s4ext", ".yml", ".md", ".csv", ""}


def test_texts_have_unix_line_ends():
    assert [p.name for p in tracked_files() if p.suffix in TEXTS and b"\r" in p.read_bytes()] == []


def test_sources_are_ascii():
    assert [p.name for p in tracked_files() if p.suffix in TEXTS - {".md"} and not p.read_bytes().isascii()] == []


#: Spelled in pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": r"/" + r"(?:work|root|home/\w+|opt)/\w",
    "a package registry's host": r"(?:py" + r"pi\.org|pythonhosted\.|download\.py" + r"torch\.|regis" + r"try\.npm)",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY",
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_file_holds(kind):
    pattern = re.compile(FORBIDDEN[kind])
    for path in tracked_files():
        found = pattern.search(text_of(path) or "")
        assert found is None, f"{path.relative_to(REPOSITORY)} holds {kind}: {found.group(0)!r}"


def test_no_file_is_large():
    for path in tracked_files():
        assert path.stat().st_size < 25e6, f"{path} has {path.stat().st_size / 1e6:.0f} MB"


def test_the_packaging_names_every_package():
    """setuptools finds packages by their __init__.py; a folder without one would be left out of the wheel."""
    for folder in {path.parent for path in [*SOURCES, *LIBRARY]}:
        assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_requirements_agree_with_the_pins():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    required = set(re.findall(r'"([A-Za-z]+)', block.group(1)))
    pinned = set(re.findall(r"^([A-Za-z]+)==", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    assert required == set(RUNTIME) and required <= pinned
