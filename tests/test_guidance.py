"""Guidance follows its formula on a mixture whose conditional scores are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss

MIXTURE = ([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], [0.5, 0.5])


def test_weights_interpolate_and_extrapolate_both_halves(x64, sde):
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, t = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2))), 0.4
    cond = {"label": jnp.array([0, 1, 0, 1])}
    given, without = model.predict(x, t, cond), model.predict(x, t)
    for weight, from_given in ((0.0, 0), (1.0, 1), (3.0, 3), (-1.0, -1)):
        guided = ss.ClassifierFree(model, weight).predict(x, t, cond)
        for half in ("x0", "noise"):
            got, c, u = (getattr(prediction, half) for prediction in (guided, given, without))
            np.testing.assert_allclose(got, u + from_given * (c - u), rtol=1e-10, atol=1e-12)
        # The halves of a guided prediction add up to x_t.
        np.testing.assert_allclose(sde.alpha(t) * guided.x0 + sde.sigma(t) * guided.noise, x, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ss.ClassifierFree(model, 3.0).score(x, t), model.score(x, t), rtol=1e-10)
    np.testing.assert_array_equal(ss.ClassifierFree(model, 1.0).score(x, t, cond), model.score(x, t, cond))


def test_guided_samples_have_the_class_asked_for(sde):
    model = ss.ClassifierFree(ss.GaussianMixture(sde, *MIXTURE), 1.0)
    label = np.arange(400) % 2
    grid = ss.time_grid.default(sde, 60)
    x = ss.sample(model, ss.Ancestral(), grid, (2,), n=400, seed=0, cond={"label": label}).x
    assert np.array_equal(x[:, 0] > 0, label == 1)
    side = x[:, 0] * np.where(label == 1, 1, -1)
    assert abs(side.mean() - 2) < 0.15 and abs(side.std() - 0.5) < 0.1


def test_evaluations_are_counted_through_guides():
    """One guide makes two network evaluations per prediction, two guides make four; nfe includes the last denoising."""
    sde = ss.VP()
    model = ss.GaussianMixture(sde, *MIXTURE)
    once, twice = ss.ClassifierFree(model, 2.0), ss.ClassifierFree(ss.ClassifierFree(model, 2.0), 1.5)
    cond, grid = {"label": np.arange(3) % 2}, ss.time_grid.uniform(sde, 5)
    for sampler, evaluations in ((ss.Ancestral(), 1), (ss.Heun(), 2), (ss.DPMSolverPP2S(), 2), (ss.LMS(), 1)):
        for denoiser, cost in ((model, 1), (once, 2), (twice, 4)):
            nfe = ss.sample(denoiser, sampler, grid, (2,), n=3, seed=0, cond=cond).nfe
            assert nfe.tolist() == [cost * (5 * evaluations + 1)] * 3
    pair = ss.PredictorCorrector(ss.DDIM(), ss.Langevin(steps=3))
    assert ss.sample(once, pair, grid, (2,), n=3, seed=0, cond=cond).nfe.tolist() == [2 * (5 * 4 + 1)] * 3


@pytest.mark.slow
def test_the_adaptive_solves_count_guides_too():
    sde = ss.VP()
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, cond = jnp.asarray([[1.0, 0.2], [-1.5, 0.1]]), {"label": np.arange(2)}
    plain = ss.log_prob(model, x, None, cond=cond, trace="exact")
    for weight, cost in ((1.0, 1), (1 + 1e-6, 2)):  # at weight 1 only the conditional prediction is evaluated
        guided = ss.log_prob(ss.ClassifierFree(model, weight), x, None, cond=cond, trace="exact")
        np.testing.assert_allclose(guided.value, plain.value, atol=1e-3)
        np.testing.assert_array_equal(guided.nfe, cost * (1 + 6 * (guided.accepted + guided.rejected)))
    grid = ss.time_grid.uniform(sde, 1)
    for sampler in (ss.ProbabilityFlow(1e-3, 1e-3), ss.AdaptiveReverseSDE(0.1, 0.1)):
        options = dict(n=2, seed=0, cond=cond, denoise=False)
        one = ss.sample(model, sampler, grid, (2,), **options)
        two = ss.sample(ss.ClassifierFree(model, 1 + 1e-6), sampler, grid, (2,), **options)
        np.testing.assert_allclose(two.nfe, 2 * one.nfe, rtol=0.05)


def test_a_guide_leaves_out_what_it_is_told(sde):
    """A guide leaves out optional conditions, by default all of them; other names are refused."""
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, cond = jnp.ones((2, 2)), {"label": jnp.array([0, 1])}
    by_default, by_name = (ss.ClassifierFree(model, 3.0, drop=drop).score(x, 0.4, cond) for drop in (None, ["label"]))
    np.testing.assert_array_equal(by_default, by_name)
    nothing = ss.ClassifierFree(model, 3.0, drop=()).score(x, 0.4, cond)
    np.testing.assert_allclose(nothing, model.score(x, 0.4, cond), rtol=1e-5)
    with pytest.raises(ss.InputError, match=r"drop=\['text'\]; expected optional conditions .* are: label"):
        ss.ClassifierFree(model, 3.0, drop=["text"])
    plain = ss.NetworkDenoiser(sde, ss.X0(), lambda params, x, *_, keys: x, ())
    with pytest.raises(ss.InputError, match="which are: none"):
        ss.ClassifierFree(plain, 3.0)


THREE = ([0.2, 0.5, 0.3], [[-2.0, 0.5], [1.0, 0.0], [0.5, -1.5]], [0.5, 0.4, 0.7])
POINTS = np.random.default_rng(1).standard_normal((5, 2))
LABELS = np.array([0, 1, 2, 1, 0])


def halves(prediction):
    return np.stack([prediction.x0, prediction.noise])


def add_up(sde, prediction, x, t):
    """Return alpha x_0 + sigma noise - x_t."""
    alpha, sigma = (np.asarray(value).reshape(-1, *[1] * (x.ndim - 1)) for value in (sde.alpha(t), sde.sigma(t)))
    return np.abs(alpha * prediction.x0 + sigma * prediction.noise - x).max()


class Classified(ss.Denoiser):
    """`Classified` is a mixture with two conditions: `side` allows components 0, 1 or 2; `other` allows one too."""

    inner: ss.GaussianMixture

    @property
    def reads(self):
        return ss.Conditions(side=ss.Label(3), other=ss.Label(3))

    def predict(self, x, t, cond=None, *, keys=None):
        """Predict the mean of the predictions of both components, so that both conditions matter."""
        given = cond or {}
        total = [0, 0]
        for name in ("side", "other"):
            inner = {"label": given[name]} if name in given else None
            if inner and name in (given.get("absent") or {}):
                inner["absent"] = {"label": given["absent"][name]}
            one = self.inner.predict(x, t, inner)
            total = [total[0] + one.x0 / 2, total[1] + one.noise / 2]
        return ss.Prediction(*total)


@pytest.fixture
def three(sde):
    return ss.GaussianMixture(sde, *THREE)


def test_an_interval_guides_inside_only(x64):
    """Guidance acts for lo < sigma / alpha <= hi, at one time and at one time per example, and is counted there."""
    sde = ss.EDM(sigma_max=20.0)  # sigma / alpha is t
    model = ss.GaussianMixture(sde, *THREE)
    guide, cond = ss.ClassifierFree(model, 3.0, interval=(0.5, 2.0)), {"label": jnp.asarray(LABELS)}
    x, everywhere = jnp.asarray(POINTS), ss.ClassifierFree(model, 3.0)
    for t, inside in ((0.5, False), (0.5001, True), (2.0, True), (2.0001, False)):
        expected = everywhere if inside else model
        for predict in (guide.predict, jax.jit(lambda *given: guide.predict(*given))):
            np.testing.assert_allclose(
                halves(predict(x, t, cond)), halves(expected.predict(x, t, cond)), rtol=1e-12, atol=1e-14
            )
        assert int(guide.evaluations(t)) == 1 + inside
    times = jnp.asarray([0.1, 0.7, 2.0, 3.0, 1.0])
    mixed = halves(guide.predict(x, times, cond))
    one_by_one = [halves(guide.predict(x[i : i + 1], float(times[i]), {"label": LABELS[i : i + 1]})) for i in range(5)]
    np.testing.assert_allclose(mixed, np.concatenate(one_by_one, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(guide.evaluations(times), [1, 2, 2, 1, 2])
    # Euler's step from t evaluates at t only: 2 of the 4 times are inside, and the last denoising is outside.
    grid = np.array([20.0, 2.0, 1.0, 0.4, 0.01])
    nfe = ss.sample(guide, ss.DDIM(), grid, (2,), n=2, seed=0, cond={"label": LABELS[:2]}).nfe
    assert nfe.tolist() == [1 + 2 + 2 + 1 + 1] * 2


def test_weight_1_is_the_conditional_network_to_the_last_bit(sde):
    network = ss.networks.DDPMpp(
        (8, 8, 1), channels=8, multipliers=(1,), blocks=1, attention=(), conditions=dict(label=ss.Label(10))
    )
    params = jax.tree.map(lambda leaf: leaf + 0.03, network.init(jax.random.key(0)))
    model = ss.NetworkDenoiser(sde, ss.Noise(), network, params)
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    cond = {"label": jnp.array([1, 7, 3])}
    for weight in (1.0, 1, jnp.ones(())):
        guided = ss.ClassifierFree(model, weight)
        np.testing.assert_array_equal(halves(guided.predict(x, 0.4, cond)), halves(model.predict(x, 0.4, cond)))
        np.testing.assert_array_equal(guided.score(x, 0.4, cond), model.score(x, 0.4, cond))
    for weight in (0.0, 2.5):  # one batch of 2 n rows is two batches of n rows, up to rounding
        u, c = (halves(model.predict(x, 0.4, given)) for given in (None, cond))
        guided = halves(ss.ClassifierFree(model, weight).predict(x, 0.4, cond))
        np.testing.assert_allclose(guided, u + weight * (c - u), rtol=1e-4, atol=1e-4)
    assert np.abs(c - u).max() > 1e-3


def test_one_weight_per_example(x64, three):
    guide = ss.ClassifierFree(three, "strength")
    assert guide.reads["strength"].required and set(guide.reads) == {"label", "strength"}
    weights = np.array([0.0, 1.0, 2.0, -1.0, 4.0])
    cond = {"label": LABELS, "strength": weights}
    got = halves(guide.predict(jnp.asarray(POINTS), 0.4, jax.tree.map(jnp.asarray, cond)))
    for i, weight in enumerate(weights):
        one = ss.ClassifierFree(three, weight).predict(
            jnp.asarray(POINTS[i : i + 1]), 0.4, {"label": jnp.asarray(LABELS[i : i + 1])}
        )
        np.testing.assert_allclose(got[:, i : i + 1], halves(one), rtol=1e-9, atol=1e-12)
    with pytest.raises(ss.InputError, match="cond has no 'strength', which is required"):
        guide.score(POINTS, 0.4, {"label": LABELS})


def test_a_negative_condition_takes_the_place_of_none(x64, three):
    guide = ss.ClassifierFree(three, 3.0, negative="unlike")
    x, unlike = jnp.asarray(POINTS), np.array([1, 0, 1, 2, 2])
    c, n, u = (halves(three.predict(x, 0.4, given)) for given in ({"label": LABELS}, {"label": unlike}, None))
    cond = {"label": LABELS, "unlike": unlike}
    np.testing.assert_allclose(halves(guide.predict(x, 0.4, cond)), n + 3 * (c - n), rtol=1e-9, atol=1e-12)
    absent = np.array([True, False, True, False, False])
    some = np.where(absent[:, None], u, n)
    got = halves(guide.predict(x, 0.4, cond | {"absent": {"unlike": absent}}))
    np.testing.assert_allclose(got, some + 3 * (c - some), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(halves(guide.predict(x, 0.4, {"label": LABELS})), u + 3 * (c - u), rtol=1e-9, atol=1e-12)
    # Without a condition the guide still moves away from the negative one.
    np.testing.assert_allclose(
        halves(guide.predict(x, 0.4, {"unlike": unlike})), n + 3 * (u - n), rtol=1e-9, atol=1e-12
    )


def test_several_conditions_have_a_weight_each(x64, sde, three):
    """The prediction is u + sum_i w_i (c_i - u), in one batch of n + 1 parts."""
    two = Classified(sde, three)
    x, other = jnp.asarray(POINTS), np.array([2, 0, 1, 2, 1])
    guide = ss.ClassifierFree(two, {"side": 2.0, "other": -0.5})
    cond = {"side": LABELS, "other": other}
    u, a, b = (halves(two.predict(x, 0.4, given)) for given in (None, {"side": LABELS}, {"other": other}))
    expected = u + 2 * (a - u) - 0.5 * (b - u)
    got = guide.predict(x, 0.4, cond)
    np.testing.assert_allclose(halves(got), expected, rtol=1e-9, atol=1e-12)
    assert add_up(sde, got, x, 0.4) < 1e-9 and int(guide.evaluations(0.4)) == 3
    # Two values of one condition, each with a weight, one of them per example.
    guide = ss.ClassifierFree(three, {"label": 1.5, "also": "much"}, instead={"also": "label"})
    assert set(guide.reads) == {"label", "also", "much"}
    much = np.array([0.0, 1.0, 2.0, 3.0, -1.0])
    u, a, b = (halves(three.predict(x, 0.4, given)) for given in (None, {"label": LABELS}, {"label": other}))
    got = guide.predict(x, 0.4, {"label": LABELS, "also": other, "much": much})
    np.testing.assert_allclose(halves(got), u + 1.5 * (a - u) + much[:, None] * (b - u), rtol=1e-9, atol=1e-12)
    # Outside the interval all conditions hold together.
    outside = ss.ClassifierFree(two, {"side": 2.0, "other": -0.5}, interval=(1e6, 1e7))
    np.testing.assert_array_equal(halves(outside.predict(x, 0.4, cond)), halves(two.predict(x, 0.4, cond)))


def test_autoguidance_moves_from_the_bad_to_the_good(x64, sde, three):
    bad = ss.GaussianMixture(sde, [0.4, 0.4, 0.2], np.asarray(THREE[1]) * 0.8, 0.8)
    x, cond = jnp.asarray(POINTS), {"label": jnp.asarray(LABELS)}
    g, b = (halves(model.predict(x, 0.4, cond)) for model in (three, bad))
    for weight in (0.0, 1.0, 2.1):
        guided = ss.Guided(three, bad, weight).predict(x, 0.4, cond)
        np.testing.assert_allclose(halves(guided), b + weight * (g - b), rtol=1e-9, atol=1e-12)
        assert add_up(sde, guided, x, 0.4) < 1e-9
    guide = ss.Guided(three, bad, 2.1, interval=(0.0, 0.1))
    assert int(guide.evaluations(0.9)) == 1 and int(ss.Guided(three, bad, 2.1).evaluations(0.9)) == 2
    np.testing.assert_array_equal(halves(guide.predict(x, 0.9, cond)), halves(three.predict(x, 0.9, cond)))
    # The bad denoiser may read nothing; it then receives nothing.
    plain = ss.NetworkDenoiser(sde, ss.X0(), lambda params, x, t, cond, keys: 0.1 * x if cond is None else 1 / 0, ())
    assert set(ss.Guided(three, plain, 2.0).reads) == {"label"}
    ss.Guided(three, plain, 2.0).score(x, 0.4, cond)


def test_rescaling_restores_the_spread(x64, sde, three):
    x, cond = jnp.asarray(POINTS), {"label": jnp.asarray(LABELS)}
    guided, good = ss.ClassifierFree(three, 5.0), three.predict(x, 0.4, cond)
    before = guided.predict(x, 0.4, cond)
    for half in ("x0", "noise"):
        p, c = (np.asarray(getattr(prediction, half)) for prediction in (before, good))
        for amount in (0.0, 0.7, 1.0):
            after = ss.Rescaled(guided, amount, half).predict(x, 0.4, cond)
            factor = amount * c.std(axis=1, keepdims=True) / p.std(axis=1, keepdims=True) + 1 - amount
            np.testing.assert_allclose(getattr(after, half), factor * p, rtol=1e-9)
            assert add_up(sde, after, x, 0.4) < 1e-9
    assert int(ss.Rescaled(guided).evaluations(0.4)) == 2


def test_projected_guidance(x64, sde, three):
    x, cond = jnp.asarray(POINTS), {"label": jnp.asarray(LABELS)}
    guided = ss.ClassifierFree(three, 5.0)
    c, u = (np.asarray(three.predict(x, 0.4, given).x0) for given in (cond, None))
    same = ss.Projected(guided, eta=1.0).predict(x, 0.4, cond)
    np.testing.assert_allclose(halves(same), halves(guided.predict(x, 0.4, cond)), rtol=1e-8, atol=1e-10)
    across = ss.Projected(guided, norm=0.3).predict(x, 0.4, cond)
    change = np.asarray(across.x0) - c
    np.testing.assert_allclose((change * c).sum(axis=1), 0, atol=1e-9)
    d = (c - u) * np.minimum(1, 0.3 / np.linalg.norm(c - u, axis=1, keepdims=True))
    unit = c / np.linalg.norm(c, axis=1, keepdims=True)
    np.testing.assert_allclose(change, 4 * (d - (d * unit).sum(axis=1, keepdims=True) * unit), rtol=1e-8, atol=1e-10)
    assert add_up(sde, across, x, 0.4) < 1e-9 and np.abs(change).max() > 1e-3
    one = ss.Projected(ss.ClassifierFree(three, 1.0)).predict(x, 0.4, cond)
    np.testing.assert_array_equal(halves(one), halves(three.predict(x, 0.4, cond)))


def test_dynamic_thresholding(x64, sde):
    model = ss.GaussianMixture(sde, [1.0], np.full((1, 50), 0.9), 1.0)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((4, 50)) * [[3.0], [0.1], [1.0], [5.0]])
    before, after = model.predict(x, 0.3), ss.Thresholded(model, 0.9).predict(x, 0.3)
    sizes = np.maximum(np.quantile(np.abs(before.x0), 0.9, axis=1), 1)[:, None]
    np.testing.assert_allclose(after.x0, np.clip(before.x0, -sizes, sizes) / sizes, rtol=1e-12)
    assert add_up(sde, after, x, 0.3) < 1e-9 and np.abs(after.x0).max() <= 1 and sizes.max() > 1
    inside = ss.Thresholded(ss.GaussianMixture(sde, [1.0], np.zeros((1, 50)), 0.01))
    np.testing.assert_array_equal(inside.predict(x, 0.3).x0, inside.denoiser.predict(x, 0.3).x0)


def label_log_prob(model):
    """Return the exact log p(label | x_t) of a mixture, as a function of (x, t, cond)."""

    def log_prob(x, t, cond):
        def one(x, t, label):
            logits = model.marginal(t).component_log_prob(x[None])[0]
            return jax.nn.log_softmax(logits)[label]

        return jax.vmap(one)(x, t, cond["label"])

    return log_prob


def test_the_exact_classifier_gives_the_conditional_denoiser(x64, sde, three):
    """The posterior of the label is an exact classifier, so weight 1 gives the denoiser of the component."""
    x, cond = jnp.asarray(POINTS), {"label": jnp.asarray(LABELS)}
    unlabelled = Unlabelled(sde, three)
    guide = ss.ClassifierGuided(unlabelled, label_log_prob(three), 1.0, reads=dict(label=ss.Label(3)))
    assert set(guide.reads) == {"label"} and not unlabelled.reads
    for t in (0.05, 0.4, 0.9):
        np.testing.assert_allclose(
            halves(guide.predict(x, t, cond)), halves(three.predict(x, t, cond)), rtol=1e-8, atol=1e-9
        )
    w = 2.5
    guided = ss.ClassifierGuided(unlabelled, label_log_prob(three), w, reads=dict(label=ss.Label(3)))
    expected = three.score(x, 0.4) + w * (three.score(x, 0.4, cond) - three.score(x, 0.4))
    np.testing.assert_allclose(guided.score(x, 0.4, cond), expected, rtol=1e-8)
    assert add_up(sde, guided.predict(x, 0.4, cond), x, 0.4) < 1e-9 and int(guided.evaluations(0.4)) == 1


class Unlabelled(ss.Denoiser):
    """`Unlabelled` is a mixture that reads no label."""

    inner: ss.GaussianMixture

    def predict(self, x, t, cond=None, *, keys=None):
        assert cond is None
        return self.inner.predict(x, t)


def test_classifier_guidance_where_alpha_is_0():
    sde = ss.RectifiedFlow()
    three = ss.GaussianMixture(sde, *THREE)
    guide = ss.ClassifierGuided(Unlabelled(sde, three), label_log_prob(three), reads=dict(label=ss.Label(3)))
    x, cond = jnp.asarray(POINTS, jnp.float32), {"label": jnp.asarray(LABELS)}
    np.testing.assert_array_equal(halves(guide.predict(x, 1.0, cond)), halves(three.predict(x, 1.0)))
    drawn = ss.sample(guide, ss.DDIM(), ss.time_grid.uniform(sde, 50), (2,), n=5, seed=0, cond={"label": LABELS})
    assert np.isfinite(drawn.x).all()


def guides(model):
    """Yield one guide of each kind around a mixture of three components."""
    free = ss.ClassifierFree(model, 2.0, interval=(0.0, 5.0))
    yield free
    yield ss.Guided(model, ss.GaussianMixture(model.sde, [1.0] * 3, np.asarray(THREE[1]), 1.0), 1.7)
    yield ss.Rescaled(free)
    yield ss.Projected(free, norm=1.0)
    yield ss.Thresholded(free)
    yield ss.ClassifierGuided(model, label_log_prob(model), 2.0)


def test_results_do_not_depend_on_batch_or_devices():
    sde = ss.VP()
    model = ss.GaussianMixture(sde, *THREE)
    grid, cond = ss.time_grid.default(sde, 10), {"label": np.arange(8) % 3}
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    for guide in guides(model):
        options = dict(n=8, seed=0, cond=cond)
        whole = ss.sample(guide, ss.Ancestral(), grid, (2,), **options)
        for other in (dict(batch_size=3), dict(sharding=spread)):
            part = ss.sample(guide, ss.Ancestral(), grid, (2,), **options, **other)
            np.testing.assert_allclose(part.x, whole.x, rtol=2e-5, atol=2e-5)
            np.testing.assert_array_equal(part.nfe, whole.nfe)


def test_a_temperature_is_refused_with_a_guide():
    model = ss.GaussianMixture(ss.VP(), *THREE)
    grid = ss.time_grid.default(model.sde, 3)
    for guide in guides(model):
        with pytest.raises(ss.InputError, match=r"temperature is 0.9 with .*; expected 1"):
            ss.sample(ss.Clipped(guide, -3, 3), ss.DDIM(), grid, (2,), n=1, seed=0, temperature=0.9)
    assert ss.sample(ss.Clipped(model, -3, 3), ss.DDIM(), grid, (2,), n=1, seed=0, temperature=0.9).x.shape == (1, 2)


MODEL = ss.GaussianMixture(ss.VP(), *THREE)
OTHER = ss.GaussianMixture(ss.VP(beta_max=10.0), *THREE)
MIXED = ss.GaussianMixture(ss.VP(), *MIXTURE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ss.ClassifierFree(MODEL, 2.0, interval=(2, 1)), r"interval of ClassifierFree is \(2, 1\)"),
        (lambda: ss.ClassifierFree(MODEL, 2.0, interval=3.0), "interval of ClassifierFree is 3.0"),
        (lambda: ss.ClassifierFree(MODEL, [1.0, 2.0]), r"weight of ClassifierFree is \[1.0, 2.0\]"),
        (lambda: ss.ClassifierFree(MODEL, {}), "weight of ClassifierFree is {}"),
        (lambda: ss.ClassifierFree(MODEL, {"text": 1.0}), "expected a weight for each of some of the names label"),
        (lambda: ss.ClassifierFree(MODEL, "label"), "'label', a condition of the denoiser"),
        (lambda: ss.ClassifierFree(MODEL, 2.0, negative="label"), "condition 'label' of its own"),
        (lambda: ss.ClassifierFree(MODEL, 2.0, negative="no", drop=[]), "drop is empty"),
        (lambda: ss.ClassifierFree(MODEL, 2.0, instead={"also": "text"}), "instead of ClassifierFree names 'text'"),
        (lambda: ss.Guided(MODEL, OTHER, 2.0), r"bad of Guided is on .*; expected the SDE of the guided denoiser"),
        (lambda: ss.Guided(MODEL, "runs/small", 2.0), "bad of Guided is 'runs/small'; expected a denoiser"),
        (lambda: ss.Guided(MODEL, MODEL, None), "weight of Guided is None"),
        (lambda: ss.Rescaled(MODEL), "Rescaled got a GaussianMixture; expected it right after a guide with two"),
        (lambda: ss.Rescaled(ss.ClassifierFree(MODEL, 2.0), 1.5), "amount of Rescaled is 1.5"),
        (lambda: ss.Rescaled(ss.ClassifierFree(MODEL, 2.0), half="v"), "half of Rescaled is 'v'"),
        (lambda: ss.Projected(ss.ClassifierFree(MODEL, 2.0), norm=0), "norm of Projected is 0"),
        (lambda: ss.Projected(ss.ClassifierFree(MODEL, 2.0), eta=np.inf), "eta of Projected is inf"),
        (
            lambda: ss.Rescaled(ss.ClassifierFree(MODEL, {"label": 1.5, "also": 1.0}, instead={"also": "label"})),
            "Rescaled got a guide with several weights; expected one weight",
        ),
        (
            lambda: ss.Guided(MODEL, MIXED, 2.0),
            "bad of Guided reads 'label' as .*; expected the declaration of the good",
        ),
        (lambda: ss.Guided(MODEL, MODEL, np.inf), "weight of Guided is inf; expected one finite number"),
        (lambda: ss.ClassifierGuided(MODEL, lambda x, t, cond: (x, x)).score(POINTS, 0.4), "ClassifierGuided returned"),
        (lambda: ss.Thresholded(MODEL, 1.5), "quantile of Thresholded is 1.5"),
        (lambda: ss.ClassifierGuided(MODEL, None), "log_prob of ClassifierGuided is None"),
        (lambda: ss.ClassifierGuided(MODEL, lambda x, t, cond: x).score(POINTS, 0.4), r"returned shape \(5, 2\)"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ss.InputError, match=message):
        make()
