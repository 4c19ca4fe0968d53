"""What the account of a fit looks like on a terminal."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from featx.cli import report
from featx.fit import FitOptions, fit_features
from featx.learn.dataset import Features


@pytest.fixture(scope="module")
def result():
    """Twelve classes with long names, seven folds in two repeats, no groups, fits that do not agree."""
    rng = np.random.default_rng(0)
    y = np.array([f"a species with a rather long name, number {i % 12}" for i in range(192)])
    empty = np.array([""] * len(y), dtype=object)
    data = Features(
        X=(rng.normal(size=(12, 6))[np.arange(len(y)) % 12] + rng.normal(size=(len(y), 6))).astype(np.float32),
        y=y,
        groups=np.array([f"p{i // 4}" for i in range(len(y))], dtype=object),
        keys=np.arange(len(y)).astype(str).astype(object),
        splits=empty,
        folds=empty,
        sha256=empty,
    )
    options = FitOptions(cv=7, inner_cv=2, repeats=2, scalings=("raw",), C_grid=(0.1, 1, 2), by_group=True, n_jobs=1)
    with threadpool_limits(1):
        return fit_features(data, options)


def test_no_line_is_wider_than_a_hundred_columns_and_every_fold_has_its_scores(result, capsys):
    report.print_fit(result)
    captured = capsys.readouterr()
    lines = captured.out.splitlines() + captured.err.splitlines()
    assert max(map(len, lines)) <= 100
    scores = result.whole.evaluation.scores
    for place, (name, _) in enumerate(result.whole.folds):
        cells = [name, *(f"{interval.folds[place]:.3f}" for interval in scores.values())]
        assert any(line.split() == cells for line in lines)
