"""Intervals of cross-validated scores hold the truth: 100 sets of a few populations; `bin/bench coverage` has more."""

import importlib.util
import sys
from pathlib import Path

import pytest
from _generated_sets import POPULATIONS

N_SETS = 100


@pytest.fixture(scope="module")
def bench():
    """The benchmark, by its path: a package has the same name."""
    path = Path(__file__).parents[1] / "bin" / "bench.d" / "coverage.py"
    spec = importlib.util.spec_from_file_location("bench_coverage", path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules["bench_coverage"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = before
        del sys.modules["bench_coverage"]


@pytest.mark.parametrize("n", [40, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("2 classes", marks=pytest.mark.slow),
        pytest.param("2 classes, chance", marks=pytest.mark.slow),
        pytest.param("2 classes, near perfect", marks=pytest.mark.slow),
        "patients",
    ],
)
def test_nominal_95_percent_of_intervals_hold_the_expected_score(bench, name, n):
    population = next(one for one in POPULATIONS if one.name == name)
    held = bench.measure(population, n, N_SETS, ["featx"], n_jobs=1)["featx"]
    assert set(held) == {"balanced_accuracy", "accuracy", "f1_macro", "roc_auc", "neg_log_loss"}
    for one in held.values():
        assert one.share >= 0.88  # 0.93 less 2 standard errors of 100 sets
        assert 0 < one.width < 1.5


@pytest.mark.slow
def test_it_also_judges_what_is_not_featxs(bench):
    population = next(one for one in POPULATIONS if one.name == "2 classes, chance")
    held = bench.measure(population, 100, N_SETS, ["featx", "plain t of the folds"], n_jobs=1)
    assert held["plain t of the folds"]["accuracy"].share < held["featx"]["accuracy"].share
    assert held["plain t of the folds"]["accuracy"].width < held["featx"]["accuracy"].width
