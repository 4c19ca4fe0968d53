"""What a regression says about each sample of a source."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.answers import Answers, BoolArray, IntArray, Told
from featx.learn.bundle import Bundle
from featx.learn.intervals import Interval, proportion_interval
from featx.learn.judgement import Caution, Doorkeeper, Strangers
from featx.learn.numbers import FloatArray, parse_number
from featx.learn.regression.scores import NumberEvaluation, evaluate_fixed
from featx.learn.regression.search import predict_numbers
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


@dataclass(frozen=True, eq=False)
class NumberPredictions(Answers):
    """A number for each sample, in the order of the source; failed ones included.

    Attributes
    ----------
    keys, status, reasons, labels, seen, n_locked
        As in `featx.predict.Predictions`.
    predicted : float64 array (n_samples,)
        NaN where the sample failed.
    low, high : float64 array (n_samples,), or None
        Ends of the prediction intervals, infinite where there are too few groups; None where not asked for.
    evaluation, evaluation_new : NumberEvaluation or None
        Over the good samples with a label, and over those that the head was not fitted on; None without any.
    intervals : IntervalAccount or None
    unlike : bool array (n_samples,), or None
    distance : float64 array (n_samples,), or None
        From the training set, 0 to 2; NaN where the sample failed.
    strangers : Strangers or None
    why_not_scored : str
        Where labels of the source are no numbers.
    """

    keys: list[str]
    status: list[str]
    reasons: list[str]
    labels: list[str]
    seen: list[bool] = field(repr=False)
    predicted: FloatArray = field(repr=False)
    low: FloatArray | None = field(default=None, repr=False)
    high: FloatArray | None = field(default=None, repr=False)
    evaluation: NumberEvaluation | None = field(default=None, repr=False)
    evaluation_new: NumberEvaluation | None = field(default=None, repr=False)
    intervals: IntervalAccount | None = None
    unlike: BoolArray | None = field(default=None, repr=False)
    distance: FloatArray | None = field(default=None, repr=False)
    strangers: Strangers | None = None
    n_locked: int = 0
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
        yield ["key", "status", "predicted", *ends, *(["unlike"] if self.unlike is not None else [])]
        for place, (key, status) in enumerate(zip(self.keys, self.status, strict=True)):
            cells = [_text(column[place]) for column in (self.predicted, *ends.values())]
            if self.unlike is not None:
                cells.append(("yes" if self.unlike[place] else "no") if status == OK else "")
            yield [key, status, *cells]

    def iter_records(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready dict for each sample: ``key, status, reason, label, predicted, seen``.

        And where there is an answer ``low, high, unlike, distance``.
        """
        for place, key in enumerate(self.keys):
            record: dict[str, Any] = {
                "key": key,
                "status": self.status[place],
                "reason": self.reasons[place],
                "label": self.labels[place] or None,
                "predicted": _finite(self.predicted[place]),
                "seen": self.seen[place],
            }
            if self.low is not None and self.high is not None:
                record |= {"low": _finite(self.low[place]), "high": _finite(self.high[place])}
            if self.unlike is not None and self.distance is not None:
                good = self.status[place] == OK
                record |= {
                    "unlike": bool(self.unlike[place]) if good else None,
                    "distance": _finite(self.distance[place]),
                }
            yield record

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        return {
            "n_samples": len(self),
            "n_failed": len(self.failures),
            "failures_by_reason": self.failures_by_reason,
            "n_seen": sum(self.seen),
            "n_locked": self.n_locked,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "evaluation_new": None if self.evaluation_new is None else self.evaluation_new.to_dict(),
            "intervals": None if self.intervals is None else asdict(self.intervals),
            "unlike": None if self.strangers is None else asdict(self.strangers),
            "warnings": self.notes,
            "predictions": list(self.iter_records()),
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
        unlike, strangers = self._door.conclude(told.good, told.good & ~told.seen)
        evaluation = self._evaluate(told, told.known & np.isfinite(numbers), numbers)
        has_ends = self._intervals is not None
        return NumberPredictions(
            predicted=self._predicted,
            low=self._low if has_ends else None,
            high=self._high if has_ends else None,
            evaluation=evaluation,
            evaluation_new=self._evaluate(told, new, numbers) if told.seen.any() else evaluation,
            intervals=self._account(told, new, numbers),
            unlike=unlike,
            distance=None if unlike is None else self._door.distance,
            strangers=strangers,
            why_not_scored=note,
            **told.columns(),
        )

    def _evaluate(self, told: Told, rows: BoolArray, numbers: FloatArray) -> NumberEvaluation | None:
        if not rows.any():
            return None
        return evaluate_fixed(numbers[rows], self._predicted[rows], told.groups_of(rows))

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


def _text(number: float) -> str:
    return repr(float(number)) if np.isfinite(number) else ""


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
