"""The transferability scores against closed forms, and against slow evaluations of the papers' formulas."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from sklearn.covariance import LedoitWolf
from sklearn.metrics import mutual_info_score

from featx.errors import InputError, LabelsError
from featx.learn.evidence import max_log_evidence
from featx.learn.transferability import (
    h_score,
    h_score_regularised,
    leep,
    logme,
    nce,
    score_features,
    transrate,
)

OF_FEATURES = [logme, h_score, h_score_regularised, transrate]
SHAPES = [(20, 30), (16, 16), (40, 6)]
seeds = st.integers(0, 10**6)


def sample(n, d, n_classes=3, *, seed=0, shift=1.0, mean=0.5):
    """Noise around a class mean each; not centred."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    return mean + rng.normal(size=(n, d)) + shift * rng.normal(size=(n_classes, d))[y], y


def distributions(n, n_source, *, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(n_source, 0.3), n)


def entropy(y):
    shares = np.unique(y, return_counts=True)[1] / len(y)
    return -np.sum(shares * np.log(shares))


def maximised(log_evidence):
    """Maximise over (log alpha, log beta) from several starts, where the slow formulas can still be computed."""
    best = -np.inf
    for start in [(-2, 0), (1, 2), (4, 1), (7, 2)]:
        found = minimize(
            lambda p: -log_evidence(*np.exp(np.clip(p, -9, 11))),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-9, "maxiter": 1000},
        )
        best = max(best, -found.fun)
    return best


# ---- LogME


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_logme_is_the_largest_normal_likelihood_of_the_labels(shape, seed):
    X, y = sample(*shape, seed=seed, shift=0.4)  # little enough that the best noise is not none, out of reach here
    slow = []
    for name in range(3):
        target = (y == name).astype(float)

        def log_evidence(alpha, beta, target=target):
            covariance = np.eye(len(X)) / beta + X @ X.T / alpha
            return multivariate_normal(np.zeros(len(X)), covariance, allow_singular=True).logpdf(target)

        slow.append(maximised(log_evidence) / len(X))
    assert logme(X, y) == pytest.approx(np.mean(slow), abs=1e-8)


@pytest.mark.parametrize(("shape", "seed"), [((20, 30), 2), ((16, 16), 2), ((40, 6), 1)])
def test_logme_is_the_maximum_of_the_papers_formula_with_its_matrix_of_features(shape, seed):
    """L = n/2 log beta + D/2 log alpha - n/2 log 2 pi - beta/2 |F m - y|^2 - alpha/2 m'm - 1/2 log |A|."""
    X, y = sample(*shape, n_classes=2, seed=seed, shift=0.4)
    n, d = X.shape

    def of(target):
        def log_evidence(alpha, beta):
            A = alpha * np.eye(d) + beta * X.T @ X
            m = beta * np.linalg.solve(A, X.T @ target)
            fit = beta / 2 * np.sum((X @ m - target) ** 2) + alpha / 2 * m @ m
            rest = np.log(beta) * n / 2 + np.log(alpha) * d / 2 - np.log(2 * np.pi) * n / 2
            return rest - fit - np.linalg.slogdet(A)[1] / 2

        return maximised(log_evidence) / n

    assert logme(X, y) == pytest.approx((of(1.0 * (y == 0)) + of(1.0 * (y == 1))) / 2, abs=1e-8)


def test_logme_of_noise_with_fewer_samples_than_features_is_hardly_more_than_that_of_no_features():
    """Where the published fixed-point code, which forgets the directions that are zero, gives about +30."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(60, 512)), rng.integers(0, 3, 60)
        nothing = logme(np.zeros((60, 1)), y)
        assert nothing <= logme(X, y) < nothing + 0.05
        assert published(X, y) > 20


def published(X, y):
    """The paper's iteration, and its formula with a sum over min(n, D) directions instead of all D in log |A|."""
    n, d = X.shape
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    values = []
    for name in np.unique(y):
        target = (y == name).astype(float)
        z, alpha, beta = U.T @ target, 1.0, 1.0
        outside = target @ target - z @ z
        for _ in range(50):
            strength = beta * s**2 + alpha
            m2 = np.sum((beta * s * z / strength) ** 2)
            residual = np.sum((alpha * z / strength) ** 2) + max(outside, 0)
            gamma = np.sum(beta * s**2 / strength)
            alpha, beta = gamma / m2, (n - gamma) / residual
        log_det = np.sum(np.log(beta * s**2 + alpha))
        fit = beta / 2 * residual + alpha / 2 * m2
        values.append((n * np.log(beta / (2 * np.pi)) + d * np.log(alpha) - log_det) / 2 - fit)
    return np.mean(values) / n


@pytest.mark.parametrize("X", [np.zeros((12, 3)), np.eye(12), 7 * np.eye(12)[:, ::-1]], ids=["zeros", "eye", "turned"])
def test_logme_of_features_that_say_nothing_has_a_closed_form(X):
    """Zeros leave white noise; of an orthonormal square matrix every alpha and beta is white noise again."""
    y = np.repeat([0, 1, 1], 4)
    variances = np.array([4, 8]) / 12
    assert logme(X, y) == pytest.approx(np.mean(-0.5 * (np.log(2 * np.pi * variances) + 1)), abs=1e-12)


def test_logme_of_one_direction_has_a_closed_form():
    """Two eigenvalues: with the best noise v and the best strength, the likelihood of a target splits in two."""
    n, y = 20, np.repeat([0, 1], [14, 6])
    x = np.ones((n, 1))  # the coordinate of a class of m samples is m / sqrt(n), the rest m - m^2 / n
    expected = []
    for m in (14, 6):
        inside, rest = m**2 / n, m - m**2 / n
        noise = rest / (n - 1)
        expected.append(-0.5 * (n * np.log(2 * np.pi) + (n - 1) * np.log(noise) + np.log(inside) + n) / n)
    assert logme(x, y) == pytest.approx(np.mean(expected), abs=1e-12)


def test_logme_is_infinite_where_few_directions_explain_the_classes_exactly():
    y = np.arange(30) % 3
    assert logme(np.eye(3)[y], y) == np.inf
    assert logme(np.eye(3)[y] @ np.random.default_rng(0).normal(size=(3, 50)), y) == np.inf
    almost = np.eye(3)[y] + 1e-4 * np.random.default_rng(0).normal(size=(30, 3))
    assert 5 < logme(almost, y) < np.inf


def test_logme_without_noise_is_finite_where_any_labels_can_be_explained():
    """n directions: the limit of endless beta is normal with X X' alone, at its best scale."""
    X, y = sample(10, 25, n_classes=2, shift=4.0, seed=5)
    gram = X @ X.T
    limits = []
    for name in (0, 1):
        target = (y == name).astype(float)
        scale = target @ np.linalg.solve(gram, target) / 10
        limits.append(multivariate_normal(np.zeros(10), scale * gram).logpdf(target))
    evidence = max_log_evidence(X, np.eye(2)[y])
    assert (evidence >= np.array(limits) - 1e-9).all()
    assert np.isfinite(evidence).all()


@pytest.mark.parametrize(("strong", "weak", "rest"), [(30.0, 3.0, 1.0), (3.0, 1.0, 0.3)], ids=["first", "second"])
def test_the_evidence_is_found_where_it_has_two_maxima(strong, weak, rest):
    """A target in a strong and in weak directions: a local search stops at one of two strengths."""
    n, s = 40, np.array([1e2, 1e-2, 1e-2, 1e-2])
    Q = ortho_group.rvs(n, random_state=0)
    X, z = Q[:, :4] * s, np.r_[strong, np.full(3, weak), np.full(n - 4, rest)]
    [found] = max_log_evidence(X, (Q @ z)[:, None])

    u = np.arange(-20, 30, 0.01)  # log(beta / alpha); the best beta of each is n over the weighted squares
    spread = 1 + np.exp(u)[:, None] * np.r_[s**2, np.zeros(n - 4)]
    noise = np.sum(z**2 / spread, axis=1) / n
    values = -0.5 * (n * np.log(2 * np.pi * noise) + np.sum(np.log(spread), axis=1) + n)
    inside = values[1:-1]
    assert np.sum((inside > values[:-2] + 1e-9) & (inside > values[2:] + 1e-9)) == 2
    assert found == pytest.approx(values.max(), abs=1e-4)
    assert found >= values.max() - 1e-9


# ---- H-score


def slow_h_score(X, y):
    means = np.array([X[y == name].mean(axis=0) for name in y])
    return np.trace(np.linalg.pinv(np.cov(X.T, bias=True), rcond=1e-10) @ np.cov(means.T, bias=True))


@pytest.mark.parametrize("shape", [(40, 6), (40, 30), (12, 30)])
def test_h_score_equals_the_papers_formula(shape):
    X, y = sample(*shape)
    assert h_score(X, y) == pytest.approx(slow_h_score(X, y), abs=1e-8)


def test_h_score_of_one_feature_is_the_share_of_variance_between_the_classes():
    x, y = np.array([[0.0], [2.0], [4.0], [6.0]]), ["a", "a", "b", "b"]
    assert h_score(x, y) == pytest.approx(4 / 5)  # class means 1 and 5 around 3: 4; all: (9 + 1 + 1 + 9) / 4 = 5
    assert h_score_regularised(x, y) == pytest.approx(4 / 5)  # nothing to shrink to


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 20), st.integers(0, 30))
def test_h_score_is_classes_minus_1_for_any_labels_up_to_one_sample_more_than_features(seed, n_classes, more):
    n = n_classes + 2
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, n - 1 + more)), rng.permutation(np.arange(n) % n_classes)
    scores = score_features(X, y)
    assert scores.saturated
    assert scores.h_score == pytest.approx(n_classes - 1)
    assert not score_features(X[:, : n - 2], y).saturated


@pytest.mark.parametrize("shape", [*SHAPES, (60, 200)])
def test_h_score_regularised_equals_its_formula_with_scikit_learns_covariance(shape):
    X, y = sample(*shape)
    shrunk = LedoitWolf().fit(X)
    means = np.array([X[y == name].mean(axis=0) for name in y])
    expected = np.trace(np.linalg.inv(shrunk.covariance_) @ ((1 - shrunk.shrinkage_) * np.cov(means.T, bias=True)))
    assert 0 < shrunk.shrinkage_ < 1
    assert h_score_regularised(X, y) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("d", [1, 2, 6])
def test_h_score_of_chance_is_the_mean_over_all_orders_of_the_labels(d):
    X, y = sample(6, d)
    mean = np.mean([h_score(X, order) for order in itertools.permutations(y)])
    assert score_features(X, y).h_score_of_chance == pytest.approx(mean)


def test_h_score_regularised_of_noise_is_small_where_h_score_saturates():
    X, y = sample(60, 500, n_classes=3, shift=0.0)
    assert h_score(X, y) == pytest.approx(2)
    assert h_score_regularised(X, y) < 0.5


# ---- TransRate


@pytest.mark.parametrize("shape", [*SHAPES, (31, 10)])
@pytest.mark.parametrize("epsilon", [1e-4, 0.3])
def test_transrate_equals_the_papers_formula(shape, epsilon):
    X, y = sample(*shape)
    Z = X - X.mean(axis=0)

    def rate(Z):
        return 0.5 * np.linalg.slogdet(np.eye(Z.shape[1]) + Z.T @ Z / (len(Z) * epsilon))[1]

    expected = rate(Z) - sum(np.mean(y == name) * rate(Z[y == name]) for name in range(3))
    assert transrate(X, y, epsilon=epsilon) == pytest.approx(expected, rel=1e-8)
    if epsilon == 1e-4:
        assert transrate(X, y) == transrate(X, y, epsilon=1e-4)


def test_transrate_of_a_hand_worked_case():
    """Each class on an axis of its own, at -1 and 1: the covariance is I / 2, that of a class 1 on its axis."""
    X = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]]) + 5
    for epsilon in (1e-4, 1.0):
        expected = np.log(1 + 0.5 / epsilon) - 0.5 * np.log(1 + 1 / epsilon)
        assert transrate(X, [0, 0, 1, 1], epsilon=epsilon) == pytest.approx(expected)
    # On one axis the classes lie at -1 and 1: alone they need as much as together, for their mean is not taken away.
    assert transrate([[-1.0], [-1.0], [1.0], [1.0]], [0, 0, 1, 1]) == 0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_transrate_needs_a_positive_epsilon(epsilon):
    with pytest.raises(InputError, match="epsilon"):
        transrate([[0.0], [1.0]], [0, 1], epsilon=epsilon)


# ---- LEEP and NCE


def test_leep_equals_a_plain_loop_over_the_papers_sums():
    P, y = distributions(25, 4), np.random.default_rng(1).integers(0, 3, 25)
    joint = np.zeros((3, 4))
    for i in range(25):
        for z in range(4):
            joint[y[i], z] += P[i, z] / 25
    total = 0.0
    for i in range(25):
        total += np.log(sum(joint[y[i], z] / joint[:, z].sum() * P[i, z] for z in range(4)))
    assert leep(P, y) == pytest.approx(total / 25, abs=1e-12)


def test_leep_of_a_hand_worked_case():
    # p(y=a, z) = (0.5, 0) and (0.25, 0.25) for b, so p(a | z) = (2/3, 0) and p(b | z) = (1/3, 1).
    assert leep([[1, 0], [0.5, 0.5]], ["a", "b"]) == pytest.approx((np.log(2 / 3) + np.log(0.5 / 3 + 0.5)) / 2)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 30), st.integers(1, 6))
def test_leep_and_nce_keep_their_bounds(seed, n, n_source):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    P = distributions(n, n_source, seed=seed)
    decided = P.argmax(axis=1)
    score = leep(P, y)
    assert score <= 1e-12
    # Nguyen et al., property 1: LEEP is at least NCE plus the mean log probability of the decision, for any decision.
    joint = np.array([[np.sum(P[y == k, z]) for z in range(n_source)] for k in (0, 1)])
    conditional = joint / joint.sum(axis=0)
    assert score >= np.mean(np.log(conditional[y, decided] * P[np.arange(n), decided])) - 1e-12
    assert leep(np.eye(n_source)[decided], y) == pytest.approx(nce(decided, y), abs=1e-12)
    assert leep(np.full((n, n_source), 1 / n_source), y) == pytest.approx(-entropy(y))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd")), min_size=2, max_size=40))
def test_nce_is_mutual_information_minus_the_labels_entropy(pairs):
    y, z = [label for label, _ in pairs], [name for _, name in pairs]
    if len(set(y)) == 1:
        with pytest.raises(LabelsError):
            nce(z, y)
    else:
        assert nce(z, y) == pytest.approx(mutual_info_score(y, z) - entropy(y), abs=1e-12)


def test_nce_of_hand_worked_cases():
    assert nce(["x", "x", "y", "y"], [0, 0, 1, 1]) == 0
    assert nce(["x", "y", "x", "y"], [0, 0, 1, 1]) == pytest.approx(-np.log(2))
    assert nce([7, 7, 7, 8], [0, 0, 1, 1]) == pytest.approx(0.75 * (2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))


@pytest.mark.parametrize("row", [[0.5, 0.6], [-0.1, 1.1], [2.0, 3.0]])
def test_leep_wants_distributions_and_names_the_row(row):
    with pytest.raises(InputError, match=r"row 1 .*softmax"):
        leep([[0.5, 0.5], row], [0, 1])


# ---- what holds for all


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(SHAPES), st.sampled_from(OF_FEATURES))
def test_rotation_order_empty_columns_and_names_change_no_score(seed, shape, score):
    X, y = sample(*shape, seed=seed)
    expected = pytest.approx(score(X, y), rel=1e-7, abs=1e-7)
    rng = np.random.default_rng(seed)
    rotation = ortho_group.rvs(shape[1], random_state=seed)
    order = rng.permutation(len(X))
    assert score(X @ rotation, y) == expected
    assert score(X[order], y[order]) == expected
    assert score(X[:, rng.permutation(shape[1])], y) == expected
    assert score(X, np.array(["zebra", "ant", "bee"])[y]) == expected
    if score is not h_score_regularised:  # which counts features to know their mean variance
        assert score(np.pad(X, ((0, 0), (3, 40))), y) == expected
    if score is not transrate:  # whose epsilon has the unit of a squared feature
        assert score(1e3 * X, y) == expected
    if score is not logme:  # whose model has no intercept
        assert score(X + rng.normal(size=shape[1]), y) == expected


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_any_invertible_map_leaves_the_h_score(seed):
    X, y = sample(40, 6, seed=seed)
    A = np.random.default_rng(seed).normal(size=(6, 6)) + 4 * np.eye(6)
    assert h_score(X @ A, y) == pytest.approx(h_score(X, y), rel=1e-6)


@pytest.mark.parametrize("score", [logme, h_score, h_score_regularised])  # transrate need not, see its hand-worked case
@pytest.mark.parametrize("shape", SHAPES)
def test_better_separated_classes_score_higher(score, shape):
    rng = np.random.default_rng(0)
    y = np.arange(shape[0]) % 2
    noise, centre = rng.normal(size=shape), rng.normal(size=(2, shape[1]))[y]
    values = [score(noise + shift * centre, y) for shift in (0.0, 2.0, 8.0)]
    if score is h_score and shape[0] <= shape[1]:
        assert values == pytest.approx([1, 1, 1])
    else:
        assert values == sorted(values)
        assert values[2] > values[0]


@pytest.mark.parametrize("score", [h_score, h_score_regularised, transrate])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_features_that_do_not_vary_score_nothing(score, constant):
    assert score(np.full((9, 4), constant), np.arange(9) % 3) == 0
    x, y = sample(9, 2)
    assert score(np.column_stack([x, np.full(9, constant)]), y) == pytest.approx(
        score(np.column_stack([x, np.zeros(9)]), y), rel=1e-9
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_all_at_once_are_the_single_scores(shape):
    X, y = sample(*shape)
    scores = score_features(X, y)
    assert (scores.logme, scores.h_score, scores.h_score_regularised, scores.transrate) == tuple(
        score(X, y) for score in OF_FEATURES
    )
    assert scores.saturated == (shape[0] <= shape[1])


@pytest.mark.parametrize("score", OF_FEATURES)
def test_float32_and_labels_of_any_kind_are_taken(score):
    X, y = sample(20, 5, n_classes=2)
    X = X.astype(np.float32)
    expected = score(X.astype(np.float64), y)
    for labels in (y == 1, y.tolist(), y + 0.5, np.array(["no", "yes"])[y], np.array(["no", "yes"], dtype=object)[y]):
        assert score(X, labels) == expected


@pytest.mark.parametrize("score", [*OF_FEATURES, leep])
def test_what_cannot_be_scored_is_refused_with_the_reason(score):
    X, y = np.full((4, 2), 0.5), [0, 1, 0, 1]
    with pytest.raises(LabelsError, match="only one class, 7"):
        score(X, [7] * 4)
    with pytest.raises(LabelsError, match="no samples"):
        score(X[:0], [])
    with pytest.raises(InputError, match="a label for each of 4 samples"):
        score(X, y[:3])
    with pytest.raises(InputError, match="expected"):
        score(X[0], y)
    with pytest.raises(InputError, match="expected"):
        score(X[:, :0], y)
    X[2, 1] = np.nan
    with pytest.raises(InputError, match="first in row 2"):
        score(X, y)


def test_nce_refuses_what_is_no_label_for_each_sample():
    with pytest.raises(InputError, match="a label for each of 3 samples"):
        nce([1, 2, 3], [0, 1])
    with pytest.raises(InputError, match="source_labels"):
        nce([[1, 2]], [0])
