"""The featx command as the benchmarks run it: as a process of its own, its exact command printed."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

FEATX = str(Path(sys.executable).with_name("featx"))


def show(arguments: list[str]) -> None:
    print("$", shlex.join([Path(arguments[0]).name, *arguments[1:]]), flush=True)


def run_json(*arguments: str | Path) -> dict[str, Any]:
    """Run ``featx ARGUMENTS --json`` and return the object that it prints."""
    command = [FEATX, *map(str, arguments), "--json"]
    show(command)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} ended with exit code {done.returncode}\n{done.stderr}{done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def peak_memory(*arguments: str | Path) -> float:
    """Run ``featx ARGUMENTS`` and return its peak resident memory in MiB."""
    command = [FEATX, *map(str, arguments)]
    show(command)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{shlex.join(command)} ended with exit code {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return usage.ru_maxrss * unit / 2**20
