"""Files of every kind that featx reads, damaged by seed: only its own errors come out; bin/bench faults tries more."""

from pathlib import Path

import _fuzz
import _kinds
import pytest


def odd_ones(seeds):
    cases = list(_fuzz.try_cases(seeds))
    assert len(cases) == len(seeds)
    return [f"{case.kind}: {case.outcome} (bin/bench faults --case {case.seed})\n{case.detail}" for case in cases
            if not case.is_good]  # fmt: skip


@pytest.mark.slow
def test_three_hundred_damaged_files():
    assert not odd_ones(range(300))


@pytest.mark.slow
def test_three_thousand_damaged_files():
    assert not odd_ones(range(1_000, 4_000))


@pytest.mark.parametrize("way", ["a bug", "a crash", "a loop", "a warning", "another value"])
def test_what_must_not_be_is_noticed(monkeypatch, tmp_path, way):
    """The measuring rod: each kind of trouble is seen, and named with its seed."""
    deeds = {
        "a bug": "raise KeyError('a bug')",
        "a crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "a loop": "while True: pass",
        "a warning": "import warnings; warnings.warn('odd')",
        "another value": "return next(numbers)",
    }
    outcomes = {"a bug": "KeyError", "a crash": "crash", "a loop": "hang", "a warning": "warning"}
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, sys\n"
        f"sys.path.insert(0, {str(Path(_kinds.__file__).parent)!r})\n"
        "import _kinds\n"
        "numbers = itertools.count()\n"
        "def read(path):\n"
        "    if path.read_bytes() == b'x' * 99: return next(numbers)\n"
        f"    {deeds[way]}\n"
        "def write(folder):\n"
        "    (folder / 'a').write_bytes(b'x' * 99)\n"
        "    return [folder / 'a']\n"
        "_kinds.KINDS.clear()\n"
        "_kinds.KINDS['odd'] = _kinds.Kind(write, read)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(_fuzz, "TIME_LIMIT", 1.0)
    monkeypatch.setattr(_fuzz._kinds, "KINDS", {"odd": _kinds.Kind(lambda folder: [], lambda path: None)})
    (case,) = _fuzz.try_cases([5])
    assert (case.seed, case.kind, case.outcome) == (5, "odd", outcomes.get(way, "wrong"))
