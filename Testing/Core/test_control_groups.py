"""A job may use what its control group, and every group around it, leaves it, wherever the limit is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from caml_core import control_groups, device
from caml_core.control_groups import Limits, limits

GIB = 2**30
NO_LIMIT = 9223372036854771712


def group(folder: Path, **files: object) -> None:
    """A group's files; their names are written with "__" for "."."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def own(tmp_path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


@pytest.fixture
def a_job(root, own) -> Path:
    """A step of a cluster's job: 8 GiB and four cores are the job's, 16 GiB the step's own, nothing is the root's."""
    own.write_text("0::/system.slice/job_7/step_0\n")
    job = root / "system.slice" / "job_7"
    group(root, cpu__max="max 100000")
    group(
        job,
        memory__max=8 * GIB,
        memory__current=7 * GIB,
        memory__stat=f"anon 1\ninactive_file {2 * GIB}\nactive_file 5",
        cpu__max="400000 100000",
    )
    group(job / "step_0", memory__max=16 * GIB, memory__current=GIB, memory__stat="inactive_file 0", cpu__max="max 100")
    return job


def test_a_job_has_what_the_groups_around_it_leave(a_job, root, own):
    assert limits(root, own) == Limits(memory=8 * GIB, free=3 * GIB, cores=4)


def test_the_tightest_level_counts_for_each(a_job, root, own):
    """The job has the smaller limit, and the step within it less that is free."""
    group(a_job / "step_0", memory__max=9 * GIB, memory__current=8 * GIB, cpu__max="150000 100000")
    assert limits(root, own) == Limits(memory=8 * GIB, free=GIB, cores=1)


def test_what_is_used_up_leaves_no_limit_of_zero(a_job, root, own):
    group(a_job, memory__current=20 * GIB)
    assert limits(root, own).free == 1


@pytest.mark.parametrize("total", ["", "total_"])
def test_version_1_has_a_tree_for_each_controller(root, own, total):
    own.write_text("9:name=systemd:/elsewhere\n4:memory:/slurm/job\n2:cpu,cpuacct:/slurm/job\n0::/\n")
    statistics = f"inactive_file {GIB}\n{total}inactive_file {GIB}"
    group(root / "memory", memory__limit_in_bytes=NO_LIMIT, memory__usage_in_bytes=60 * GIB)
    group(root / "memory" / "slurm", memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=3 * GIB)
    group(root / "memory" / "slurm", memory__stat=statistics)
    group(root / "memory" / "slurm" / "job", memory__limit_in_bytes=NO_LIMIT, memory__usage_in_bytes=1)
    group(root / "cpu" / "slurm" / "job", cpu__cfs_quota_us=250000, cpu__cfs_period_us=100000)
    group(root / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert limits(root, own) == Limits(memory=4 * GIB, free=2 * GIB, cores=2)


def test_version_1_counts_the_file_cache_of_all_groups_within(root, own):
    own.write_text("4:memory:/\n")
    group(root / "memory", memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=4 * GIB)
    group(root / "memory", memory__stat=f"inactive_file 0\ntotal_inactive_file {3 * GIB}")
    assert limits(root, own).free == 3 * GIB


@pytest.mark.parametrize("path", ["/docker/0123abcd", "/", "/../other", ""])
def test_a_container_that_sees_its_own_group_as_the_root_has_that_limit(root, own, path):
    """Its path may be that outside of the container, where there is no such folder."""
    own.write_text(f"0::{path}\n")
    group(root, memory__max=2 * GIB, memory__current=GIB, cpu__max="200000 100000")
    group(root.parent / "other", memory__max=1)
    assert limits(root, own) == Limits(memory=2 * GIB, free=GIB, cores=2)


@pytest.mark.parametrize("listed", [None, "", "nonsense\n\x00::\n", "0::/nowhere\n"])
def test_where_nothing_is_known_nothing_is_limited(root, own, listed):
    if listed is not None:
        own.write_text(listed)
    assert limits(root, own) == Limits()


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_memory_and_cores_are_those_of_the_job(a_job, root, own, monkeypatch):
    monkeypatch.setattr(control_groups, "ROOT", root)
    monkeypatch.setattr(control_groups, "OWN", own)
    group(a_job, memory__max=3 * 2**20, memory__current=2**20, memory__stat="", cpu__max="1000 1000")
    assert (device.total_ram(), device.available_ram(), device.physical_cores()) == (3 * 2**20, 2 * 2**20, 1)
