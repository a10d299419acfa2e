"""nnU-Net v2 on the same cases, spacing and patch: training iterations and its predictor. Prints JSON on its last line.

Runs in nnU-Net's own environment, where this project is not installed: ``python peer_nnunet.py SETTINGS.json``, see
``Settings``. All is as shipped, on the processor; the one thing told to its planner besides the spacing is the patch.
Axes of the scans are taken as they lie in the files.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convolutions import convolution_seconds, operations, profiled

DATASET, CONFIGURATION = "Dataset001_Peer", "3d_fullres"
#: Iterations before the timed ones, in which the queues of its loaders fill.
WARM_UP = 3
PROFILED = 2
PROCESSES = 2


@dataclass(frozen=True)
class Settings:
    """``images``, ``labels`` of the cases; ``spacing`` (mm) and ``patch`` along x, y, z; ``scan``: to be predicted."""

    images: list[str]
    labels: list[str]
    spacing: list[float]
    patch: list[int]
    iterations: int
    scan: str


def main() -> None:
    """Measure in a scratch folder."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as name:
        for part in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{part}"] = str(Path(name) / part)
            (Path(name) / part).mkdir()
        write_dataset(Path(name) / "raw" / DATASET, settings)
        plan(settings, Path(name) / "preprocessed" / DATASET)
        trainer = prepared_trainer()
        training = train(trainer, settings.iterations)
        found = {
            "version": importlib.metadata.version("nnunetv2"),
            "torch": torch.__version__,
            "training": training,
            "prediction": predict(trainer, settings.scan),
        }
    print(json.dumps(found))


def write_dataset(folder: Path, settings: Settings) -> None:
    """Lay the cases out as nnU-Net wants them, as links."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(settings.images, settings.labels)):
        (folder / "imagesTr" / f"case_{number:03}_0000.nii.gz").symlink_to(image)
        (folder / "labelsTr" / f"case_{number:03}.nii.gz").symlink_to(label)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "segment": 1},
        "numTraining": len(settings.images),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def plan(settings: Settings, folder: Path) -> None:
    """Let nnU-Net look at the cases, plan a network for this spacing and this patch, and prepare them in ``folder``."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    extract_fingerprints([1], num_processes=PROCESSES, verbose=False, show_progress_bar=False)
    planner = ExperimentPlanner(1, overwrite_target_spacing=settings.spacing[::-1])  # its axes are z, y, x
    plans = planner.plan_experiment()
    whole = plans["configurations"][CONFIGURATION]
    patch = [settings.patch[::-1][axis] for axis in plans["transpose_forward"]]
    voxels = float(np.prod(whole["median_image_size_in_voxels"]) * len(settings.images))
    # A planner that takes the patch for the size of the volumes plans the network of this patch.
    ours = planner.get_plans_for_configuration(
        np.array(whole["spacing"]), np.array(patch), whole["data_identifier"], voxels, {}
    )
    if list(ours["patch_size"]) != patch:
        msg = f"nnU-Net would train on patches of {ours['patch_size']} instead of {patch}"
        raise ValueError(msg)
    whole.update({key: ours[key] for key in ("patch_size", "batch_size", "architecture")})
    planner.save_plans(plans)
    manager = PlansManager(str(folder / f"{planner.plans_identifier}.json"))
    preprocessor = manager.get_configuration(CONFIGURATION).preprocessor_class(verbose=False)
    preprocessor.run(1, CONFIGURATION, planner.plans_identifier, num_processes=PROCESSES)


def prepared_trainer() -> Any:
    """The default trainer on all cases, its loaders running."""
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args("1", CONFIGURATION, "all", device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def train(trainer: Any, iterations: int) -> dict[str, Any]:
    """Seconds of iterations and of waiting for their batches, and what its convolutions do."""
    seconds, waiting = [], []
    for _ in range(WARM_UP + iterations):
        begin = time.perf_counter()
        batch = next(trainer.dataloader_train)
        waiting.append(time.perf_counter() - begin)
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - begin)
    batch = next(trainer.dataloader_train)
    profiler, whole = profiled(lambda: [trainer.train_step(batch) for _ in range(PROFILED)])
    gflop = operations(lambda: trainer.train_step(batch))
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
    return {
        "seconds": float(np.mean(seconds[WARM_UP:])),
        "waiting": float(np.mean(waiting[WARM_UP:])),
        "iterations": iterations,
        "batch": trainer.batch_size,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "gflop": gflop,
        "rate": PROFILED * gflop / convolution_seconds(profiler),
        "share": convolution_seconds(profiler) / whole,
    }


def predict(trainer: Any, scan: str) -> list[dict[str, Any]]:
    """Its predictor on one scan, without and with (as shipped) the mirrored views."""
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    reader = trainer.plans_manager.image_reader_writer_class()
    begin = time.perf_counter()
    volume, properties = reader.read_images([scan])
    read = time.perf_counter()
    preprocessor = trainer.configuration_manager.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case_npy(
        volume, None, properties, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
    )
    ready = time.perf_counter()
    image = torch.from_numpy(np.asarray(data, dtype=np.float32))
    common = {"read": read - begin, "prepare": ready - read}
    return [{**common, **_predicted(trainer, image, properties, mirrors)} for mirrors in (False, True)]


def _predicted(trainer: Any, image: torch.Tensor, properties: dict[str, Any], mirrors: bool) -> dict[str, Any]:
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=mirrors, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    padded = pad_nd_image(image, trainer.configuration_manager.patch_size, "constant", {"value": 0})
    windows = len(predictor._internal_get_sliding_window_slicers(padded.shape[1:]))
    best: dict[str, Any] = {}
    for _ in range(1 if mirrors else 2):  # the mirrored views come second, when everything is warm
        begin = time.perf_counter()
        logits = predictor.predict_logits_from_preprocessed_data(image)
        swept = time.perf_counter()
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, predictor.plans_manager, predictor.configuration_manager, predictor.label_manager, properties
        )
        end = time.perf_counter()
        if not best or end - begin < best["labels"]:
            best = {"labels": end - begin, "back": end - swept, "shape": list(labels.shape)}
    views = 2 ** len(trainer.inference_allowed_mirroring_axes) if mirrors else 1
    return {**best, "windows": windows, "views": views}


if __name__ == "__main__":
    main()
