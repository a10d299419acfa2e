"""The host, the modules and their .ui files use only what a running Slicer has (slicer-api.json)."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import ctk
import pytest
import qt
import slicer
from PySide6 import QtCore
from SlicerHost import application, calling, facts, proxy, qt_module

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = [p for p in (REPOSITORY / "CAMLSegmentation", REPOSITORY / "CAMLTraining") if p.is_dir()]
SOURCES = sorted(p for m in MODULES for p in (*m.glob("*.py"), *m.glob("*Lib/**/*.py")))
UI_FILES = sorted(p for m in MODULES for p in m.glob("Resources/UI/*.ui"))
#: What Slicer's Python adds to its own classes (Base/Python/slicerqt.py, parent of a scripted module).
ADDED_BY_SLICER = {("QTimer", "singleShot")}


def _relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _chain(node: ast.AST) -> list[str]:
    """``a.b.c`` -> ["a", "b", "c"]; anything else below -> [""] first."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def _chains(path: Path) -> Iterator[tuple[list[str], str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield _chain(node), f"{_relative(path)}:{node.lineno}"


def _connections(path: Path) -> Iterator[tuple[list[str], str, str]]:
    """(sender, signal, where) of all ``sender.connect("signal(...)", ...)`` and ``disconnect``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("connect", "disconnect")
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            yield _chain(node.func.value), node.args[0].value, f"{_relative(path)}:{node.lineno}"


def _widgets() -> dict[str, str]:
    """Object name -> class, of all .ui files."""
    found = {}
    for path in UI_FILES:
        for widget in ElementTree.parse(path).getroot().iter("widget"):
            found[widget.get("name")] = widget.get("class")
    return found


def _has(class_name: str, member: str) -> bool:
    known = facts.members(class_name)
    named = facts.NAMED_ONLY.get(class_name, {}).get("methods", ())
    return (
        known.has(member)
        or member in named
        or member in facts.enumerators(class_name)
        or (member == "exec_" and known.has("exec"))
        or (member == "name" and known.has("objectName"))
        or (class_name, member) in ADDED_BY_SLICER
    )


def _offered() -> list[tuple[str, type]]:
    return [
        (module.__name__ if module is not slicer else "slicer", value)
        for module in (qt, ctk, slicer)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, proxy.Proxy)
    ]


def test_there_is_something_to_check():
    assert SOURCES and UI_FILES and len(_offered()) > 30


@pytest.mark.parametrize(("module", "offered"), _offered(), ids=lambda v: getattr(v, "__name__", v))
def test_every_class_of_the_host_exists_in_slicer(module, offered):
    name = offered.__name__
    assert facts.is_named(name, module)
    assert name in facts.described() or name in facts.NAMED_ONLY, f"{name}: its members are known from nowhere"


@pytest.mark.parametrize(("module", "offered"), _offered(), ids=lambda v: getattr(v, "__name__", v))
def test_every_class_attribute_of_the_host_exists_in_slicer(module, offered):
    for attribute, value in vars(offered).items():
        if attribute.startswith("_"):
            continue
        if isinstance(value, type):  # an enum, under its own name, too
            values = {k: v for k, v in vars(value).items() if isinstance(v, proxy.EnumValue)}
            assert values and values.items() <= facts.enumerators(offered.__name__).items()
        elif isinstance(value, proxy.EnumValue):
            assert value == facts.enumerators(offered.__name__)[attribute]
        else:
            assert _has(offered.__name__, attribute), f"{offered.__name__}.{attribute}"


def test_every_enumerator_of_the_host_has_the_value_that_slicer_has():
    expected = facts.facts()["enums"]["Qt"]
    mine = {k: v for k, v in vars(qt.Qt).items() if isinstance(v, proxy.EnumValue)}
    assert mine == {k: expected[k] for k in mine}
    assert mine


@pytest.mark.parametrize("class_name", sorted(qt_module.UiLoader.custom))
def test_every_signal_and_property_of_a_stand_in_exists_in_slicer(class_name):
    known = facts.members(class_name)
    for name, value in vars(qt_module.UiLoader.custom[class_name]).items():
        if name.startswith("_"):
            continue
        if isinstance(value, QtCore.Signal):
            assert name in known.signal_names, f"{class_name} has no signal {name}"
        elif isinstance(value, QtCore.Property):
            assert name in known.properties, f"{class_name} has no property {name}"


@pytest.mark.parametrize(
    ("offered", "class_name"),
    [
        (application.Application, "qSlicerApplication"),
        (application.LayoutManager, "qSlicerLayoutManager"),
        (application.SliceWidget, "qMRMLSliceWidget"),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_every_member_of_the_application_exists_in_slicer(offered, class_name):
    live = {"Application": slicer.app, "LayoutManager": slicer.app.layoutManager()}.get(offered.__name__)
    names = {n for n in (*vars(offered), *(vars(live) if live is not None else ())) if not n.startswith("_")}
    assert names
    assert [n for n in sorted(names) if not facts.members(class_name).has(n)] == []


def test_io_manager_offers_only_what_slicer_has():
    manager = slicer.app.coreIOManager()
    names = [n for n, _ in inspect.getmembers(manager) if not n.startswith("_")]
    assert names
    assert [n for n in names if not facts.members("ioManager").has(n)] == []


@pytest.mark.parametrize("kit", ["vtkTeem", "vtkITK", "vtkRemoteIO"])
def test_slicer_holds_no_class_of_a_kit_that_it_does_not_import(kit):
    """Its package imports those of MRML, its logic, vtkAddon, segmentations and modules; slicer-core imports all."""
    classes = {name for name in vars(sys.modules[f"slicer_core.{kit}"]) if name.startswith("vtk")}
    assert classes and not (classes | {kit}) & set(vars(slicer))


def test_the_kit_that_reads_nrrd_is_a_module():
    import vtkTeem

    assert {"vtkTeemNRRDReader", "vtkTeemNRRDWriter"} <= set(vars(vtkTeem))


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_module_uses_nothing_of_slicer_that_is_not_there(path):
    names = {chain[1]: where for chain, where in _chains(path) if chain[0] == "slicer"}
    assert [f"{where} slicer.{name}" for name, where in names.items() if not hasattr(slicer, name)] == []


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_module_uses_only_classes_and_members_that_exist(path):
    wrong = []
    for chain, where in _chains(path):
        if chain[0] in ("qt", "ctk") or (chain[0] == "slicer" and chain[1].startswith(("qMRML", "qSlicer"))):
            module, name, *rest = chain
            if not facts.is_named(name, module):
                wrong.append(f"{where} {module}.{name}")
            elif name == "Qt":
                wrong += [f"{where} qt.Qt.{m}" for m in rest[:1] if not hasattr(qt.Qt, m)]
            else:
                wrong += [f"{where} {name}.{m}" for m in rest[:1] if not _has(name, m)]
        elif chain[:2] == ["slicer", "app"] and len(chain) > 2:
            if not facts.members("qSlicerApplication").has(chain[2]):
                wrong.append(f"{where} slicer.app.{chain[2]}")
        elif chain[:2] == ["slicer", "util"] and len(chain) > 2 and not hasattr(slicer.util, chain[2]):
            wrong.append(f"{where} slicer.util.{chain[2]}")
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_module_uses_only_members_that_its_widgets_have(path):
    widgets, wrong = _widgets(), []
    for chain, where in _chains(path):
        holder = next((i for i, part in enumerate(chain[:-2]) if part in ("ui", "_ui")), None)
        if holder is None:
            continue
        widget, member = chain[holder + 1 : holder + 3]
        if widget not in widgets:
            wrong.append(f"{where} no widget is called {widget}")
        elif not _has(widgets[widget], member):
            wrong.append(f"{where} {widget} is a {widgets[widget]}, which has no {member}")
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_module_connects_only_signals_that_exist(path):
    widgets, wrong = _widgets(), []
    everything = {s for name in facts.described() for s in facts.members(name).signals}
    for sender, signal, where in _connections(path):
        wanted = facts.normalised(signal)
        bases = frozenset()
        if len(sender) > 1 and sender[-2] in ("ui", "_ui"):
            known = facts.members(widgets.get(sender[-1], "")).signals
            bases = facts.members(widgets.get(sender[-1], "")).bases
        elif sender[-2:] == ["slicer", "app"]:
            known = facts.members("qSlicerApplication").signals
        else:
            known = everything
        if wanted not in known:
            wrong.append(f"{where} {'.'.join(sender)} has no signal {signal}")
        if any((base, wanted) in calling.GONE_IN_QT6 for base in bases):
            wrong.append(f"{where} Qt 6 has no signal {signal}")
    assert wrong == []


def _scene_events(path: Path) -> dict[str, str]:
    """Names of the scene's events that a file uses -> where."""
    found = {chain[-1]: where for chain, where in _chains(path) if chain[-2].lower().endswith("scene")}
    return {name: where for name, where in found.items() if name.endswith("Event")}


def _fired(scene, folder: Path) -> set[int]:
    """What a scene tells while nodes come and go, and while it is saved, closed and loaded."""
    known = {name: getattr(scene, name) for name in dir(scene) if name.endswith("Event")}
    fired: set[int] = set()
    numbers = {value for value in known.values() if isinstance(value, int)}
    tags = [scene.AddObserver(number, lambda *_, number=number: fired.add(number)) for number in numbers]
    scene.RemoveNode(scene.AddNewNodeByClass("vtkMRMLTextNode"))
    for kind in ("mrml", "mrb"):
        scene.AddNewNodeByClass("vtkMRMLTextNode")
        assert slicer.util.saveScene(str(folder / f"scene.{kind}"))
        scene.Clear()
        slicer.util.loadScene(str(folder / f"scene.{kind}"))
    for tag in tags:
        scene.RemoveObserver(tag)
    return fired


def test_modules_wait_for_no_event_that_the_scene_never_tells(a_scene, tmp_path):
    """Its class names some that nothing fires, StartSaveEvent among them."""
    used = {name: where for path in SOURCES for name, where in _scene_events(path).items()}
    assert "EndImportEvent" in used
    fired = _fired(a_scene, tmp_path)
    assert a_scene.StartSaveEvent not in fired
    assert [f"{where} {name}" for name, where in used.items() if getattr(a_scene, name) not in fired] == []


@pytest.mark.parametrize("path", UI_FILES, ids=_relative)
def test_ui_file_uses_only_classes_and_properties_that_exist(path):
    root, wrong = ElementTree.parse(path).getroot(), []
    for widget in root.iter("widget"):
        name, class_name = widget.get("name"), widget.get("class")
        if class_name not in facts.described():
            wrong.append(f"{name} is a {class_name}")
            continue
        known = facts.members(class_name).properties
        for entry in widget.findall("property"):
            if entry.get("stdset") != "0" and not known.get(entry.get("name"), ("", False))[1]:
                wrong.append(f"{name} is a {class_name}, which has no writable {entry.get('name')}")
    assert wrong == []


@pytest.mark.parametrize("path", UI_FILES, ids=_relative)
def test_every_name_in_a_ui_file_is_given_once(path):
    root = ElementTree.parse(path).getroot()
    names = [e.get("name") for tag in ("widget", "layout", "action", "spacer") for e in root.iter(tag)]
    assert sorted(n for n in set(names) if names.count(n) > 1) == []


@pytest.mark.parametrize("path", UI_FILES, ids=_relative)
def test_every_connection_in_a_ui_file_joins_a_signal_and_a_slot(path):
    root, wrong = ElementTree.parse(path).getroot(), []
    classes = {w.get("name"): w.get("class") for w in root.iter("widget")}
    for entry in root.iter("connection"):
        sender, signal, receiver, slot = (entry.findtext(t) for t in ("sender", "signal", "receiver", "slot"))
        if facts.normalised(signal) not in facts.members(classes[sender]).signals:
            wrong.append(f"{sender} has no signal {signal}")
        if not facts.members(classes[receiver]).has(slot.partition("(")[0]):
            wrong.append(f"{receiver} has no slot {slot}")
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_module_sources_are_ascii(path):
    assert path.read_bytes().isascii()
