"""What the module remembers: in the scene what belongs to the data, in the application's settings what belongs to the
computer.
"""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper

#: What happens to a training when Slicer quits.
ON_QUIT = ("continue", "pause")
_ON_QUIT_KEY = "CAMLTraining/OnQuit"
_LAST_PROJECT_KEY = "CAMLTraining/LastProject"


@parameterNodeWrapper
class CAMLTrainingParameterNode:
    """The panel's state in the scene.

    projectBeside: the project's folder as seen from the scene's own, as far as that was known (``SceneProject``).
    cohort: the project's list as JSON, with the cases of this scene: it alone brings them, their roles and labels back.
    startModel: the title of a model, empty for a start from scratch. startModelFile: the name of its file, without
    ending (``ModelChoice.startOf``). startChosenFor: the project and round after which that was chosen, by the user or
    by the round's end; empty where nobody has chosen.
    """

    projectFolder: str = ""
    projectBeside: str = ""
    cohort: str = ""
    startModel: str = ""
    startModelFile: str = ""
    startChosenFor: str = ""
    budget: str = "1h"
    baseline: bool = False
    crossValidate: bool = False
    modelName: str = ""
    previewCase: str = ""
    ranking: str = "disagreement"


def storedOnQuit() -> str:
    """Return what happens to a training when Slicer quits, as chosen on this computer."""
    value = str(slicer.util.settingsValue(_ON_QUIT_KEY, "continue") or "continue")
    return value if value in ON_QUIT else "continue"


def storeOnQuit(value: str) -> None:
    """Remember the choice."""
    slicer.app.userSettings().setValue(_ON_QUIT_KEY, value)


def lastProject() -> Path | None:
    """Return the folder of the project that was open last on this computer, None where there was none."""
    value = str(slicer.util.settingsValue(_LAST_PROJECT_KEY, "") or "")
    return Path(value) if value else None


def storeLastProject(folder: Path) -> None:
    """Remember the folder of the project that is open."""
    if lastProject() != folder:
        slicer.app.userSettings().setValue(_LAST_PROJECT_KEY, str(folder))
