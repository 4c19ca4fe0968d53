"""What libsvm takes on trust.

scikit-learn hands the arrays of a fitted `sklearn.svm.SVC` or `SVR` to C code that does not look at their lengths
(compare https://nvd.nist.gov/vuln/detail/CVE-2020-28975): from a file, they are checked first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM


def check_svm(estimator: Any) -> None:
    """Check the lengths of a fitted SVC's or SVR's arrays; what is not fitted or neither is left alone.

    Raises
    ------
    ValueError
        If they do not belong together, or it is another of libsvm's machines.
    """
    machines = (SVC, NuSVC, SVR, NuSVR, OneClassSVM)
    if not isinstance(estimator, machines) or not hasattr(estimator, "support_vectors_"):
        return
    known = {SVC: "c_svc", SVR: "epsilon_svr"}
    usual = known.get(type(estimator)) == estimator._impl and estimator._sparse is False
    if not usual or estimator.kernel not in ("rbf", "linear"):
        raise ValueError("only an SVC or SVR with an rbf or linear kernel, fitted on dense features, is loaded")
    n_support = np.asarray(estimator._n_support)
    if type(estimator) is SVR:  # libsvm counts its vectors twice, as if for two classes
        n_counts, n_functions, n_intercepts = 2, 1, 1
        n_vectors = int(n_support[0]) if n_support.shape == (2,) and n_support[0] == n_support[1] else -1
    else:
        n_classes = len(estimator.classes_)
        n_counts, n_functions, n_intercepts = n_classes, n_classes - 1, n_classes * (n_classes - 1) // 2
        n_vectors = int(n_support.sum())
    shapes = {
        "_n_support": (n_counts,),
        "support_": (n_vectors,),
        "support_vectors_": (n_vectors, estimator.n_features_in_),
        "_dual_coef_": (n_functions, n_vectors),
        "_intercept_": (n_intercepts,),
    }
    name = type(estimator).__name__
    for part, shape in shapes.items():
        if np.shape(getattr(estimator, part)) != shape:
            raise ValueError(f"{name}.{part} has shape {np.shape(getattr(estimator, part))}, expected {shape}")
    if n_support.min() < 0 or n_vectors == 0 or np.size(estimator._probA) or np.size(estimator._probB):
        raise ValueError(f"{name}'s support vectors are not usable")
