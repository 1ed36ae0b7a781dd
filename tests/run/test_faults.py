"""A run that is killed, starved of disk, or loses files: whole cases only, and the next run completes it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesionsynth import nifti
from lesionsynth.errors import ExitCode
from lesionsynth.run import session
from lesionsynth.run.job import write_case
from lesionsynth.run.ledger import failures, read_record
from lesionsynth.run.prepare import read_prepared
from tests.test_invariants import Silent, recipe_of, records

MakeData = Callable[..., Path]
KILLED_BY = """
import importlib.abc, importlib.util, os, sys


class Watcher(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "lesionsynth.run.job":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def loaded(module):
            load(module)
            make = module.HostJobs.make

            def fatal(maker, job, *more):
                if job.case == "{case}":
                    os.kill(os.getpid(), 9)
                return make(maker, job, *more)

            module.HostJobs.make = fatal

        spec.loader.exec_module = loaded
        return spec


sys.meta_path.insert(0, Watcher())
"""
MANY = ["-n", "6", "--set", "steps.add.load=[2, 8]", "-q"]


def command(root: Path, output: Path, *more: str) -> list[str]:
    what = ["run", "lesionmix", "-i", str(root), "-o", str(output)]
    return [sys.executable, "-m", "lesionsynth", *what, *more]


def undisturbed(root: Path, output: Path) -> str:
    """Digest of the voxels of a run that nothing happens to."""
    done = subprocess.run([*command(root, output, *MANY), "--json"], check=True, capture_output=True)
    return str(json.loads(done.stdout)["voxels"])


def wait_for(output: Path, n_records: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 120
    while len(list((output / "records").glob("*.json"))) < n_records:
        assert process.poll() is None, "it ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """Processes that it has started and that are alive, however deep."""
    found, front = [], [pid]
    while front:
        parent = front.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in task.read_text().split():
                found.append(int(child))
                front.append(int(child))
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"loky" in Path(f"/proc/{pid}/cmdline").read_bytes() and (
            b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    except OSError:
        return False


def assert_whole(output: Path) -> dict[str, dict[str, Any]]:
    """Every case that has a record is there, with the voxels that the record tells."""
    found = records(output)
    for record in found.values():
        for name, digest in record["hashes"].items():
            assert nifti.read(output / name).voxel_hash == digest
    return found


def test_a_worker_is_killed(make_nnunet: MakeData, tmp_path: Path) -> None:
    """The run goes on by itself, to the same voxels, and says that it happened."""
    root, output = make_nnunet(4), tmp_path / "out"
    loud = [argument for argument in MANY if argument != "-q"]
    process = subprocess.Popen(
        [*command(root, output, *loud), "-j", "2", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(output, 2, process)
    (victim, *_) = [pid for pid in children(process.pid) if is_worker(pid)]
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "a worker process was ended (SIGKILL" in err
    assert len(assert_whole(output)) == 24
    assert json.loads(out)["voxels"] == undisturbed(root, tmp_path / "fresh")


def test_a_copy_that_ends_its_worker_is_the_only_one_that_fails(
    make_nnunet: MakeData, tmp_path: Path
) -> None:
    """As where the memory is too little for it: those of its share that were written before it count."""
    root, output = make_nnunet(3), tmp_path / "out"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLED_BY.format(case="case2__syn003"))
    paths = os.pathsep.join([str(tmp_path / "site"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    what = [*command(root, output, *MANY), "-j", "2", "--json"]
    done = subprocess.run(what, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert [note["case"] for note in failures(output)] == ["case2__syn003"]
    assert len(assert_whole(output)) == 17
    about = json.loads((output / "dataset.json").read_text())
    assert about["numTraining"] == len(list((output / "labelsTr").glob("case*"))) == 20
    subprocess.run(command(root, output, *MANY), check=True, capture_output=True)
    assert len(assert_whole(output)) == 18
    assert not list(failures(output))


def test_a_case_that_another_process_has_made_keeps_its_files(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Of two processes on one output the second is stopped while it writes what the first has finished."""
    root, output = make_nnunet(3), tmp_path / "out"
    session.run(recipe_of(), root, output, Silent())
    space = read_prepared(output).space
    record = read_record(output, "case1__syn000")
    assert record is not None
    broken = {Path(name): None for name in record["hashes"]}
    with pytest.raises(AttributeError):
        write_case(space, broken, record)  # type: ignore[arg-type]
    assert_whole(output)
    other = {**record, "job": {**record["job"], "key": "of another plan"}}
    with pytest.raises(AttributeError):
        write_case(space, broken, other)  # type: ignore[arg-type]
    assert not any((output / name).exists() for name in record["hashes"])


def test_the_parent_is_killed_alone(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Its workers end with it, and what is there is whole."""
    root, output = make_nnunet(4), tmp_path / "out"
    process = subprocess.Popen(command(root, output, *MANY, "-j", "2"), stderr=subprocess.DEVNULL)
    wait_for(output, 2, process)
    workers = [pid for pid in children(process.pid) if is_worker(pid)]
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(is_worker(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives the run"
        time.sleep(0.1)
    assert len(assert_whole(output)) < 24
    assert undisturbed(root, output) == undisturbed(root, tmp_path / "fresh")
    assert len(assert_whole(output)) == 24
    assert not list(output.rglob(".tmp-*"))


def test_killed_while_the_bank_is_built(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Before there is a plan: the bank is continued."""
    root, output = make_nnunet(4), tmp_path / "out"
    process = subprocess.Popen(command(root, output, *MANY))
    deadline = time.monotonic() + 120
    while not list((output / "bank").glob("cases/*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (output / "plan.jsonl").exists()
    assert undisturbed(root, output) == undisturbed(root, tmp_path / "fresh")


def size_of(folder: Path) -> int:
    """Bytes of its files, in the blocks of a disk."""
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*") if p.is_file())


def limited(size: int) -> Callable[[], None]:
    """No file of the process may become larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_write_that_breaks_off_leaves_whole_cases(make_nnunet: MakeData, tmp_path: Path) -> None:
    """The disk takes a part of a file: an error that names it, nothing of the case, and then it goes on."""
    root, output = make_nnunet(3), tmp_path / "out"
    what = command(root, output, *MANY)
    plan = ["plan" if argument == "run" else argument for argument in what]
    assert subprocess.run(plan, capture_output=True).returncode == 0
    largest = max(p.stat().st_size for p in (root / "imagesTr").glob("*"))
    done = subprocess.run(what, capture_output=True, text=True, preexec_fn=limited(int(0.9 * largest)))
    assert done.returncode == ExitCode.OUTPUT
    assert "cannot be written (File too large)" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(assert_whole(output)) < 18
    assert not [p for p in output.rglob("*") if p.name.startswith(".tmp-")]
    assert undisturbed(root, output) == undisturbed(root, tmp_path / "fresh")


def may_mount() -> bool:
    """Whether a small disk can be made without being root."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="a tmpfs cannot be mounted in a user namespace here")
def test_the_disk_is_full(make_nnunet: MakeData, tmp_path: Path) -> None:
    """A disk of a few megabytes fills in the middle of a case; larger, it is completed."""
    root, disk = make_nnunet(3), tmp_path / "disk"
    disk.mkdir()
    voxels = undisturbed(root, tmp_path / "fresh")
    size_kb = size_of(tmp_path / "fresh") * 6 // 10240
    what = " ".join(f"'{argument}'" for argument in command(root, disk / "out", *MANY))
    script = f"""
        mount -t tmpfs -o size={size_kb}k none {disk} || exit 99
        {what} 2> {tmp_path}/first.txt; echo $? > {tmp_path}/code.txt
        cp -r {disk}/out {tmp_path}/left; df {disk} > {tmp_path}/df.txt
        mount -o remount,size=300m {disk} && {what} && cp -r {disk}/out {tmp_path}/all
    """
    subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], check=True, timeout=240
    )
    assert int((tmp_path / "code.txt").read_text()) == ExitCode.OUTPUT
    said = (tmp_path / "first.txt").read_text()
    assert "No space left on device" in said
    assert "Traceback" not in said
    left = assert_whole(tmp_path / "left")
    assert len(left) < 18
    there = {p.relative_to(tmp_path / "left").as_posix() for p in (tmp_path / "left").rglob("*__syn*.nii.gz")}
    assert there == {name for record in left.values() for name in record["hashes"]}
    assert len(assert_whole(tmp_path / "all")) == 18
    assert undisturbed(root, tmp_path / "all") == voxels


def test_a_host_that_cannot_be_read_is_listed_and_made_later(make_nnunet: MakeData, tmp_path: Path) -> None:
    """It is tried twice, and it is the only one that is missing; once mended it is made."""
    root, output = make_nnunet(4), tmp_path / "out"
    session.plan(recipe_of(), root, output, Silent())
    path = root / "imagesTr" / "case2_0000.nii.gz"
    content, about = path.read_bytes(), path.stat()
    path.write_bytes(content[:2000])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    for n_jobs in ("1", "2"):
        what = command(root, output, "-n", "2", "--set", "steps.add.load=[2, 8]", "-j", n_jobs)
        done = subprocess.run([*what, "--shard", "1/1"], capture_output=True, text=True)
        assert done.returncode == ExitCode.SOME_FAILED
        assert "try again" in done.stderr
        for case in ("case2__syn000", "case2__syn001"):
            note = json.loads((output / "failures" / f"{case}.json").read_text())
            assert note["stage"] == "try again"
            assert "case2_0000.nii.gz: the gzip stream is damaged" in note["error"]
        assert set(assert_whole(output)) == {f"case{h}__syn{c:03d}" for h in (1, 3, 4) for c in (0, 1)}
    shown = subprocess.run(
        [sys.executable, "-m", "lesionsynth", "status", str(output)], capture_output=True, text=True
    )
    assert shown.returncode == ExitCode.SOME_FAILED
    assert "6 of 8 cases are done (75 %), 2 have failed." in shown.stdout
    assert "gzip stream is damaged" in shown.stdout
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    outcome = session.run(recipe_of(), root, output, Silent())
    assert not outcome.failures
    assert not list((output / "failures").glob("*"))
    assert outcome.voxels == session.run(recipe_of(), root, tmp_path / "fresh", Silent()).voxels


def test_one_copy_that_fails_does_not_take_the_others_of_its_host(
    make_nnunet: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw, in one copy, once: it is made at the second try."""
    from lesionsynth.run.job import HostJobs

    root, output = make_nnunet(3), tmp_path / "out"
    made, tried = HostJobs.make, []

    def fail_once(self: HostJobs, job: Any, *more: Any) -> Any:
        tried.append(job.case)
        if job.case == "case2__syn000" and tried.count(job.case) == 1:
            raise MemoryError
        return made(self, job, *more)

    monkeypatch.setattr(HostJobs, "make", fail_once)
    outcome = session.run(recipe_of(), root, output, Silent())
    assert not outcome.failures
    assert sorted(tried) == sorted([*records(output), "case2__syn000"])
    monkeypatch.undo()
    assert outcome.voxels == session.run(recipe_of(), root, tmp_path / "fresh", Silent()).voxels


def test_hosts_are_let_go_of_at_once(make_nnunet: MakeData, tmp_path: Path) -> None:
    """Memory stays flat over many cases: nothing waits for the garbage to be collected."""
    import gc

    from lesionsynth.host import LoadedCase

    def alive() -> int:
        return sum(type(thing) is LoadedCase for thing in gc.get_objects())

    gc.collect()
    before = alive()
    gc.disable()
    try:
        session.run(recipe_of(), make_nnunet(4), tmp_path / "out", Silent())
        assert alive() == before
    finally:
        gc.enable()


def test_an_interrupted_harvest_is_kept(
    make_nnunet: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, output = make_nnunet(3), tmp_path / "out"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lesionsynth.run.prepare.fit_blocks", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.run(recipe_of(), root, output, Silent())
    progress = Silent()
    assert not session.run(recipe_of(), root, output, progress).failures
    assert any("is up to date" in note for note in progress.notes)
