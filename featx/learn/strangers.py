"""Images unlike the training set: who they are among those that ``featx predict`` sees, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.conformal import BoolArray, FloatArray, IntArray
from featx.learn.novelty import FALSE_ALARMS

if TYPE_CHECKING:
    from featx.learn.bundle import Bundle
    from featx.learn.judgement import Caution


@dataclass(frozen=True, eq=False)
class Strangers:
    """Images unlike the training set.

    Attributes
    ----------
    unlike : bool array (n_samples,)
        Which they are; no failed sample.
    distance : float64 array (n_samples,)
        From the training set, 0 to 2; NaN where the sample failed.
    false_alarms : float
        The rate it was set to.
    n_unlike, n_images : int
        Of the images that the head was not fitted on.
    note : str
        Why nothing can be called unlike, where that is so.
    """

    unlike: BoolArray = field(repr=False)
    distance: FloatArray = field(repr=False)
    false_alarms: float
    n_unlike: int
    n_images: int
    note: str = ""

    def text(self, place: int, *, good: bool) -> str:
        """Return what a CSV says of one sample: ``"yes"``, ``"no"``, or nothing where it failed."""
        return ("yes" if self.unlike[place] else "no") if good else ""

    def record(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{unlike, distance}`` of one sample for JSON."""
        return {
            "unlike": bool(self.unlike[place]) if good else None,
            "distance": float(self.distance[place]) if good else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return ``{false_alarms, n_unlike, n_images, note}`` for JSON."""
        return {name: getattr(self, name) for name in ("false_alarms", "n_unlike", "n_images", "note")}

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        if self.note:
            return [self.note]
        if not self.n_unlike:
            return []
        return [
            f"{self.n_unlike:,} of {self.n_images:,} new images are unlike the training set (the column unlike; "
            f"of images like it, at most {100 * self.false_alarms:g} % would be called so). What is said of them may "
            "be worth nothing."
        ]


class Doorkeeper:
    """Tells images unlike the training set, batch by batch, as they come.

    Parameters
    ----------
    bundle : Bundle
    caution : Caution
    n_samples : int

    Raises
    ------
    BundleError
        If the bundle cannot tell, and was asked to.
    """

    def __init__(self, bundle: Bundle, caution: Caution, n_samples: int) -> None:
        self._asked = caution.false_alarms
        self._novelty = bundle.novelty if self._asked is not None or bundle.has_novelty else None
        self._distance = np.full(n_samples, np.nan)

    def see(self, places: IntArray, X: NDArray[Any]) -> None:
        """Take the plain rows (n, n_features) of the samples at some places."""
        if self._novelty is not None:
            self._distance[places] = self._novelty.distance(X)

    def conclude(self, good: BoolArray, new: BoolArray) -> Strangers | None:
        """Say which samples are unlike, and count them; None where that is not known.

        Parameters
        ----------
        good, new : bool array (n_samples,)
            Samples with features; of them, those that the head was not fitted on.
        """
        if self._novelty is None:
            return None
        rate = FALSE_ALARMS if self._asked is None else self._asked
        note = self._novelty.too_few(rate)
        if note and self._asked is None:
            return None
        unlike = np.zeros(len(good), dtype=np.bool_)
        unlike[good] = self._novelty.is_unlike(self._distance[good], rate)
        return Strangers(unlike, self._distance, rate, int(unlike[new].sum()), int(new.sum()), note)
