"""`bin/bench faults`: kills, signals, full disks, dead and hanging workers, damaged files, and what each costs."""

import argparse
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import _full_disk
import _fuzz
import numpy as np
from _disturbances import ACTOR, DECODER, Faults
from _featx import show
from _scene import Scene, Tally, undisturbed

RAY = ("--engine", "ray", "--ray-actors", "2", "--ray-cpus", "1")


@dataclass(frozen=True)
class Fault:
    """A line of the table.

    Attributes
    ----------
    name : str
        In the table.
    engine : str
        Of the runs that it strikes.
    strike : callable
        From the faults of that engine to the tallies as they grow.
    """

    name: str
    engine: str
    strike: Callable[[Faults], Iterator[Tally]]


def faults_of(options: argparse.Namespace) -> dict[str, Fault]:
    n, kills, ray = options.tries, options.kills, options.ray_kills
    hang = ("--time-limit", "1")
    return {
        "kill": Fault("kill -9 of the run", "local", lambda f: f.stop(signal.SIGKILL, kills, -signal.SIGKILL)),
        "term": Fault("SIGTERM (exit code 143)", "local", lambda f: f.stop(signal.SIGTERM, n, 143)),
        "int": Fault("Ctrl-C (exit code 130)", "local", lambda f: f.stop(signal.SIGINT, n, 130)),
        "segv": Fault(
            "a decoding process dies of SIGSEGV",
            "local",
            lambda f: f.strike_workers(signal.SIGSEGV, n, name=DECODER, at_once=2),
        ),
        "hang": Fault(
            "a decoding process hangs (--time-limit 1)",
            "local",
            lambda f: f.strike_workers(signal.SIGSTOP, n, name=DECODER, at_once=1, options=hang),
        ),
        "twice": Fault("a second run on the same file", "local", lambda f: f.run_twice(n)),
        "ray-kill": Fault(
            "--engine ray: kill -9 of the run", "ray", lambda f: f.stop(signal.SIGKILL, ray, -signal.SIGKILL)
        ),
        "ray-actor": Fault(
            "--engine ray: kill -9 of an actor",
            "ray",
            lambda f: f.strike_workers(signal.SIGKILL, ray, name=ACTOR, at_once=1),
        ),
    }


DISK, FILES = "disk", "files"


def main() -> None:
    names = [*faults_of(argparse.Namespace(tries=0, kills=0, ray_kills=0)), DISK, FILES]
    parser = argparse.ArgumentParser(prog="bench faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="of the local engine; default: 100")
    parser.add_argument("--ray-kills", type=int, default=20, metavar="N", help="of runs and of actors; default: 20")
    parser.add_argument("--tries", type=int, default=20, metavar="N", help="of each other fault; default: 20")
    parser.add_argument("--disk-tries", type=int, default=400, metavar="N", help="sizes of disks at most; default: 400")
    parser.add_argument("--mutations", type=int, default=10_000, metavar="N", help="damaged files; default: 10000")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--images", type=int, default=400, metavar="N", help="default: 400, in batches of 8")
    parser.add_argument("--pause", type=float, default=0.1, metavar="S", help="of the network on a batch; default: 0.1")
    parser.add_argument(
        "--shard-seconds",
        type=float,
        default=0.3,
        metavar="S",
        help="until a shard is closed; default: 0.3, featx's own: 10",
    )
    parser.add_argument("--seed", type=int, default=None, help="of moments and damages; default: another one each time")
    parser.add_argument("--case", type=int, default=None, metavar="SEED", help="try this one damaged file again")
    options = parser.parse_args()
    if options.case is not None:
        raise SystemExit(try_again(options.case))
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        wanted = {name: fault for name, fault in faults_of(options).items() if name in options.only}
        if wanted:
            lines += disturb(Path(scratch), wanted, options, seed)
        if DISK in options.only:
            lines += fill_disks(Path(scratch), options)
    cases = damage(options.mutations, seed) if FILES in options.only else []
    if lines:
        print("\n| fault, each followed by the same command again | tries | rows kept, median (min to max) | rows lost "
              "| wrong rows | finished files, bit for bit the undisturbed one |")  # fmt: skip
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        print("\n".join(line.text for line in lines))
    if cases:
        print(f"\n{_fuzz.table(cases)}")
    bad = [remark for line in lines for remark in line.remarks]
    for remark in bad:
        print(f"\nnot as it should be: {remark}")
    raise SystemExit(bool(bad) or not all(case.is_good for case in cases))


@dataclass(frozen=True)
class Line:
    """One of the table, and what was not as it should be."""

    text: str
    remarks: list[str]

    @classmethod
    def of(cls, name: str, tally: Tally, n_rows: int) -> "Line":
        kept = (
            f"{np.median(tally.kept):.0f} ({min(tally.kept)} to {max(tally.kept)}) of {n_rows}" if tally.kept else "-"
        )
        equal = "all" if not tally.unequal else f"not in {', '.join(sorted(tally.unequal))}:"
        equal = f"within {tally.deviation:.0e} standard deviations:" if tally.deviation and not tally.unequal else equal
        cells = (name, f"{tally.tries:,}", kept, f"{tally.lost}", f"{tally.wrong}", f"{equal} {tally.finished}")
        remarks = [f"{name}: {remark}" for remark in tally.remarks]
        if tally.lost or tally.wrong or tally.unequal:
            remarks.append(f"{name}: {tally.lost} rows lost, {tally.wrong} wrong, differing: {sorted(tally.unequal)}")
        return cls(f"| {' | '.join(cells)} |", remarks)


def disturb(scratch: Path, wanted: dict[str, Fault], options: argparse.Namespace, seed: int) -> list[Line]:
    lines = []
    for engine, words, pause in (("local", (), options.pause), ("ray", RAY, 3 * options.pause)):  # Ray starts slowly
        faults = {name: fault for name, fault in wanted.items() if fault.engine == engine}
        if not faults:
            continue
        scene = Scene.build(scratch / engine, n_images=options.images, pause=pause, shard_seconds=options.shard_seconds)
        show(scene.command("FILE.h5", *words))
        sound, seconds = undisturbed(scene, "undisturbed.h5", *words)
        print(f"undisturbed: {seconds:.1f} s, a shard every {options.shard_seconds:g} s, moments drawn from that time")
        for name, fault in faults.items():
            rng = random.Random(f"{seed} {name}")
            tally = Tally()
            for tally in fault.strike(Faults(scene, words, sound, seconds, rng)):
                _say(f"{fault.name}: {tally.tries}, the last one left {tally.kept[-1:] or ''}")
            lines.append(Line.of(fault.name, tally, options.images))
            print("\n".join([lines[-1].text, *lines[-1].remarks]), flush=True)
    return lines


def fill_disks(scratch: Path, options: argparse.Namespace) -> list[Line]:
    scene = Scene.build(scratch / "disk", n_images=options.images, pause=0, shard_seconds=0)
    lines = []
    for kind in _full_disk.kinds():
        name, tally = _full_disk.LIMITS[kind], Tally()
        for tally in _full_disk.try_sizes(kind, scene, scratch, max_tries=options.disk_tries):
            _say(f"{name}: {tally.tries}, the last one left {tally.kept[-1:] or ''}")
        lines.append(Line.of(name, tally, options.images))
        print("\n".join([lines[-1].text, *lines[-1].remarks]), flush=True)
    return lines


def damage(n: int, seed: int) -> list[_fuzz.Case]:
    cases = []
    first = seed * 1_000_000
    for case in _fuzz.try_cases(range(first, first + n), n_processes=os.cpu_count() or 1):
        cases.append(case)
        if not case.is_good:
            print(f"\n{case.kind}: {case.outcome} (--case {case.seed})\n{case.detail}", flush=True)
        _say(f"damaged files: {len(cases):,} of {n:,}")
    return cases


def try_again(seed: int) -> int:
    """Try one damaged file and show what comes of it."""
    (case,) = _fuzz.try_cases([seed])
    print(f"{case.kind}: {case.outcome}\n{case.detail}")
    return int(not case.is_good)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
