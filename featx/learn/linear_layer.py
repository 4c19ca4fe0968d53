"""Linear heads as one layer on features, and back: what a fine-tune begins with, and what it ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from featx.learn.calibrated import Calibrated, SigmoidCalibrated
from featx.learn.classifier import FeatureClassifier
from featx.learn.training import softmax

FloatArray = NDArray[np.float64]


class LinearHead(FeatureClassifier):
    """A linear classifier whose coefficients were found elsewhere: it decides, and refuses to be fitted.

    Attributes
    ----------
    coef_ : float64 array (n_functions, n_features)
        One function for two classes, else one for each class.
    intercept_ : float64 array (n_functions,)
    classes_ : array (n_classes,)
    n_features_in_ : int
    """

    def fit(self, _X: ArrayLike, _y: ArrayLike) -> LinearHead:
        """Refuse, with a TypeError."""
        raise TypeError(
            "the coefficients of a LinearHead belong to a network that was tuned; they are not fitted again"
        )

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the softmax (n, n_classes) of the decision values of features (n, n_features)."""
        return softmax(self._decisions(X))


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """One value for each class, linear in the features.

    Attributes
    ----------
    coef : float64 array (n_classes, n_features)
    intercept : float64 array (n_classes,)
        Of two classes, the first has the values of the second with the other sign, halved: their softmax is the
        sigmoid of the head's one decision value.
    unit_length : bool
        Whether the features are divided by their Euclidean length first.
    classes : array (n_classes,)
    """

    coef: FloatArray
    intercept: FloatArray
    unit_length: bool
    classes: NDArray[Any]

    @classmethod
    def of(cls, estimator: Any) -> LinearLayer | None:
        """Fold a fitted head, its scaling and what calibrates it into one layer; None: it is not linear.

        Parameters
        ----------
        estimator : scikit-learn estimator
            A pipeline of `featx.learn.heads.make_head`, or such a pipeline inside `Calibrated` or `SigmoidCalibrated`;
            the layer gives the pipeline's own decision values.
        """
        pipeline = _uncalibrated(estimator)
        head, scaler = pipeline.named_steps["head"], pipeline.named_steps.get("scale")
        if not hasattr(head, "coef_") or not hasattr(head, "intercept_"):
            return None
        coef = np.array(np.atleast_2d(head.coef_), dtype=np.float64)
        intercept = np.array(np.atleast_1d(head.intercept_), dtype=np.float64)
        if isinstance(scaler, StandardScaler):
            coef = coef / scaler.scale_
            intercept = intercept - coef @ scaler.mean_
        if len(coef) == 1:
            coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
        return cls(coef, intercept, isinstance(scaler, Normalizer), head.classes_)

    def decisions(self, X: FloatArray) -> FloatArray:
        """Return the values (n, n_classes) of features (n, n_features)."""
        if self.unit_length:
            X = Normalizer().transform(X)
        values: FloatArray = X @ self.coef.T + self.intercept
        return values

    def to_head(self) -> Pipeline:
        """Return a fitted pipeline with the layer's decisions and the softmax of its values, as a bundle takes it."""
        head = LinearHead()
        head.coef_, head.intercept_ = self.coef, self.intercept
        if len(self.classes) == 2:
            head.coef_, head.intercept_ = self.coef[1:] - self.coef[:1], self.intercept[1:] - self.intercept[:1]
        head.classes_, head.n_features_in_ = self.classes, self.coef.shape[1]
        scale = [("scale", Normalizer().fit(np.zeros((1, self.coef.shape[1]))))] if self.unit_length else []
        return Pipeline([*scale, ("head", head)])


def _uncalibrated(estimator: Any) -> Pipeline:
    if isinstance(estimator, Calibrated):
        return _uncalibrated(estimator.estimator_)
    if isinstance(estimator, SigmoidCalibrated):
        return _uncalibrated(estimator.calibrated_.estimator)
    return estimator
