"""What a fit gives, whatever its task: a head with every fact about how good it is."""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from featx.errors import UsageError
from featx.learn.bundle import SHA_DIGITS, save_bundle
from featx.learn.candidates import Searched, cv_results
from featx.learn.choice import Choice
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.intervals import Interval
from featx.learn.leaks import Leaks
from featx.learn.options import FitOptions
from featx.learn.paired import Comparisons
from featx.learn.plan import EvaluationPlan
from featx.learn.views import ViewUse
from featx.spec import FeatureSpec
from featx.store.target import save_text


class Scored(Protocol):
    """An evaluation, whatever the task."""

    @property
    def scores(self) -> dict[str, Interval]: ...  # noqa: D102

    @property
    def n_samples(self) -> int: ...  # noqa: D102

    @property
    def estimand(self) -> str: ...  # noqa: D102


E = TypeVar("E", bound=Scored)


@dataclass(frozen=True)
class HeadResult(Generic[E]):
    """What one head gets: the winner of each choice, or one kind of head alone.

    Attributes
    ----------
    evaluation : Evaluation
        Of the part that is reported.
    cv : Evaluation or None
        Of nested cross-validation, where there was one.
    chosen : Choice
        For the saved head.
    folds : list of (str, Choice)
        For each outer fold, by name.
    """

    evaluation: E
    cv: E | None
    chosen: Choice
    folds: list[tuple[str, Choice]]

    def to_dict(self) -> dict[str, Any]:
        """Return ``{scores, cv_scores, chosen}`` for JSON."""
        return {
            "scores": _scores(self.evaluation),
            "cv_scores": _scores(self.cv),
            "chosen": {
                **self.chosen.to_dict(),
                "folds": [{"fold": name, **choice.to_dict()} for name, choice in self.folds],
            },
        }


@dataclass(frozen=True)
class OutOfFold:
    """One prediction for a sample by a head that was not fitted on it.

    Attributes
    ----------
    key, group : str
        The sample, and its group as the file has it.
    fold : str
        ``"2"``, ``"1.2"`` (repeat and fold), the value of the fold column, or the part: ``"test"``, ``"val"``.
    true, predicted : str
    probabilities : tuple of float
        In the order of the classes.
    """

    key: str
    group: str
    fold: str
    true: str
    predicted: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(ABC, Generic[E]):
    """A fitted head and what is known about it whatever its task.

    Attributes
    ----------
    estimator : scikit-learn estimator
        On features (n, n_features).
    whole : HeadResult
        The whole procedure: in each fold the best of all heads, and files.
    heads : dict of str to HeadResult
        Each head alone, on the best of the files, from the same fits.
    plan : EvaluationPlan
        Which rows did what, as positions among the rows that were used.
    prescribed_folds : bool
        Whether the outer folds are those of a fold column.
    groups : GroupIds
    n_fits : int
        Of the search and after it.
    unlabelled, n_missing : int
        Samples left out: without a label; without features.
    seconds : float
        Search and refit.
    fitted_on : list of str
        SHA-256 of the images that the saved head was fitted on, where known.
    options : FitOptions
    comparisons : Comparisons
        Whether the chosen is better than the next best, and the whole than guessing.
    leaks : Leaks
        What could make the scores too good.
    file : str
        The file that was chosen for the saved head; ``""`` where there is only one.
    files : dict of str to HeadResult
        Each file alone, with the best of the heads; empty where there is only one.
    file_of_fold : list of str
        The file that was chosen in each outer fold; empty where there is only one.
    views : ViewUse
        Which rows of a sample were fitted, and what samples are called by.
    spec, digest, weights : FeatureSpec or None, str, bytes or None
        What made the features, the training data's digest, and the user's own network weights, from the file.
    locked : LockedPart or None
        What the file keeps for the last test: it took no part in anything.
    searches : list of Searched
        All that was compared, for each file: in each outer fold, and for the saved head.
    """

    estimator: Any
    whole: HeadResult[E]
    heads: dict[str, HeadResult[E]]
    plan: EvaluationPlan
    prescribed_folds: bool
    groups: GroupIds
    n_fits: int
    unlabelled: int
    n_missing: int
    seconds: float
    fitted_on: list[str] = field(repr=False)
    options: FitOptions
    comparisons: Comparisons
    leaks: Leaks = field(repr=False)
    file: str = ""
    files: dict[str, HeadResult[E]] = field(default_factory=dict)
    file_of_fold: list[str] = field(default_factory=list)
    views: ViewUse = ViewUse()
    spec: FeatureSpec | None = None
    digest: str = ""
    weights: bytes | None = field(default=None, repr=False)
    locked: LockedPart | None = None
    searches: list[Searched] = field(default_factory=list, repr=False)

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""

    @abstractmethod
    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""

    @abstractmethod
    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield a header, then a row for each prediction by a head that was not fitted on the sample."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --json`` prints."""
        choices = [("final", self.whole.chosen), *self.whole.folds]
        return {
            "task": self.options.task,
            "scheme": self.plan.scheme,
            "description": self.description,
            **self.whole.to_dict(),
            "head": self.whole.chosen.head,
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
            "file": self.file or None,
            "files": {name: file.to_dict() for name, file in self.files.items()},
            "file_of_fold": self.file_of_fold,
            "comparisons": self.comparisons.to_dict(),
            "estimand": self.whole.evaluation.estimand,
            "n_samples": len(np.union1d(self.plan.fit, self.plan.report)),
            "n_fitted": len(self.plan.fit),
            "n_reported": self.whole.evaluation.n_samples,
            "left_out": {
                "unlabelled": self.unlabelled,
                "missing": self.n_missing,
                "without_split": self.plan.n_without_split,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "locked": None if self.locked is None else self.locked.to_dict(),
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "edge": [{"fold": fold, **choice.to_dict()} for fold, choice in choices if choice.edge],
            "leaks": {"near_duplicates": self.leaks.to_dict()["near_duplicates"]},
            "views": asdict(self.views),
            "warnings": self.notes,
            "options": asdict(self.options),
            "seconds": self.seconds,
        }

    @property
    def description(self) -> str:
        """What was chosen on, scored and fitted, in a few sentences."""
        text = self._plan_text
        if self.files:
            text += (
                f" {len(self.files)} files compete: which one is best is chosen inside each training part, as head and "
                f"scaling are, and the scores are those of the whole selection.{self._chosen_file_text}"
            )
        if self.prescribed_folds:
            names = ", ".join(name for name, _ in self.whole.folds)
            text += f" The outer folds are those of the fold column ({names}), not of --cv."
        return text + self.views.description

    @property
    def _plan_text(self) -> str:
        return self.plan.description

    @property
    def _chosen_file_text(self) -> str:
        """What is said of the chosen file alone, with a space before it."""
        return ""

    def facts(self) -> dict[str, Any]:
        """Return what the bundle records."""
        facts = self.to_dict()
        facts["locked_away"] = _digits(self.locked.sha256 if self.locked else ())
        facts["leaks"]["near_duplicates"]["pairs"] = []  # no sample's name is in a bundle
        facts["warnings"] = [note for note in facts["warnings"] if note not in self.leaks.notes] + self.leaks.facts
        return {**facts, "spec": self.spec, "manifest_digest": self.digest, "fitted_on": _digits(self.fitted_on)}


def out_of_fold_rows(names: Sequence[str], predictions: Iterable[OutOfFold]) -> Iterator[list[Any]]:
    """Yield the header ``key, group, fold, true, predicted, p_<name>...``, then a row for each prediction."""
    yield ["key", "group", "fold", "true", "predicted", *(f"p_{name}" for name in names)]
    for row in predictions:
        yield [row.key, row.group, row.fold, row.true, row.predicted, *row.probabilities]


def save(result: Result[Any], path: str | os.PathLike[str], *, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Save the fitted head with its facts, and more facts of those who ask, as a ``.featx`` bundle.

    Raises
    ------
    BundleError
        If it cannot be written.
    UsageError
        If the features did not come from a feature file: nothing would say how to make them for new images.
    """
    if result.spec is None:
        raise UsageError("only a head fitted on a feature file can be saved: nothing else says what its features are")
    save_bundle(
        path,
        estimator=result.estimator,
        facts={**result.facts(), **more},
        weights=result.weights,
        **result.members(),
    )


def save_cv_results(result: Result[Any], path: str | os.PathLike[str]) -> None:
    """Write all that was compared as CSV, one row each, see `featx.learn.candidates.cv_results`; all or nothing.

    Raises
    ------
    StoreWriteError
        If the file cannot be written.
    """
    columns = cv_results(result.searches)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    save_text(path, text.getvalue(), what="results of the search")


def save_out_of_fold(result: Result[Any], path: str | os.PathLike[str]) -> None:
    """Write every out-of-fold prediction as CSV, as `Result.iter_out_of_fold` yields them; all or nothing.

    Raises
    ------
    StoreWriteError
        If the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(result.iter_out_of_fold())
    save_text(path, text.getvalue(), what="out-of-fold predictions")


def _scores(evaluation: Scored | None) -> dict[str, Any] | None:
    return None if evaluation is None else {name: interval.to_dict() for name, interval in evaluation.scores.items()}


def _digits(sha256: Iterable[str]) -> list[str]:
    return sorted({one[:SHA_DIGITS] for one in sha256})
