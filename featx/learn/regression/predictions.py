"""What a regression says about each sample of a source."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.answers import Answers, BoolArray, IntArray, Told, write_number
from featx.learn.bundle import Bundle
from featx.learn.intervals import Interval, proportion_interval
from featx.learn.judgement import Caution
from featx.learn.numbers import FloatArray, parse_number
from featx.learn.regression.scores import NumberEvaluation, evaluate_fixed
from featx.learn.regression.search import predict_numbers
from featx.learn.strangers import Doorkeeper, Strangers
from featx.store.records import OK


@dataclass(frozen=True)
class IntervalAccount:
    """What the prediction intervals are like.

    Attributes
    ----------
    coverage : float
        The nominal one.
    floor : float
        What is proven.
    mean_width : float or None
        Of images that the head was not fitted on; None without any, or without ends.
    found : Interval or None
        Share of new, labelled images whose number is in their interval; None without any.
    note : str
        Why intervals have no ends, where that is so.
    """

    coverage: float
    floor: float
    mean_width: float | None
    found: Interval | None
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberPredictions(Answers[NumberEvaluation]):
    """A number for each sample, in the order of the source; failed ones included.

    Attributes
    ----------
    keys, status, reasons, labels, seen, n_locked, evaluation, evaluation_new
        As in `featx.learn.answers.Answers`.
    predicted : float64 array (n_samples,)
        NaN where the sample failed.
    low, high : float64 array (n_samples,), or None
        Ends of the prediction intervals, infinite where there are too few groups; None where not asked for.
    intervals : IntervalAccount or None
    strangers : Strangers or None
        What is unlike the training set; None where that is not known.
    why_not_scored : str
        Where labels of the source are no numbers.
    """

    predicted: FloatArray = field(repr=False)
    low: FloatArray | None = field(default=None, repr=False)
    high: FloatArray | None = field(default=None, repr=False)
    intervals: IntervalAccount | None = None
    strangers: Strangers | None = None
    why_not_scored: str = ""

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = super().notes
        if self.why_not_scored:
            notes.append(self.why_not_scored)
        if self.strangers is not None:
            notes += self.strangers.notes
        if self.intervals is not None and self.intervals.note:
            notes.append(self.intervals.note)
        return notes

    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header ``key, status, predicted``, then one row for each sample.

        With intervals ``low, high`` follow, and ``unlike`` where the bundle can tell.
        """
        ends = {name: column for name, column in (("low", self.low), ("high", self.high)) if column is not None}
        yield ["key", "status", "predicted", *ends, *([] if self.strangers is None else ["unlike"])]
        for place, (key, status) in enumerate(zip(self.keys, self.status, strict=True)):
            unlike = [] if self.strangers is None else [self.strangers.text(place, good=status == OK)]
            numbers = (column[place] for column in (self.predicted, *ends.values()))
            yield [key, status, *map(write_number, numbers), *unlike]

    def answer(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{predicted}``."""
        del good  # a failed sample has no number
        return {"predicted": _finite(self.predicted[place])}

    def caution(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{low, high, unlike, distance}``, each where there is an answer."""
        values: dict[str, Any] = {}
        if self.low is not None and self.high is not None:
            values = {"low": _finite(self.low[place]), "high": _finite(self.high[place])}
        return values if self.strangers is None else values | self.strangers.record(place, good=good)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        return {
            "intervals": None if self.intervals is None else asdict(self.intervals),
            "unlike": None if self.strangers is None else self.strangers.to_dict(),
            **super().to_dict(),
        }


class NumberWitness:
    """Says which number a sample has, batch by batch, as they come, then sums up.

    Parameters
    ----------
    bundle : Bundle
        Of ``--task regression``.
    caution : Caution
    n_samples : int

    Raises
    ------
    BundleError
        If the bundle lacks what was asked for.
    """

    def __init__(self, bundle: Bundle, caution: Caution, n_samples: int) -> None:
        self._bundle, self._coverage = bundle, caution.coverage
        self._intervals = None if caution.coverage is None else bundle.intervals
        self._door = Doorkeeper(bundle, caution, n_samples)
        self._predicted, self._low, self._high = (np.full(n_samples, np.nan) for _ in range(3))

    def see(self, places: IntArray, X: NDArray[Any]) -> None:
        """Take the features (n * n_views, n_features) of the samples at some places."""
        n_views, rows = self._bundle.needed_spec.n_views, np.asarray(X, dtype=np.float64)
        self._predicted[places] = predict_numbers(self._bundle.pipeline, rows, n_views)
        if self._intervals is not None and self._coverage is not None:
            self._low[places], self._high[places] = self._intervals.ends(rows, self._coverage, n_views)
        self._door.see(places, X[::n_views])

    def conclude(self, told: Told) -> NumberPredictions:
        """Sum up; labels that are no numbers (folders have names) are not scored, and that is said."""
        numbers, note = _read_labels(told)
        new = told.new & np.isfinite(numbers)
        has_ends = self._intervals is not None

        def evaluate(rows: BoolArray) -> NumberEvaluation:
            return evaluate_fixed(numbers[rows], self._predicted[rows], told.groups_of(rows))

        return NumberPredictions(
            predicted=self._predicted,
            low=self._low if has_ends else None,
            high=self._high if has_ends else None,
            intervals=self._account(told, new, numbers),
            strangers=self._door.conclude(told.good, told.good & ~told.seen),
            why_not_scored=note,
            **told.of_answers(evaluate, scorable=np.isfinite(numbers)),
        )

    def _account(self, told: Told, new: BoolArray, numbers: FloatArray) -> IntervalAccount | None:
        if self._intervals is None or self._coverage is None:
            return None
        widths = (self._high - self._low)[told.good & ~told.seen]
        found = None
        if new.any():
            inside = (self._low[new] <= numbers[new]) & (numbers[new] <= self._high[new])
            found = proportion_interval(inside, np.ones_like(inside), told.groups_of(new), unit="images")
        return IntervalAccount(
            self._coverage,
            self._intervals.floor(self._coverage),
            float(widths.mean()) if len(widths) and np.isfinite(widths).all() else None,
            found,
            self._intervals.too_few(self._coverage),
        )


def _read_labels(told: Told) -> tuple[FloatArray, str]:
    """Return the number of each known sample (n_samples,), NaN for the others; or why there are none."""
    nothing = np.full(len(told.labels), np.nan)
    said = [parse_number(label) if known else math.nan for label, known in zip(told.labels, told.known, strict=True)]
    wrong = [label for label, number in zip(told.labels, said, strict=True) if number is None]
    if wrong:
        return nothing, (
            f"Nothing is scored: {len(wrong):,} of {int(told.known.sum()):,} labels of the source are no numbers, the "
            f"first {wrong[0]!r}."
        )
    return np.array(said, dtype=np.float64), ""


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
