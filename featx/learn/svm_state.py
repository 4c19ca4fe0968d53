"""What libsvm takes on trust.

scikit-learn hands the arrays of a fitted `sklearn.svm.SVC` to C code that does not look at their lengths
(compare https://nvd.nist.gov/vuln/detail/CVE-2020-28975): from a file, they are checked first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM


def check_svm(estimator: Any) -> None:
    """Check the lengths of a fitted SVC's arrays; what is not fitted or no SVC is left alone.

    Raises
    ------
    ValueError
        If they do not belong together, or it is another of libsvm's machines.
    """
    machines = (SVC, NuSVC, SVR, NuSVR, OneClassSVM)
    if not isinstance(estimator, machines) or not hasattr(estimator, "support_vectors_"):
        return
    usual = type(estimator) is SVC and estimator._impl == "c_svc" and estimator._sparse is False
    if not usual or estimator.kernel not in ("rbf", "linear"):
        raise ValueError("only an SVC with an rbf or linear kernel, fitted on dense features, is loaded")
    n_classes = len(estimator.classes_)
    n_pairs = n_classes * (n_classes - 1) // 2
    n_support = np.asarray(estimator._n_support)
    n_vectors = int(n_support.sum())
    shapes = {
        "_n_support": (n_classes,),
        "support_": (n_vectors,),
        "support_vectors_": (n_vectors, estimator.n_features_in_),
        "_dual_coef_": (n_classes - 1, n_vectors),
        "_intercept_": (n_pairs,),
    }
    for name, shape in shapes.items():
        if np.shape(getattr(estimator, name)) != shape:
            raise ValueError(f"SVC.{name} has shape {np.shape(getattr(estimator, name))}, expected {shape}")
    if n_support.min() < 0 or n_vectors == 0 or np.size(estimator._probA) or np.size(estimator._probB):
        raise ValueError("SVC's support vectors are not usable")
