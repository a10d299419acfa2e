"""The host behaves as PythonQt does inside Slicer, where PySide6 on its own would not."""

from __future__ import annotations

import gc
import sys

import ctk
import numpy as np
import pytest
import qt
import slicer
from SlicerHost import calling, proxy

pytestmark = pytest.mark.usefixtures("slicer_host")


@pytest.fixture
def a_button():
    return qt.QPushButton("hello")


@pytest.fixture
def heard():
    return []


@pytest.fixture
def faults():
    """What the host holds against a module; a test that causes some on purpose takes them away."""
    yield proxy.slot_errors
    proxy.slot_errors.clear()


def test_properties_are_attributes(a_button):
    assert a_button.text == "hello"
    a_button.text, a_button.enabled = "x", False
    assert (a_button.text, a_button.enabled, a_button.isEnabled()) == ("x", False, False)
    with pytest.raises(TypeError):
        a_button.text()


def test_unknown_attributes_are_neither_read_nor_written(a_button):
    with pytest.raises(AttributeError, match="QPushButton has no attribute named 'nosuch'"):
        _ = a_button.nosuch
    with pytest.raises(AttributeError):
        a_button.nosuch = 3
    assert not hasattr(a_button, "nosuch")
    assert getattr(a_button, "nosuch", 7) == 7


def test_what_only_pyside_has_is_not_there(a_button):
    assert not hasattr(qt.QProcess(), "pid")
    assert not hasattr(ctk.ctkCollapsibleButton(), "setCollapsed")
    assert not hasattr(a_button, "isActiveWindow_")
    for name in ("QVariant", "QtWidgets", "QStringListModelX"):
        assert not hasattr(qt, name)


def test_properties_that_cannot_be_written_are_not(a_button):
    with pytest.raises(AttributeError, match="read-only"):
        a_button.width = 3


def test_nothing_takes_keywords(a_button):
    with pytest.raises(ValueError, match="does not support kwargs"):
        qt.QLabel(text="t")
    with pytest.raises(ValueError, match="does not support kwargs"):
        a_button.setText(text="t")


def test_name_is_the_object_name(a_button):
    a_button.name = "one"
    assert a_button.objectName == a_button.name == "one"


def test_tool_tips_read_back_wrapped(a_button):
    assert a_button.toolTip == ""
    a_button.toolTip = "tip"
    assert a_button.toolTip == "<p>tip</p>"


def test_dynamic_properties_read_as_attributes(a_button):
    assert a_button.setProperty("dyn", 5) is False
    assert a_button.dyn == a_button.property("dyn") == 5


@pytest.mark.parametrize(("given", "shown"), [(5, "5"), (None, "None"), (b"x", "b'x'"), (1.5, "1.5")])
def test_anything_becomes_text(given, shown):
    label = qt.QLabel()
    label.setText(given)
    assert label.text == shown
    label.text = ""
    label.text = given
    assert label.text == shown


def test_numbers_are_cut_and_text_is_no_number():
    spin = qt.QSpinBox()
    for given, value in ((3.7, 3), (True, 1), (np.int64(7), 7)):
        spin.setValue(given)
        assert spin.value == value
    with pytest.raises(ValueError):
        spin.setValue("5")
    with pytest.raises(ValueError):
        qt.QProgressBar().setValue(None)


def test_check_boxes_take_pythons_truth():
    box = qt.QCheckBox("x")
    box.setChecked("yes")
    assert box.checked is True
    box.checked = 0
    assert box.checked is False


def test_wrong_arguments_are_value_errors(a_button):
    with pytest.raises(ValueError):
        a_button.setText("a", "b", "c")
    with pytest.raises(ValueError):
        qt.QPushButton(1, 2, 3, 4)


def test_enumerators_are_ints_and_their_sums_plain_ints():
    assert qt.Qt.Horizontal == 1 and isinstance(qt.Qt.Horizontal, int) and str(qt.QProcess.Running) == "2"
    assert qt.QProcess.ProcessState.Running == qt.QProcess.Running
    assert type(qt.Qt.AlignLeft | qt.Qt.AlignTop) is int
    assert not qt.Qt.Unchecked
    label = qt.QLabel("x")
    label.setAlignment(qt.Qt.AlignLeft | qt.Qt.AlignTop)
    assert label.alignment == 33 and type(label.alignment) is int


def test_sequences_come_back_as_tuples():
    holder = qt.QWidget()
    layout = qt.QVBoxLayout(holder)
    label = qt.QLabel("x")
    label.objectName = "label"
    layout.addWidget(label)
    assert holder.findChildren(qt.QLabel) == holder.findChildren("QLabel") == (label,)
    assert isinstance(qt.QDir("/").entryList(), tuple)


def test_the_same_object_is_found_again():
    holder = qt.QWidget()
    layout = qt.QVBoxLayout(holder)
    label = qt.QLabel("x")
    label.objectName = "label"
    layout.addWidget(label)
    assert holder.findChild(qt.QLabel, "label") is label
    assert holder.findChild(qt.QPushButton, "label") is None
    assert label.parent() is holder


def test_isinstance_is_flat_and_inherits_is_not():
    label = qt.QLabel("x")
    assert isinstance(label, qt.QLabel) and type(label) is qt.QLabel
    assert not isinstance(label, qt.QWidget)
    assert label.inherits("QWidget") and label.className() == "QLabel"


def test_signals_are_connected_by_their_signature(a_button, heard):
    assert a_button.connect("clicked(bool)", lambda *a: heard.append(("bool", a))) is True
    assert a_button.connect("clicked()", lambda *a: heard.append(("none", a))) is True
    assert a_button.clicked.connect(lambda *a: heard.append(("bare", a))) is True
    a_button.click()
    assert heard == [("bool", (False,)), ("none", ()), ("bare", (False,))]


def test_a_signal_that_does_not_exist_is_refused_and_held_against_the_module(a_button, capsys, faults):
    assert a_button.connect("clicked(int)", print) is False
    assert "signal 'clicked(int)' does not exist" in capsys.readouterr().err
    assert [type(f) for f in faults] == [proxy.UnknownSignal]


@pytest.mark.parametrize(("class_name", "signal"), sorted(calling.GONE_IN_QT6))
def test_signals_of_qt_5_alone_are_refused(class_name, signal, faults):
    assert getattr(qt, class_name)().connect(signal, print) is False
    assert faults


def test_arguments_are_cut_to_what_the_callable_takes(a_button, heard):
    class Listener:
        def none(self):
            heard.append("none")

        def one(self, checked):
            heard.append(checked)

    listener = Listener()
    a_button.connect("clicked(bool)", listener.none)
    a_button.connect("clicked(bool)", listener.one)
    a_button.connect("clicked(bool)", lambda checked=7: heard.append(checked))
    a_button.click()
    assert heard == ["none", False, False]


def test_a_path_line_tells_that_it_was_cleared_by_another_signal(heard):
    edit = ctk.ctkPathLineEdit()
    edit.connect("currentPathChanged(QString)", heard.append)
    edit.connect("validInputChanged(bool)", heard.append)
    for path in ("/a", "/b", "", ""):
        edit.currentPath = path
    assert heard == ["/a", True, "/b", False] and edit.currentPath == ""


def test_a_combo_box_makes_a_node_chooses_it_and_tells_and_does_no_more(a_scene, heard):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLMarkupsROINode"]
    combo.setMRMLScene(a_scene)
    combo.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    combo.connect("nodeAddedByUser(vtkMRMLNode*)", heard.append)
    nodes = [combo.addNode(), combo.addNode()]
    assert combo.currentNode() is nodes[1] and nodes[0].GetName() != nodes[1].GetName()
    assert [node for node in heard if node is not None] == [nodes[0], nodes[0], nodes[1], nodes[1]]
    assert all(node.GetScene() is a_scene and node.GetSize() == (0.0, 0.0, 0.0) for node in nodes)


def test_disconnecting_says_whether_there_was_something(a_button, heard):
    class Listener:
        def on(self):
            heard.append(1)

    listener = Listener()
    a_button.connect("clicked()", listener.on)
    assert a_button.disconnect("clicked()", listener.on) is True
    assert a_button.disconnect("clicked()", listener.on) is False
    a_button.connect("clicked()", listener.on)
    a_button.clicked.disconnect()
    a_button.click()
    assert heard == []


def test_an_exception_in_a_slot_is_printed_and_kept_and_does_not_leave(a_button, capsys, faults):
    def bad():
        raise RuntimeError("in slot")

    a_button.clicked.connect(bad)
    a_button.click()
    assert "in slot" in capsys.readouterr().err
    assert [str(f) for f in faults] == ["in slot"]


def test_qt_objects_can_be_joined_directly():
    one, other = qt.QLineEdit(), qt.QLineEdit()
    assert one.connect("textChanged(QString)", other, "setText(QString)")
    one.setText("zz")
    assert other.text == "zz"


def test_a_process_tells_its_end_with_two_arguments_or_one(heard, wait_for):
    process = qt.QProcess()
    process.connect("finished(int,QProcess::ExitStatus)", lambda *a: heard.append(a))
    process.finished.connect(lambda *a: heard.append(a))
    process.start(sys.executable, ["-c", "print('hi'); raise SystemExit(3)"])
    wait_for(lambda: len(heard) == 2, 30)
    assert sorted(map(len, heard)) == [1, 2] and heard[0][0] == 3
    assert process.exitStatus() == qt.QProcess.NormalExit
    output = process.readAllStandardOutput()
    assert output.data().strip() == b"hi"
    with pytest.raises(TypeError):
        len(output)


def test_a_process_dies_with_its_last_reference(heard, wait_for):
    def start():
        process = qt.QProcess()
        process.connect("started()", lambda: heard.append("started"))
        process.start(sys.executable, ["-c", "import time; time.sleep(60)"])
        assert process.waitForStarted(10000)
        return process.processId()

    import os

    number = start()
    gc.collect()
    with pytest.raises(OSError):
        os.kill(number, 0)


def test_a_timer_without_a_reference_never_fires(heard, wait_for):
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: heard.append("kept"))
    qt.QTimer().connect("timeout()", lambda: heard.append("lost"))
    timer.start(1)
    wait_for(lambda: heard, 10)
    assert set(heard) == {"kept"}
    timer.stop()


def test_the_static_single_shot_hides_the_property(heard, wait_for):
    timer = qt.QTimer()
    assert callable(timer.singleShot)
    timer.setSingleShot(True)
    assert timer.isSingleShot()
    qt.QTimer.singleShot(1, lambda: heard.append(1))
    wait_for(lambda: heard, 10)


def test_a_button_does_not_keep_its_menu(a_button):
    a_button.setMenu(qt.QMenu())
    gc.collect()
    assert a_button.menu() is None
    menu = qt.QMenu()
    a_button.setMenu(menu)
    assert a_button.menu() is menu


def test_a_destroyed_object_is_false_and_says_so():
    holder = qt.QWidget()
    label = qt.QLabel("x", holder)
    holder.delete()
    assert not label and label is not None
    with pytest.raises(ValueError, match="destroyed QLabel"):
        _ = label.text


def test_items_of_a_table_die_with_their_row():
    table, item = qt.QTableWidget(2, 2), qt.QTableWidgetItem("v")
    table.setItem(0, 0, item)
    assert table.item(0, 0).text() == "v" and table.rowCount == 2
    table.removeRow(0)
    with pytest.raises(ValueError, match="destroyed"):
        item.text()


def test_items_keep_python_objects():
    item = qt.QListWidgetItem("x")
    item.setData(qt.Qt.UserRole, {"k": 1})
    assert item.data(qt.Qt.UserRole) == {"k": 1}


def test_what_slicer_has_and_the_host_lacks_says_so():
    with pytest.raises(NotImplementedError, match="exists in Slicer"):
        slicer.qMRMLNodeComboBox().addMenuAction(None)


def test_an_unanswered_dialog_is_a_failure_and_not_a_wait():
    with pytest.raises(AssertionError, match="does not answer"):
        qt.QFileDialog.getOpenFileName(None, "t", "/tmp")


def test_static_dialogs_return_one_value(answers):
    answers["getOpenFileName"] = "/tmp/a.nrrd"
    assert qt.QFileDialog.getOpenFileName(None, "t", "/tmp") == "/tmp/a.nrrd"


def test_settings_read_from_a_file_are_text(tmp_path):
    path = str(tmp_path / "a.ini")
    settings = qt.QSettings(path, qt.QSettings.IniFormat)
    for key, value in (("yes", True), ("five", 5), ("many", ["a", "b"])):
        settings.setValue(key, value)
    settings.sync()
    del settings
    again = qt.QSettings(path, qt.QSettings.IniFormat)
    assert slicer.util.toBool(again.value("yes")) is True
    assert int(again.value("five")) == 5
    assert tuple(again.value("many")) == ("a", "b")
    assert again.value("none", 7) == 7 and again.value("none") is None


def test_an_empty_layout_or_menu_is_false_and_no_variable_of_a_panel(slicer_host):
    import qt
    import slicer

    widget = qt.QWidget()
    layout = qt.QFormLayout()
    layout.objectName = "emptyLayout"
    widget.setLayout(layout)
    assert not layout and not qt.QMenu() and qt.QComboBox() and widget
    assert "emptyLayout" not in vars(slicer.util.childWidgetVariables(widget))


def test_an_editor_without_a_segmentation_ignores_the_volume(a_scene):
    editor, volume = slicer.qMRMLSegmentEditorWidget(), a_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    editor.setSourceVolumeNode(volume)
    assert editor.sourceVolumeNode() is None
    editor.setSegmentationNode(a_scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    editor.setSourceVolumeNode(volume)
    editor.setSegmentationNode(None)
    editor.setSourceVolumeNode(None)
    assert editor.sourceVolumeNode() is volume
