"""A disk that is full at every 4 KiB: a small file system where this machine lets us mount one, else a limit of sizes.

Run as a program, in a namespace of mounts of its own: ``_full_disk.py KIND SCENE SCRATCH MOST``.
"""

import errno
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _scene import Scene, Tally, contents, count_rows

STEP = 4096
"""Bytes of a page: a memory file system grows by no less."""
_ROOM = 1 << 26


LIMITS = {
    "bytes": "disk full, at every 4 KiB",
    "files": "disk full, at every file",
    "limit": "largest file, every 4 KiB (no small file system may be mounted here)",
}


def namespace() -> list[str]:
    """Return the command in front of a program that may mount what nobody else sees; empty: none may."""
    for options in (["-m"], ["-r", "-m"]):
        command = ["unshare", *options]
        if (
            shutil.which("unshare")
            and not subprocess.run(
                [*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
            ).returncode
        ):
            return command
    return []


def kinds() -> list[str]:
    """Return the names in `LIMITS` that can be tried here."""
    return ["bytes", "files"] if namespace() else ["limit"]


def try_sizes(kind: str, scene: Scene, scratch: Path, *, max_tries: int) -> Iterator[Tally]:
    """Extract to a disk with room for one, for two, ... until everything fits; yields after every size."""
    command = [*namespace(), sys.executable, __file__, kind, str(scene.folder), str(scratch), str(max_tries)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(scene.folder), *sys.path])}
    tally = Tally()
    with subprocess.Popen(command, cwd=scene.folder, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            tally = Tally(**(told | {"unequal": set(told["unequal"])}))
            yield tally
    if process.returncode:
        tally.remarks.append(f"the program that fills the disk ended with exit code {process.returncode}")
        yield tally


def main(kind: str, photos: Path, scratch: Path, max_tries: int) -> None:
    disk = scratch / f"disk-{kind}"
    disk.mkdir()
    if kind != "limit":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "none", disk], check=True)
    tally = Tally()
    extract(photos, scratch / f"{kind}.h5")
    wanted = contents(scratch / f"{kind}.h5")
    for size in itertools.count(1 if kind == "files" else STEP, 1 if kind == "files" else STEP):
        path = disk / "x.h5"
        _set_limit(kind, disk, size)
        is_full = _is_refused(photos, path, tally)
        _set_limit(kind, disk, None)
        if not is_full or tally.tries == max_tries:
            break
        kept = count_rows(path)
        tally.tries += 1
        tally.kept.append(kept)
        report = extract(photos, path)
        tally.lost += max(0, kept - report.unchanged)
        tally.compare(path, wanted)
        if sorted(os.listdir(disk)) != [path.name]:
            tally.remarks.append(f"left behind: {os.listdir(disk)}")
        path.unlink()
        print(json.dumps(vars(tally) | {"unequal": sorted(tally.unequal)}), flush=True)


def extract(photos: Path, path: Path) -> Any:
    """Do what the command does, in this process: a thousand times is soon done."""
    from featx.extract import extract
    from featx.spec import FeatureRequest
    from featx.vision.engine import EngineOptions

    request = FeatureRequest(backbone="faults_network:slow", weights="random")
    return extract(photos / "photos", path, request=request, engine=EngineOptions(batch_size=8, runtime="torch"))


def _is_refused(photos: Path, path: Path, tally: Tally) -> bool:
    from featx.errors import StoreWriteError

    try:
        extract(photos, path)
    except StoreWriteError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG):
            tally.remarks.append(f"another error than of a full disk: {error}")
        return True
    return False


def _set_limit(kind: str, disk: Path, size: int | None) -> None:
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (size or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    limit = f"nr_inodes={size or 10_000}" if kind == "files" else f"size={size or _ROOM}"
    subprocess.run(["mount", "-o", f"remount,{limit}", disk], check=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
