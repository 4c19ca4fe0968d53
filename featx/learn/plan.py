"""What is chosen on, what is reported, and what the saved head is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.learn.groups import GroupIds
from featx.learn.splits import check_whole_groups

IntArray = NDArray[np.int64]
Scheme = Literal["nested-cv", "test", "val", "val-test"]


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """Which samples do what.

    Attributes
    ----------
    scheme : str
        ``"nested-cv"``: scored by nested cross-validation on `choose`. ``"test"``: chosen by cross-validation on
        `choose`, `report` scored once. ``"val-test"``: fitted on `choose`, chosen on `validate`, refitted on both,
        `report` scored once. ``"val"``: chosen by cross-validation on `choose`, the validation part is what is
        reported.
    choose : int array
        Positions on which scaling, C and head are chosen.
    validate : int array
        The validation part on which they are chosen; only in ``"val-test"``.
    report : int array
        Positions whose scores are reported.
    fit : int array
        Positions on which the saved head is fitted.
    description : str
        The same in one or two sentences for the report, with the samples that were left out.
    n_without_split : int
        Samples without a split in a file with splits: they take part in nothing.
    """

    scheme: Scheme
    choose: IntArray
    validate: IntArray
    report: IntArray
    fit: IntArray
    description: str
    n_without_split: int = 0

    @property
    def train(self) -> IntArray:
        """Positions on which the head that is reported is fitted: `choose` and `validate`."""
        return np.union1d(self.choose, self.validate)


def plan_evaluation(
    splits: Sequence[str] | NDArray[np.object_],
    *,
    split: str = "auto",
    refit: str = "default",
    groups: GroupIds | None = None,
) -> EvaluationPlan:
    """Decide from the splits of the samples how the head is chosen, scored and fitted.

    Parameters
    ----------
    splits : str sequence (n_samples,)
        ``"train"``, ``"val"``, ``"test"`` or ``''``.
    split : {"auto", "ignore"}
        ``"ignore"`` treats all samples alike.
    refit : {"default", "all"}
        ``"all"`` fits the saved head on every part, the reported one too; the scores stay those of the head that never
        saw it.
    groups : GroupIds, optional

    Returns
    -------
    EvaluationPlan

    Raises
    ------
    LabelsError
        A split of another name, splits without ``train``, or a group in more than one part.
    """
    column = np.asarray(splits, dtype=object)
    everything = np.arange(len(column))
    nothing = np.array([], dtype=np.int64)
    present = {str(value) for value in column} - {""}
    if split == "ignore" or not present:
        ignored = " (the file's splits are ignored)" if present else ""
        text = f"Nested cross-validation on all {len(everything)} samples{ignored}; the saved head is fitted on all."
        return EvaluationPlan("nested-cv", everything, nothing, everything, everything, text)

    unknown = sorted(present - {"train", "val", "test"})
    if unknown:
        raise LabelsError(f"unknown split {unknown[0]!r}; expected train, val or test, or use --split ignore")
    if "train" not in present:
        raise LabelsError(f"no sample is in split train (only {', '.join(sorted(present))}); use --split ignore")
    placed = np.flatnonzero(column != "")
    if groups is not None and groups.ids is not None:
        identical = "identical files make one group; " if "identical bytes" in groups.source else ""
        check_whole_groups(
            column[placed],
            groups.ids[placed],
            what="the split",
            group_names=groups.names,
            hint=f"{identical}mend the split, or use --split ignore to cross-validate with whole groups",
        )
    train, val, test = (np.flatnonzero(column == name) for name in ("train", "val", "test"))
    scheme: Scheme
    if len(val) and len(test):
        scheme, report, fit = "val-test", test, np.union1d(train, val)
        text = f"Chosen on val ({len(val)} samples) after fitting on train ({len(train)}); refitted on train and val; "
        text += f"test ({len(test)}) scored once."
    elif len(test):
        scheme, report, fit = "test", test, train
        text = f"Chosen by cross-validation on train ({len(train)} samples); test ({len(test)}) scored once."
    elif len(val):
        scheme, report, fit = "val", val, train
        text = f"Chosen by cross-validation on train ({len(train)} samples). There is no test part: the scores are "
        text += f"those of val ({len(val)}), which took no part in choosing."
    else:
        scheme, report, fit = "nested-cv", train, train
        text = f"Nested cross-validation on train ({len(train)} samples), the only split there is."
    if refit == "all":
        fit = placed
        text += " The saved head is fitted on all parts, the reported one too; the scores are of the head before that."
    n_without = len(column) - len(placed)
    if n_without:
        text += f" {n_without} samples without a split are left out of everything."
    return EvaluationPlan(scheme, train, val if scheme == "val-test" else nothing, report, fit, text, n_without)
