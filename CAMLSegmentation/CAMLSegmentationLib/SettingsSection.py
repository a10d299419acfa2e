"""The panel's part "Settings": combo boxes; check boxes are bound to the parameter node by the .ui file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from caml_core.errors import CamlError

from . import Parameters
from .Combo import choose, chosen, fill
from .Job import commonArguments
from .Process import WorkerFactory, WorkerProcess, newStopFile
from .Run import newFolder

_GIB = 2**30


class SettingsSection:
    """Shows the settings; finds the devices in a process of its own when the part is first unfolded."""

    def __init__(self, ui: Any, onChange: Any, workerFactory: WorkerFactory = WorkerProcess) -> None:
        self._ui, self._onChange = ui, onChange
        self._parameterNode: Any = None
        self._updating = False
        self._asked = False
        self._folder: Path | None = None
        self._worker = workerFactory(self)
        self._combos = {
            "quality": ui.qualityComboBox,
            "subModel": ui.subModelComboBox,
            "parts": ui.partsComboBox,
            "existing": ui.existingComboBox,
        }
        fill(
            ui.qualityComboBox,
            ((_("Fast"), "fast"), (_("Balanced"), "balanced"), (_("Best (slower)"), "best")),
        )
        fill(
            ui.subModelComboBox,
            (
                (_("Auto"), "auto"),
                (_("Mean of both"), "mean"),
                (_("v alone (plain V-Net)"), "v"),
                (_("a alone (with attention)"), "a"),
            ),
        )
        fill(
            ui.partsComboBox,
            (
                (_("As the model's labels"), "auto"),
                (_("Largest part only"), "largest"),
                (_("All parts"), "all"),
            ),
        )
        fill(ui.existingComboBox, ((_("Update it"), "update"), (_("Add a new one beside it"), "add")))
        self._showDevices(())
        for name, combo in self._combos.items():
            combo.connect("currentIndexChanged(int)", lambda index, name=name: self._onCombo(name))
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDevice)
        ui.settingsCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show what a parameter node says; None detaches."""
        self._parameterNode = parameterNode
        self.refresh()

    def refresh(self) -> None:
        """Bring the combo boxes in line with the parameter node."""
        if self._parameterNode is None:
            return
        self._updating = True
        settings = Parameters.settingsOf(self._parameterNode)
        for name, combo in self._combos.items():
            choose(combo, getattr(settings, name))
        self._updating = False

    def close(self) -> None:
        """End the search for devices."""
        self._worker.end()

    def findDevices(self) -> None:
        """Ask the engine which devices there are; it needs PyTorch, so it runs beside."""
        if self._worker.running:
            return
        try:
            self._folder = newFolder()
        except CamlError:  # without it Auto and Processor remain, and Apply says why
            self._asked = False
            return
        stopFile = newStopFile(self._folder)
        self._worker.start(["devices", *commonArguments(stopFile)], stopFile)

    # The worker that looks for devices

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Take the devices."""
        if kind == "finished":
            self._showDevices((fields.get("result") or {}).get("devices") or ())

    def onWorkerLog(self, text: str) -> None:
        """Nothing of it matters here: without PyTorch, Auto and Processor remain."""

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Remove what the search left; where it failed, it is tried again the next time."""
        self._asked = exitCode == 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _showDevices(self, devices: Sequence[dict[str, Any]]) -> None:
        stored = Parameters.storedDevice()
        entries = [(_("Auto"), "auto"), *((_title(device), str(device["name"])) for device in devices)]
        if "cpu" not in [key for _text, key in entries]:
            entries.append((_("Processor"), "cpu"))
        if stored not in [key for _text, key in entries]:
            entries.append((_("{device} (chosen before)").format(device=stored), stored))
        self._updating = True
        fill(self._ui.deviceComboBox, entries)
        choose(self._ui.deviceComboBox, stored)
        self._updating = False

    def _onCollapsed(self, collapsed: bool) -> None:
        if not collapsed and not self._asked:
            self._asked = True
            self.findDevices()

    def _onDevice(self, index: int) -> None:
        if not self._updating:
            Parameters.storeDevice(chosen(self._ui.deviceComboBox))
            self._onChange()

    def _onCombo(self, name: str) -> None:
        if not self._updating and self._parameterNode is not None:
            setattr(self._parameterNode, name, chosen(self._combos[name]))
            self._onChange()


def _title(device: dict[str, Any]) -> str:
    memory = device.get("memory") or 0
    kind = _("Processor") if device.get("name") == "cpu" else str(device.get("name"))
    text = f"{kind}: {device.get('title')}"
    return text + (_(", {gib} GB").format(gib=f"{memory / _GIB:.0f}") if memory else "")
