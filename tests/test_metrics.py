"""This module tests the metrics of features and of pairs of images against closed forms and brute force."""

import itertools
import pickle

import numpy as np
import pytest
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

import score_sde as ss
from score_sde import metrics
from score_sde.metrics import Moments

RNG = np.random.default_rng(0)
D = 6
A = RNG.normal(size=(D, D))
S1, S2 = A @ A.T, np.diag(RNG.uniform(0.5, 2, D))
M1, M2 = RNG.normal(size=(2, D))


def test_the_frechet_distance_of_known_gaussians():
    eye, zero = np.eye(D), np.zeros(D)
    assert metrics.frechet_of_moments(zero, eye, M1, eye) == pytest.approx(M1 @ M1, rel=1e-12)
    assert metrics.frechet_of_moments(zero, 4 * eye, zero, 9 * eye) == pytest.approx(D, rel=1e-12)
    first, second = np.arange(1.0, D + 1), np.linspace(0, 2, D)  # one eigenvalue is 0
    rotation = linalg.qr(A)[0]
    commuting = [rotation @ np.diag(values) @ rotation.T for values in (first, second)]
    exact = ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert metrics.frechet_of_moments(zero, commuting[0], zero, commuting[1]) == pytest.approx(exact, rel=1e-7)


def test_the_frechet_distance_against_scipy_and_under_a_rotation():
    exact = ((M1 - M2) ** 2).sum() + np.trace(S1 + S2 - 2 * linalg.sqrtm(S1 @ S2).real)
    value = metrics.frechet_of_moments(M1, S1, M2, S2)
    assert value == pytest.approx(exact, rel=1e-9)
    assert metrics.frechet_of_moments(M2, S2, M1, S1) == pytest.approx(exact, rel=1e-9)
    rotation = linalg.qr(RNG.normal(size=(D, D)))[0]
    moved = [rotation @ m + 3 for m in (M1, M2)], [rotation @ S @ rotation.T for S in (S1, S2)]
    both = (moved[0][0], moved[1][0], moved[0][1], moved[1][1])
    assert metrics.frechet_of_moments(*both) == pytest.approx(exact, rel=1e-9)


def test_the_frechet_distance_of_fewer_examples_than_dimensions():
    """The nuclear norm of X Y^T of the centred features is tr (S1 S2)^(1/2) at any rank."""
    x, y = RNG.normal(size=(20, 50)), 1 + 2 * RNG.normal(size=(30, 50))
    a, b = (f - f.mean(axis=0) for f in (x, y))
    overlap = np.linalg.norm(a @ b.T, "nuc") / np.sqrt(19 * 29)
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() / 19 + (b**2).sum() / 29 - 2 * overlap
    assert metrics.frechet_distance(x, y) == pytest.approx(exact, rel=1e-6)
    assert abs(metrics.frechet_distance(x, x)) < 1e-5


def test_moments_add_up_and_are_those_of_numpy():
    x = RNG.normal(5, 2, size=(100, D)).astype(np.float32)
    parts = [Moments.of(part) for part in np.array_split(x, 7)]
    whole = sum(parts, start=Moments.zero(D))
    np.testing.assert_allclose(whole.mean, x.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.cov, np.cov(x.astype(float), rowvar=False), rtol=1e-9, atol=1e-12)
    rest = whole - parts[0]
    np.testing.assert_allclose(
        rest.cov, np.cov(x[len(np.array_split(x, 7)[0]) :].astype(float), rowvar=False), rtol=1e-9
    )
    again = Moments.of_moments(whole.n, whole.mean, whole.cov)
    np.testing.assert_allclose(again.products, whole.products, rtol=1e-9)


def test_the_bias_and_its_jackknife():
    """For one Gaussian the mean distance is the closed form, the limit is 0, and the error that of trials."""
    scale = np.sqrt(1 / np.arange(1, 13))
    n, m, trials = 600, 1200, 200
    rng = np.random.default_rng(1)
    finite, jackknives = [], []
    for _ in range(trials):
        x, y = rng.normal(size=(n, 12)) * scale, rng.normal(size=(m, 12)) * scale
        finite.append(metrics.frechet_distance(y, x))
        blocks = [Moments.of(part) for part in np.array_split(x, 10)]
        jackknives.append(metrics.frechet_jackknife(np.zeros(12), np.diag(scale**2), blocks))
    error = np.std(finite) / np.sqrt(trials)
    assert abs(np.mean(finite) - metrics.frechet_bias(np.diag(scale**2), n, m)) < 4 * error + 0.02 * np.mean(finite)
    values = np.asarray([j.value for j in jackknives])
    error = values.std() / np.sqrt(trials)
    assert abs(values.mean() - metrics.frechet_bias(np.diag(scale**2), n)) < 4 * error + 0.02 * values.mean()
    limits = np.asarray([j.extrapolated for j in jackknives])
    assert abs(limits.mean()) < 4 * limits.std() / np.sqrt(trials) and values.mean() > 8 * abs(limits.mean())
    assert np.mean([j.bias for j in jackknives]) == pytest.approx(values.mean() - limits.mean())
    # The jackknife's variance is too large for a distance near 0, whose terms of first order vanish.
    assert 0.9 * limits.std() < np.mean([j.value.stderr for j in jackknives]) < 2 * limits.std()


def test_the_standard_error_of_a_frechet_distance_away_from_zero():
    rng = np.random.default_rng(2)
    shift = np.full(D, 0.5)
    results = [
        metrics.frechet_jackknife(
            np.zeros(D), np.eye(D), [Moments.of(part) for part in np.array_split(shift + rng.normal(size=(500, D)), 10)]
        )
        for _ in range(300)
    ]
    limits = np.asarray([r.extrapolated for r in results])
    assert abs(limits.mean() - shift @ shift) < 4 * limits.std() / np.sqrt(300)
    assert np.sqrt(np.mean([r.value.stderr**2 for r in results])) == pytest.approx(limits.std(), rel=0.2)


def raw_moments(x):
    """Return the first three raw moment tensors of rows."""
    n = len(x)
    return x.mean(axis=0), x.T @ x / n, np.einsum("ni,nj,nk->ijk", x, x, x) / n


def test_the_kernel_distance_is_a_difference_of_moments():
    """The biased estimator is 3 |dM1|^2 / d + 3 |dM2|^2 / d^2 + |dM3|^2 / d^3; the unbiased one omits equal pairs."""
    x, y = RNG.normal(size=(40, D)), 0.5 + RNG.normal(size=(50, D)) ** 2
    changes = [a - b for a, b in zip(raw_moments(x), raw_moments(y), strict=True)]
    biased = sum(c * (change**2).sum() / D**i for i, c, change in zip((1, 2, 3), (3, 3, 1), changes, strict=True))

    def k(a, b):
        return (a @ b / D + 1) ** 3

    own = sum(
        sum(k(a, a) for a in s) / n**2 - sum(k(a, b) for a, b in itertools.permutations(s, 2)) / (n * n * (n - 1))
        for s, n in ((x, 40), (y, 50))
    )
    assert metrics.kernel_distance(x, y) == pytest.approx(biased - own, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_kernel_distance_is_unbiased_with_the_right_standard_error(shift):
    """The mean over trials is the population value; the standard error is the spread of trials, for one law too."""
    rng = np.random.default_rng(3)
    d, n, m, trials = 4, 60, 90, 1500
    large = rng.normal(size=(400_000, d))
    mean = np.full(d, shift)
    changes = [a - b for a, b in zip(raw_moments(large), raw_moments(large + mean), strict=True)]
    exact = sum(c * (change**2).sum() / d**i for i, c, change in zip((1, 2, 3), (3, 3, 1), changes, strict=True))
    results = [metrics.kernel_distance(rng.normal(size=(n, d)), mean + rng.normal(size=(m, d))) for _ in range(trials)]
    values = np.asarray(results)
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(trials)
    assert np.sqrt(np.mean([r.stderr**2 for r in results])) == pytest.approx(values.std(), rel=0.12)


def test_blocks_and_subsets_of_the_kernel_distance():
    x, y = RNG.normal(size=(90, D)), 0.3 + RNG.normal(size=(60, D))
    blocks = [metrics.kernel_distance(x[30 * i : 30 * (i + 1)], y[20 * i : 20 * (i + 1)]) for i in range(3)]
    whole = metrics.kernel_distance(x, y, block_size=30)
    assert whole == pytest.approx(np.mean(blocks), rel=1e-10)
    assert whole.stderr == pytest.approx(np.sqrt(sum(b.stderr**2 for b in blocks)) / 3, rel=1e-10)
    mean, _ = metrics.kernel_subsets(x, y, subsets=300, subset_size=40, seed=0)
    assert mean == pytest.approx(metrics.kernel_distance(x, y), abs=4 * metrics.kernel_distance(x, y).stderr / 3)
    everything, spread = metrics.kernel_subsets(x[:60], y, subsets=3, subset_size=60)
    assert everything == pytest.approx(metrics.kernel_distance(x[:60], y), rel=1e-9) and spread < 1e-12


def test_the_inception_score_of_known_classifiers():
    n, classes, error = 2000, 10, 0.1
    constant = np.tile(RNG.normal(size=classes), (n, 1))
    assert metrics.inception_score(constant) == pytest.approx(1, abs=1e-12)
    labels = np.arange(n) % classes
    sure = np.where(np.arange(classes) == labels[:, None], 0.0, -800.0)
    assert metrics.inception_score(sure, splits=1) == pytest.approx(classes, rel=1e-12)
    noisy = np.log(np.where(np.arange(classes) == labels[:, None], 1 - error, error / (classes - 1)))
    assert metrics.inception_score(noisy, splits=1) == pytest.approx(5.79954613, abs=1e-8)
    # In sorted order each split has one class; a shuffled order repairs the splits.
    in_order = noisy[np.argsort(labels)]
    assert metrics.inception_score(in_order, seed=None) == pytest.approx(1, abs=1e-9)
    shuffled = metrics.inception_score(in_order)
    assert 5.5 < shuffled < 5.79954613 and 0 < shuffled.stderr < 0.05


def test_precision_and_recall_against_scikit_learn():
    x, y = RNG.normal(size=(300, D)), 0.7 * RNG.normal(size=(200, D)) + 0.3
    for k in (1, 3):
        result = metrics.precision_recall(x, y, k=k)
        for value, tested, of in ((result.precision, y, x), (result.recall, x, y)):
            tree = NearestNeighbors(algorithm="brute").fit(of)
            radius = tree.kneighbors(of, k + 1)[0][:, k]
            inside = np.linalg.norm(tested[:, None] - of, axis=2) <= radius
            assert value == pytest.approx(inside.any(axis=1).mean())
            assert value.stderr == pytest.approx(np.sqrt(value * (1 - value) / len(tested)))
    assert metrics.precision_recall(x, x) == (1, 1)
    assert metrics.precision_recall(x, x + 100) == (0, 0)


def test_density_and_coverage_have_their_expected_values():
    """For one continuous distribution E density = 1 and E coverage = 1 - prod (n - 1 - j) / (n + m - 1 - j)."""
    n, m, trials = 100, 150, 400
    rng = np.random.default_rng(4)
    results = np.asarray(
        [metrics.density_coverage(rng.normal(size=(n, 3)), rng.normal(size=(m, 3))) for _ in range(trials)]
    )
    exact = 1 - np.prod([(n - 1 - j) / (n + m - 1 - j) for j in range(5)])
    error = results.std(axis=0) / np.sqrt(trials)
    assert abs(results[:, 0].mean() - 1) < 4 * error[0]
    assert abs(results[:, 1].mean() - exact) < 4 * error[1]


def test_points_on_a_boundary_are_outside_for_density():
    real, fake = np.asarray([[0.0], [1.0], [3.0]]), np.asarray([[1.0], [2.0]])
    # The balls of radius 1, 1 and 2 (k = 1) contain: 1 (of 1.0), 2 (of 3.0); the distances 1 and 2 are boundaries.
    density, coverage = metrics.density_coverage(real, fake, k=1)
    assert density == pytest.approx(1.0) and coverage == pytest.approx(2 / 3)
    assert metrics.precision_recall(real, fake, k=1).precision == 1


def test_nearest_training_examples_and_authenticity():
    training = RNG.normal(size=(500, D))
    queries = RNG.normal(size=(300, D))
    number, distance = metrics.nearest(queries, training)
    tree = NearestNeighbors(n_neighbors=1).fit(training)
    exact = tree.kneighbors(queries)
    np.testing.assert_array_equal(number, exact[1][:, 0])
    np.testing.assert_allclose(distance, exact[0][:, 0], rtol=1e-9)
    assert metrics.authenticity(training, training + 1e-3 * RNG.normal(size=training.shape)) < 0.02
    fresh = metrics.authenticity(training, queries)
    assert abs(fresh - 0.5) < 4 * fresh.stderr + 0.05


def test_peak_signal_to_noise_ratio():
    x = RNG.integers(0, 256, (3, 8, 8, 2)).astype(np.uint8)
    y = np.where(x > 127, x - 16, x + 16).astype(np.uint8)
    np.testing.assert_allclose(metrics.psnr(x, y, 255), 20 * np.log10(255 / 16), rtol=1e-5)
    assert np.isinf(metrics.psnr(x, x, 255)).all()


def test_structural_similarity_of_known_images():
    """Equal images have 1; a constant difference of flat images leaves the luminance term."""
    x = RNG.uniform(0, 255, (2, 20, 24, 3)).astype(np.float32)
    np.testing.assert_allclose(metrics.ssim(x, x, 255), 1, atol=1e-6)
    a, b = np.full((1, 12, 12, 1), 100.0), np.full((1, 12, 12, 1), 140.0)
    c1 = (0.01 * 255) ** 2
    assert metrics.ssim(a, b, 255)[0] == pytest.approx((2 * 100 * 140 + c1) / (100**2 + 140**2 + c1), rel=1e-5)


FEATURES = RNG.normal(size=(20, D))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.frechet_distance(FEATURES, FEATURES[:, :3]), "real features have 6 dimensions and fake .* 3"),
        (lambda: metrics.frechet_distance(FEATURES, FEATURES[:1]), "fake features have 1 rows; expected at least 2"),
        (lambda: metrics.frechet_distance(FEATURES[0], FEATURES), r"real features have shape \(6,\)"),
        (lambda: metrics.frechet_distance(FEATURES, np.full((3, D), np.nan)), "not finite in row 0"),
        (lambda: metrics.frechet_of_moments(M1, S1[:3], M2, S2), r"shapes \(6,\) and \(3, 6\)"),
        (lambda: metrics.frechet_of_moments(M1, S1, M2[:3], S2[:3, :3]), "features of one network"),
        (lambda: metrics.kernel_distance(FEATURES, FEATURES[:3]), "expected at least 4"),
        (lambda: metrics.kernel_distance(FEATURES, FEATURES[:5], block_size=4), "make 5 blocks"),
        (lambda: metrics.kernel_subsets(FEATURES, FEATURES, subset_size=30), "subset_size is 30"),
        (lambda: metrics.inception_score(FEATURES, splits=11), "20 logits make 11 splits"),
        (lambda: metrics.precision_recall(FEATURES, FEATURES[:3]), "expected at least 4"),
        (lambda: metrics.precision_recall(FEATURES, FEATURES, k=0), "k is 0"),
        (lambda: metrics.density_coverage(np.ones((20, D)), FEATURES), "no ball has a size"),
        (lambda: metrics.psnr(np.ones((1, 4)), np.ones((1, 5)), 1.0), "expected equal shapes"),
        (lambda: metrics.psnr(np.ones((1, 4)), np.ones((1, 4)), 0), "data_range is 0"),
        (lambda: metrics.ssim(np.ones((1, 8, 8, 1)), np.ones((1, 8, 8, 1)), 1.0), "at least 11 pixels"),
        (lambda: Moments.zero(3).mean, "no examples"),
    ],
)
def test_wrong_features_are_refused(call, words):
    with pytest.raises(ss.InputError, match=words):
        call()


def test_an_estimate_is_a_number_that_knows_its_error():
    estimate = metrics.Estimate(1.5, 0.25)
    again = pickle.loads(pickle.dumps(estimate))
    assert again == 1.5 and again.stderr == 0.25 and repr(again) == "1.5 +- 0.25" and estimate.value + 1 == 2.5
