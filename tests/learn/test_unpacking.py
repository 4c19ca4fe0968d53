"""`load_features` as scikit-learn users unpack it."""

import numpy as np

from featx.learn.dataset import Features


def test_load_features_unpacks_into_x_y_groups_keys_and_a_sample_without_a_group_is_its_own():
    n = 4
    column = np.array(["a", "", "", "a"], dtype=object)
    keys = np.array(["k0", "k1", "k2", "k3"], dtype=object)
    features = Features(np.zeros((n, 2), np.float32), np.array(["x"] * n), column, keys, column, column, column)
    X, y, groups, same_keys = features
    assert X is features.X
    assert y is features.y
    assert groups.tolist() == ["a", "k1", "k2", "a"]
    assert same_keys is features.keys
