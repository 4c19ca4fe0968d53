"""Feature files that compete: the same jobs on each, and one choice among all of their heads.

The winner of each training part is the best of all files and heads by the inner folds, so that the score of the winners
on the outer folds is that of the whole selection, and pays for it. A file alone is the best of its heads in each part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError
from featx.learn.alignment import align
from featx.learn.convergence import Unconverged
from featx.learn.dataset import Features, LockedPart, check_finite
from featx.learn.search import Fitted, Outcome, Progress
from featx.learn.views import ViewUse, choose_use

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Search = Callable[[FloatArray, ViewUse, Progress | None], list[Outcome]]
"""Runs the jobs on the features of one file."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A file that competes.

    Attributes
    ----------
    name : str
        Unique among those that compete; ``""`` where there is only one.
    samples : Features
        One place for each sample; the same samples in the same order as in every other entry.
    use : ViewUse
        Which of its rows are fitted and scored.
    """

    name: str
    samples: Features
    use: ViewUse

    @property
    def plain(self) -> NDArray[np.float32]:
        """The row of the plain image of each sample."""
        return self.samples.X[:, 0] if self.samples.X.ndim == 3 else self.samples.X

    @property
    def n_features(self) -> int:
        """Columns of its features."""
        return int(self.samples.X.shape[-1])

    @property
    def n_views(self) -> int:
        """Rows of a sample that are used."""
        return int(self.samples.X.shape[1]) if self.samples.X.ndim == 3 else 1

    def take(self, rows: NDArray[Any]) -> Entry:
        """Return some of the samples, by position or mask."""
        return replace(self, samples=self.samples.take(rows))


def enter(
    features: Features | Mapping[str, Features], *, views: str | None, score_views: str | None, allow_missing: bool
) -> list[Entry]:
    """Make ready what competes.

    Parameters
    ----------
    features : Features, or mapping of str to Features
        By name where there are several.
    views, score_views : str, optional
        As in `featx.learn.options.FitOptions`; of several files, they are for those that have views.
    allow_missing : bool
        Take the samples that every file has; else it is an error that some file lacks one.

    Raises
    ------
    InputError
        Features that are not finite, and as `featx.learn.alignment.align`.
    LabelsError
        As `featx.learn.alignment.align`.
    UsageError
        Views are asked for, and there are none.
    """
    several = {"": features} if isinstance(features, Features) else features
    for one in several.values():
        check_finite(one)
    by_sample = {name: one.by_sample() for name, one in several.items()}
    if len(by_sample) > 1:
        names = list(by_sample)
        _check_same_locks(by_sample)
        aligned = align(names, list(by_sample.values()), only_common=allow_missing)
        n_missing = max(len(one) + one.n_missing for one in by_sample.values()) - len(aligned.samples)
        by_sample = {
            name: replace(by_sample[name].take(rows), n_missing=n_missing)
            for name, rows in zip(names, aligned.rows, strict=True)
        }
    n_views = {name: one.X.shape[1] if one.X.ndim == 3 else 1 for name, one in by_sample.items()}
    if len(n_views) > 1 and max(n_views.values()) == 1:
        choose_use(views, score_views, 1)
    entries = []
    for name, samples in by_sample.items():
        single = n_views[name] == 1 and len(n_views) > 1
        use = ViewUse() if single else choose_use(views, score_views, n_views[name])
        if samples.X.ndim == 3 and use == ViewUse():
            samples = replace(samples, X=samples.X[:, 0])
        entries.append(Entry(name, samples, use))
    return entries


def _check_same_locks(files: Mapping[str, Features]) -> None:
    """Raise InputError where files keep different samples for the last test: what is locked in one trains another."""
    (name, first), *others = [(name, one.locked) for name, one in files.items()]
    for other_name, other in others:
        mine, theirs = (() if one is None else (one.n_samples, *sorted(one.sha256)) for one in (first, other))
        if mine != theirs:
            counts = [0 if one is None else one.n_samples for one in (first, other)]
            raise InputError(
                f"{name} and {other_name} keep different samples locked ({counts[0]} and {counts[1]}): what is locked "
                f"in one would be trained on in the other. {_how_to_lock_alike(name, first, other_name, other)}"
            )


def _how_to_lock_alike(name: str, first: LockedPart | None, other_name: str, other: LockedPart | None) -> str:
    """Say what to type: what is locked stays locked, so the file without a lock follows the one with it."""
    if first is not None and other is not None:
        return f"Both have a lock, and locks stay: extract one of them anew, and featx lock NEW.h5 --like {name}"
    open_file, locked = (other_name, name) if other is None else (name, other_name)
    return f"Lock the one like the other: featx lock {open_file} --like {locked}"


@dataclass(frozen=True)
class Candidate:
    """A head on the features of a file.

    Attributes
    ----------
    file : str
        ``""`` where there is only one.
    head : str
        ``""``: the best of all.
    """

    file: str
    head: str

    def __str__(self) -> str:
        return " on ".join(filter(None, (self.head, self.file)))


@dataclass(frozen=True, eq=False)
class Contest:
    """What came of the same jobs on every file.

    Attributes
    ----------
    entries : list of Entry
    outcomes : dict of str to list of Outcome
        By file, in the order of the jobs.
    rosters : sequence of (sequence of str)
        For each job the files that may win it, where not all may.
    """

    entries: list[Entry]
    outcomes: dict[str, list[Outcome]]
    rosters: Sequence[Sequence[str]] = ()

    @classmethod
    def hold(
        cls,
        entries: Sequence[Entry],
        search: Search,
        progress: Progress | None,
        *,
        rosters: Sequence[Sequence[str]] = (),
    ) -> Contest:
        """Run the jobs on every file."""
        outcomes = {}
        for number, entry in enumerate(entries):
            advance = None if progress is None else _part(progress, number, len(entries))
            outcomes[entry.name] = search(entry.samples.X.astype(np.float64), entry.use, advance)
        return cls(list(entries), outcomes, rosters)

    def of_jobs(self, numbers: Sequence[int]) -> Contest:
        """Return what came of some of the jobs."""
        outcomes = {name: [own[one] for one in numbers] for name, own in self.outcomes.items()}
        return replace(self, outcomes=outcomes, rosters=[self.rosters[one] for one in numbers] if self.rosters else ())

    @property
    def candidates(self) -> list[Candidate]:
        """Every head on every file, in the order in which ties are broken."""
        return [Candidate(entry.name, head) for entry in self.entries for head in self.outcomes[entry.name][0].heads]

    @property
    def unconverged(self) -> list[Unconverged]:
        """Fits that did not converge; where there are several files, folds are named with theirs."""
        return [
            replace(failure, fold=str(Candidate(name, failure.fold)))
            for name, outcomes in self.outcomes.items()
            for outcome in outcomes
            for failure in outcome.unconverged
        ]

    def fitted(self, candidate: Candidate) -> list[Fitted]:
        """Return a candidate's fit for each job."""
        return [outcome.heads[candidate.head] for outcome in self.outcomes[candidate.file]]

    def winners(self, candidates: Sequence[Candidate] | None = None) -> list[Candidate]:
        """Return the best of some candidates, or of all, for each job by its inner folds.

        Ties go to the simpler choice (see `featx.learn.choice.Choice.rank`), then to the earlier file. Candidates on
        files that may not win a job are passed over, unless there are no others among them.
        """
        among = self.candidates if candidates is None else list(candidates)

        def winner(job: int) -> Candidate:
            allowed = [one for one in among if not self.rosters or one.file in self.rosters[job]] or among
            return min(allowed, key=lambda one: self.outcomes[one.file][job].heads[one.head].choice.rank)

        return [winner(job) for job in range(len(self.outcomes[self.entries[0].name]))]

    def best(self, candidates: Sequence[Candidate] | None = None) -> list[Fitted]:
        """Return the fits of `winners`."""
        return [
            self.outcomes[winner.file][job].heads[winner.head] for job, winner in enumerate(self.winners(candidates))
        ]

    def entry(self, name: str) -> Entry:
        """Return the file of a name."""
        return next(entry for entry in self.entries if entry.name == name)

    def runner_up(self) -> tuple[Candidate, Candidate | None]:
        """Return the candidate that is chosen for the saved classifier, and the best of the others in its job."""
        first = self.winners()[-1]
        others = [one for one in self.candidates if one != first]
        return first, self.winners(others)[-1] if others else None

    def next_file(self) -> str:
        """Return the best file but for that of the saved classifier, in its job; ``""`` where there is only one."""
        others = self.of_files([entry.name for entry in self.entries if entry.name != self.winners()[-1].file])
        return self.winners(others)[-1].file if others else ""

    def of_files(self, names: Sequence[str]) -> list[Candidate]:
        """Return the candidates on some files."""
        return [one for one in self.candidates if one.file in names]

    def simpler(self, one: Candidate, other: Candidate) -> str:
        """Say which of two candidates is the one to take if neither is better, and why.

        That with fewer features, else with fewer views of an image, else with the head that is first in `HEADS`.
        """
        first, second = self.entry(one.file), self.entry(other.file)
        for word, mine, others in (
            ("fewer features", first.n_features, second.n_features),
            ("fewer views of an image", first.n_views, second.n_views),
        ):
            if mine != others:
                return f"{one if mine < others else other} has {word} ({min(mine, others)}, not {max(mine, others)})"
        if one.head != other.head:
            return (
                f"{min(one, other, key=lambda each: self.fitted(each)[-1].choice.order)} is named first by featx heads"
            )
        return f"{one if self.entries.index(first) < self.entries.index(second) else other} was given first"


def name_files(paths: Sequence[str]) -> list[str]:
    """Return what files are called: their names, or where two have the same, their paths."""
    names = [PurePath(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _part(progress: Progress, number: int, n_parts: int) -> Progress:
    """Report the steps of one of several parts that have equally many."""
    return lambda done, total: progress(number * total + done, n_parts * total)
