"""What ``featx predict`` may be asked to be careful about: sets of classes, abstaining, images unlike the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.learn.conformal import BoolArray, FloatArray, IntArray, check_coverage, choose_sets
from featx.learn.intervals import Interval, proportion_interval
from featx.learn.novelty import check_false_alarms
from featx.learn.reliability import Kept, list_kept
from featx.learn.strangers import Doorkeeper, Strangers

if TYPE_CHECKING:
    from featx.learn.bundle import Bundle

SEPARATOR = "|"
"""Between the classes of a set in a CSV; inside a class's name it has a backslash before it, as a backslash has."""


@dataclass(frozen=True, kw_only=True)
class Caution:
    """How careful `featx.predict` is asked to be.

    Attributes
    ----------
    coverage : float, optional
        Give a set of classes for each image that holds the true one this often: 0.9.
    per_class : bool
        Hold the coverage for each class, not only over all.
    abstain_below : float, optional
        Call no image whose class has less than this probability.
    false_alarms : float, optional
        Share of images like the training set's that may be called unlike it. None: `FALSE_ALARMS`, where the bundle can
        tell.

    Raises
    ------
    UsageError
        A value that an option does not take.
    """

    coverage: float | None = None
    per_class: bool = False
    abstain_below: float | None = None
    false_alarms: float | None = None

    def __post_init__(self) -> None:
        if self.coverage is not None:
            check_coverage(self.coverage)
        elif self.per_class:
            raise UsageError("--coverage-per-class needs a coverage: --coverage 0.9")
        if self.abstain_below is not None and not 0 < self.abstain_below <= 1:
            raise UsageError(f"--abstain-below {self.abstain_below:g}: a probability is expected, as in 0.8")
        if self.false_alarms is not None:
            check_false_alarms(self.false_alarms)


@dataclass(frozen=True)
class Sets:
    """What the prediction sets are like.

    Attributes
    ----------
    coverage : float
        The nominal one.
    per_class : bool
    floor : float
        What is proven; of the class for which it is lowest.
    mean_size, singletons : float or None
        Mean number of classes, and share of sets with exactly one, of images that the head was not fitted on; None
        without any.
    found : Interval or None
        Share of new, labelled images whose class is in their set; None without any.
    found_by_group : float or None
        The same with every group counted once, which is what the coverage is about; None without groups.
    found_of_class : dict of str to float
        The same for the images of each class.
    note : str
        Why sets hold all classes, where they do.
    """

    coverage: float
    per_class: bool
    floor: float
    mean_size: float | None
    singletons: float | None
    found: Interval | None = None
    found_by_group: float | None = None
    found_of_class: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Abstaining:
    """What comes of calling only the images that the classifier is sure about.

    Attributes
    ----------
    below : float
        The threshold.
    n_abstained, n_called : int
    accuracy : Interval or None
        Among the new, labelled images that are called; None without any.
    curve : list of Kept
        The same for other thresholds.
    """

    below: float
    n_abstained: int
    n_called: int
    accuracy: Interval | None = None
    curve: list[Kept] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What caution says of each sample; None in the place of what was not asked for.

    Attributes
    ----------
    inside : bool array (n_samples, n_classes), or None
        Which classes are in the set of each; none where the sample failed.
    abstained : bool array (n_samples,), or None
    sets, abstaining, strangers : Sets, Abstaining, Strangers, or None
    """

    inside: BoolArray | None = field(default=None, repr=False)
    abstained: BoolArray | None = field(default=None, repr=False)
    sets: Sets | None = None
    abstaining: Abstaining | None = None
    strangers: Strangers | None = None

    def columns(self, classes: Sequence[str], good: BoolArray) -> dict[str, list[str]]:
        """Return what a CSV has more, one text for each sample: ``set``, ``abstained``, ``unlike``."""
        columns: dict[str, list[str]] = {}
        if self.inside is not None:
            columns["set"] = [join_classes(classes, row) for row in self.inside]
        if self.abstained is not None:
            flags = zip(self.abstained, good, strict=True)
            columns["abstained"] = [("yes" if flag else "no") if ok else "" for flag, ok in flags]
        if self.strangers is not None:
            columns["unlike"] = [self.strangers.text(place, good=bool(ok)) for place, ok in enumerate(good)]
        return columns

    def record(self, place: int, classes: Sequence[str], *, good: bool) -> dict[str, Any]:
        """Return the same of one sample for JSON, with its distance."""
        values: dict[str, Any] = {}
        if self.inside is not None:
            inside = self.inside[place]
            values["set"] = [name for name, one in zip(classes, inside, strict=True) if one] if good else None
        if self.abstained is not None:
            values["abstained"] = bool(self.abstained[place]) if good else None
        return values if self.strangers is None else values | self.strangers.record(place, good=good)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{sets, abstaining, unlike}`` for JSON."""
        return {
            "sets": None if self.sets is None else asdict(self.sets),
            "abstaining": None if self.abstaining is None else asdict(self.abstaining),
            "unlike": None if self.strangers is None else self.strangers.to_dict(),
        }

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = []
        if self.strangers is not None:
            notes += self.strangers.notes
        if self.sets is not None and self.sets.note:
            notes.append(self.sets.note)
        return notes


def join_classes(classes: Sequence[str], inside: BoolArray) -> str:
    r"""Join the classes of a set, ``a|b``; a ``|`` or backslash in a name has a backslash before it."""
    names = [name.replace("\\", "\\\\").replace(SEPARATOR, "\\" + SEPARATOR) for name in classes]
    return SEPARATOR.join(name for name, one in zip(names, inside, strict=True) if one)


class Judge:
    """Judges samples batch by batch, as they come, then sums up.

    Parameters
    ----------
    bundle : Bundle
    caution : Caution
    n_samples : int

    Raises
    ------
    BundleError
        If the bundle lacks what was asked for.
    """

    def __init__(self, bundle: Bundle, caution: Caution, n_samples: int) -> None:
        self._bundle = bundle
        self._caution = caution
        self._conformal = bundle.conformal if caution.coverage is not None else None
        self._door = Doorkeeper(bundle, caution, n_samples)
        self._p_values = np.zeros((n_samples, len(bundle.classes)))

    def see(self, places: IntArray, X: NDArray[Any]) -> None:
        """Take the features (n * n_views, n_features) of the samples at some places."""
        n_views = self._bundle.needed_spec.n_views
        if self._conformal is not None:
            # A class that no fold head knows, as --refit all can bring one, is in every set: nothing speaks against it.
            p = np.ones((len(places), len(self._bundle.classes)))
            columns = [self._bundle.classes.index(name) for name in self._conformal.classes]
            p[:, columns] = self._conformal.p_values(X, n_views, per_class=self._caution.per_class)
            self._p_values[places] = p
        self._door.see(places, X[::n_views])

    def conclude(
        self,
        predicted: NDArray[Any],
        probabilities: FloatArray,
        labels: Sequence[str],
        *,
        good: BoolArray,
        seen: BoolArray,
        scored: BoolArray,
        groups: IntArray | None,
    ) -> Judgement:
        """Sum up.

        Parameters
        ----------
        predicted : str array (n_samples,)
            The head's own decisions.
        probabilities : float64 array (n_samples, n_classes)
        labels : sequence of str (n_samples,)
        good : bool array (n_samples,)
            Samples that have features.
        seen : bool array (n_samples,)
            Of them, those that the head was fitted on: they say nothing about sets, and are like the training set.
        scored : bool array (n_samples,)
            Of them, those that are new to the head and whose label is known.
        groups : int array (n_scored,), or None
            Of the scored ones.
        """
        classes = np.asarray(self._bundle.classes, dtype=object)
        codes = {name: number for number, name in enumerate(self._bundle.classes)}
        own = np.array([codes.get(str(name), 0) for name in predicted], dtype=np.int64)
        truth = np.asarray(labels, dtype=object)
        new = good & ~seen
        inside, sets = self._conclude_sets(own, truth, classes, new, scored, groups)
        if inside is not None:
            inside &= good[:, None]
        confidence = probabilities[np.arange(len(own)), own]
        abstained, abstaining = self._conclude_abstaining(confidence, predicted == truth, good, scored, groups)
        return Judgement(inside, abstained, sets, abstaining, self._door.conclude(good, new))

    def _conclude_sets(
        self,
        own: IntArray,
        truth: NDArray[np.object_],
        classes: NDArray[np.object_],
        new: BoolArray,
        scored: BoolArray,
        groups: IntArray | None,
    ) -> tuple[BoolArray | None, Sets | None]:
        coverage, per_class = self._caution.coverage, self._caution.per_class
        if self._conformal is None or coverage is None:
            return None, None
        inside = choose_sets(self._p_values, coverage, own)
        sizes = inside[new].sum(axis=1)
        hit = (inside & (truth[:, None] == classes)).any(axis=1)[scored]
        everyone = np.ones(len(hit), dtype=np.bool_)
        sets = Sets(
            coverage,
            per_class,
            self._conformal.floor(coverage, per_class=per_class),
            mean_size=float(sizes.mean()) if len(sizes) else None,
            singletons=float(np.mean(sizes == 1)) if len(sizes) else None,
            found=proportion_interval(hit, everyone, groups, unit="images") if len(hit) else None,
            found_by_group=None if groups is None or not len(hit) else _by_group(hit, groups),
            found_of_class={
                str(name): float(hit[truth[scored] == name].mean()) for name in sorted(set(truth[scored].tolist()))
            },
            note=self._conformal.too_few(coverage, per_class=per_class),
        )
        return inside, sets

    def _conclude_abstaining(
        self,
        confidence: FloatArray,
        right: BoolArray,
        good: BoolArray,
        scored: BoolArray,
        groups: IntArray | None,
    ) -> tuple[BoolArray | None, Abstaining | None]:
        below = self._caution.abstain_below
        if below is None:
            return None, None
        abstained = good & (confidence < below)
        accuracy, curve = None, []
        if scored.any():
            ids = np.arange(int(scored.sum())) if groups is None else groups
            called = ~abstained[scored]
            if called.any():
                accuracy = proportion_interval(right[scored], called, groups, unit="images")
            curve = list_kept(confidence[scored], right[scored], ids)
        n_abstained = int(abstained.sum())
        return abstained, Abstaining(below, n_abstained, int(good.sum()) - n_abstained, accuracy, curve)


def _by_group(hit: BoolArray, groups: IntArray) -> float:
    numbers = np.unique(groups, return_inverse=True)[1]
    return float(np.mean(np.bincount(numbers, weights=hit) / np.bincount(numbers)))
