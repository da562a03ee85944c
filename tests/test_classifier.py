"""Classifiers of noised examples: the objective, the networks, accuracy by noise level, and their use as guides."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import score_sde as ss
from score_sde import data, networks
from score_sde.configs import cifar10, digits, fashion_mnist
from score_sde.denoisers import NetworkClassifier
from score_sde.experiment import Experiment, guides
from score_sde.jobs import evaluate, train
from score_sde.jobs.log import read_records
from score_sde.losses import Classification, WholeBatch

STD, DISTANCE = 0.5, 1.0


@dataclasses.dataclass(frozen=True)
class Bayes(networks.Network):
    """`Bayes` has the exact log-odds of two Gaussians at +-1; its input is x_t / alpha and its label -log_snr / 8."""

    shape: tuple[int, ...]
    classes: int = 2

    def init(self, key):
        return {"factor": jnp.ones(())}

    def apply(self, params, x, time_label, cond=None, *, keys=None):
        rho2 = jnp.exp(8 * time_label)  # sigma^2 / alpha^2
        first = x.reshape(len(x), -1)[:, 0]
        odds = 2 * DISTANCE * first / (STD**2 + rho2)
        return params["factor"] * jnp.stack([-odds / 2, odds / 2], axis=1)


class Scaled(ss.Parametrization):
    """`Scaled` gives the network x_t / alpha."""

    def input_scale(self, sde, t):
        return 1 / sde.alpha(t)

    def coefficients(self, sde, t):
        return (1.0, 0.0), (0.0, 1.0)


class TwoModes(data.Dataset):
    """`TwoModes` has points at +-1 with noise, and their signs as classes."""

    codec = ss.ContinuousCodec((1,))
    conditions = ss.Conditions(label=ss.Label(2))

    def source(self, split):
        rng = np.random.default_rng(split == "test")
        label = rng.integers(0, 2, 3000)
        values = (2 * label - 1) * DISTANCE + STD * rng.standard_normal(3000)
        return [
            {"values": np.asarray([value], np.float32), "label": np.int32(one)} for value, one in zip(values, label)
        ]


def classifier(sde, params=None):
    meaning = Scaled(time_label="quarter_log_sigma")
    return NetworkClassifier(sde, meaning, Bayes((1,)), params or {"factor": jnp.ones(())}, 2)


class Unnamed(TwoModes):
    """`Unnamed` has no classes."""

    conditions = ss.Conditions()


class Unlabelled(ss.Guide):
    """`Unlabelled` reads no class."""

    @property
    def reads(self):
        return ss.Conditions()

    def predict(self, x, t, cond=None, *, keys=None):
        return self.denoiser.predict(x, t)


def modes(sde):
    return ss.GaussianMixture(sde, [0.5, 0.5], [[-DISTANCE], [DISTANCE]], STD)


def bayes_accuracy(rho):
    return stats.norm.cdf(DISTANCE / math.sqrt(STD**2 + rho**2))


def conditional_entropy(rho):
    """Return the mean of -log p(label | x_t), by numerical integration over x_t / alpha given label 1."""
    std = math.sqrt(STD**2 + rho**2)

    def integrand(u):
        return stats.norm.pdf(u, DISTANCE, std) * np.logaddexp(0, -2 * DISTANCE * u / std**2)

    return integrate.quad(integrand, DISTANCE - 12 * std, DISTANCE + 12 * std)[0]


SDES = [ss.VP(), ss.VE(sigma_max=20.0), ss.EDM(), ss.RectifiedFlow()]


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_the_exact_classifier_gives_the_conditional_denoiser_at_weight_1(x64, sde):
    """The guided score is the label-conditional score to rounding, also for a classifier of another SDE."""
    model = modes(sde)
    x = jnp.linspace(-3, 3, 7)[:, None]
    label = jnp.asarray([0, 1, 0, 1, 0, 1, 1])
    for own in (sde, ss.VE(sigma_min=1e-4, sigma_max=1e4)):
        guided = ss.ClassifierGuided(Unlabelled(model), classifier(own).on(sde))
        for t in (0.1, 0.5, 0.9):
            t = sde.t_min + t * (sde.t_max - sde.t_min)
            wanted = model.score(x, t, {"label": label})
            np.testing.assert_allclose(guided.score(x, t, {"label": label}), wanted, rtol=1e-9, atol=1e-10)
    assert classifier(sde).on(sde) is not None and not hasattr(classifier(sde).on(sde), "classifier")
    absent = {"label": label, "absent": {"label": jnp.ones(7, bool)}}
    np.testing.assert_allclose(guided.score(x, t, absent), model.score(x, t), rtol=1e-9)


def test_log_probs_are_those_of_the_mixture(x64):
    sde, t = ss.VP(), 0.4
    x = jnp.linspace(-2, 2, 5)[:, None]
    spread = math.sqrt(float(sde.alpha(t)) ** 2 * STD**2 + float(sde.variance(t)))
    densities = np.stack(
        [stats.norm.pdf(np.asarray(x)[:, 0], sign * DISTANCE * float(sde.alpha(t)), spread) for sign in (-1, 1)], axis=1
    )
    exact = np.log(densities / densities.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(classifier(sde).log_probs(x, t), exact, rtol=1e-8)
    with pytest.raises(ss.InputError, match=r"x has shape \(5, 2\); expected"):
        classifier(sde).log_probs(jnp.ones((5, 2)), t)
    with pytest.raises(ss.InputError, match=r"t has shape \(3,\); expected \(\) or \(5,\)"):
        classifier(sde).log_probs(x, jnp.full(3, t))


def config(**more):
    return (
        dict(
            data=dict(name=f"{__name__}.TwoModes", batch_size=64),
            sde=dict(name="VP"),
            parametrization=dict(name=f"{__name__}.Scaled", time_label="quarter_log_sigma"),
            network=dict(name=f"{__name__}.Bayes"),
            objective=dict(name="Classification"),
            optimizer=dict(name="sgd", schedule=dict(name="constant_schedule", value=0.1), clip=None),
            train=dict(steps=8, log_every=4, eval_every=4, sample_every=0, checkpoint_every=4),
            eval=dict(what="HeldOutLoss, AccuracyPerLevel(levels=4)", batch_size=512),
        )
        | more
    )


def test_the_loss_is_the_conditional_entropy_and_the_accuracy_is_that_of_bayes():
    objective = Experiment.from_config(config()).objective
    sde, n = objective.parts.sde, 20_000
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, n)
    values = ((2 * label - 1) * DISTANCE + STD * rng.standard_normal(n)).astype(np.float32)[:, None]
    batch = {"values": values, "cond": {"label": jnp.asarray(label)}, "index": jnp.arange(n, dtype=jnp.uint32)}
    frozen, params = {"codec": objective.parts.codec}, {"network": {"factor": jnp.ones(())}}
    error = 4 / math.sqrt(n)
    for t in (0.05, 0.3, 0.6):
        rho = math.exp(-float(sde.log_snr(t)) / 2)
        arguments = (jnp.float32(t), params, batch, jax.random.key(1))
        loss = np.asarray(objective.at_time(*arguments, frozen=frozen))
        right = np.asarray(objective.right_at_time(*arguments, frozen=frozen))
        assert loss.mean() == pytest.approx(conditional_entropy(rho), abs=error * float(loss.std()))
        assert right.mean() == pytest.approx(bayes_accuracy(rho), abs=error * float(right.std()))
    # The exact posterior is the minimum: the gradient in a factor on the logits is 0, and another factor is worse.
    doubled = objective.at_time(
        jnp.float32(t), {"network": {"factor": jnp.asarray(2.0)}}, *arguments[2:], frozen=frozen
    )
    assert doubled.mean() > loss.mean()


def test_the_metrics_are_accuracies_of_quarters_of_the_times():
    objective = Experiment.from_config(config()).objective
    n = 64
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, n)
    values = ((2 * label - 1) * DISTANCE).astype(np.float32)[:, None]
    batch = {"values": values, "cond": {"label": jnp.asarray(label)}, "index": jnp.arange(n, dtype=jnp.uint32)}
    call = dict(step=0, averages={}, frozen={"codec": objective.parts.codec}, across=WholeBatch(), train=True)
    _, _, metrics = objective({"network": {"factor": jnp.ones(())}}, (), batch, jax.random.key(0), **call)
    quarters = [float(metrics[f"accuracy_quarter{number}"]) for number in (1, 2, 3, 4)]
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(quarters))
    assert all(0 <= quarter <= 1 and (16 * quarter) % 1 == 0 for quarter in quarters)
    assert quarters[0] >= 15 / 16 > quarters[3]  # nearly no noise, and nearly nothing else


def test_a_run_of_a_classifier_is_evaluated_and_guides(tmp_path, capsys):
    workdir = tmp_path / "classifier"
    train(config(), workdir)
    evaluate(config(), workdir)
    records = read_records(workdir / "train.jsonl")
    assert {"accuracy", "accuracy_quarter1", "accuracy_quarter4", "heldout_loss"} <= set().union(*records)
    found = json.loads((workdir / "eval" / "accuracy_per_level.json").read_text())
    for accuracy, error, level, loss in zip(
        found["accuracy"], found["stderr"], found["log_snr"], found["cross_entropy"], strict=True
    ):
        rho = math.exp(-level / 2)
        assert accuracy == pytest.approx(bayes_accuracy(rho), abs=5 * error + 1e-6)
        assert loss == pytest.approx(conditional_entropy(rho), abs=0.05)
    assert (workdir / "eval" / "accuracy_per_level.png").stat().st_size > 1000
    assert "accuracy by sigma / alpha: 0.97" in capsys.readouterr().out
    loaded = ss.load(workdir)
    assert "Classifier of 2 classes" in repr(loaded) and loaded.conditions["label"].classes == 2
    values = np.asarray([[-1.0], [1.0], [0.5]])
    np.testing.assert_array_equal(loaded.predict(values), [0, 1, 1])
    assert loaded.accuracy(values, [0, 1, 0]) == pytest.approx(2 / 3)
    np.testing.assert_allclose(loaded.probabilities(values).sum(axis=1), 1, rtol=1e-5)
    model = ss.Model(Unlabelled(modes(ss.VE(sigma_max=20.0))), ss.ContinuousCodec((1,)), digits.get_config(), 0)
    spec = dict(name="ClassifierGuided", workdir=str(workdir), weight=1.0)
    x = model.sample(2000, guidance=[spec], label=1, grid=ss.time_grid.log_snr(model.denoiser.sde, 25)).x
    assert x.mean() == pytest.approx(DISTANCE, abs=0.05) and x.std() == pytest.approx(STD, abs=0.05)
    content = guides.content_of("sample.guidance", [spec], {})
    assert content == {str(workdir): loaded.digest}
    assert (
        guides.content_of("sample.guidance", [dict(spec, workdir=dict(workdir=str(workdir), average=None))], {})
        != content
    )
    _refusals(workdir, model)


def _refusals(workdir, model):
    """A classifier that does not fit the model is refused in one line."""
    text = f"ClassifierGuided(workdir={str(workdir)!r})"
    three = ss.GaussianMixture(ss.VP(), [0.3, 0.3, 0.4], [[-1.0], [0.0], [1.0]], STD)
    with pytest.raises(ss.InputError, match=r"has 2 classes, and the model reads 3; expected the same classes"):
        dataclasses.replace(model, denoiser=three).sample(2, guidance=text)
    with pytest.raises(ss.InputError, match=r"whose examples have shape \(1,\) and range None; expected \(2,\)"):
        dataclasses.replace(model, codec=ss.ContinuousCodec((2,))).sample(2, guidance=text)
    with pytest.raises(ss.InputError, match=r"has no denoiser; expected the workdir of a trained denoiser"):
        model.sample(2, guidance=f"Guided(bad={str(workdir)!r}, weight=2)")
    with pytest.raises(ss.InputError, match=r"is no workdir of a trained model"):
        model.sample(2, guidance="ClassifierGuided(workdir='nowhere')")
    with pytest.raises(ss.InputError, match=r"A guide names 3; expected the workdir of a trained model"):
        model.sample(2, guidance="ClassifierGuided(workdir=3)")
    with pytest.raises(ss.InputError, match=r"a label is 5; expected a whole number from 0 to 1"):
        model.sample(2, guidance=text, label=5)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            dict(data=dict(name=f"{__name__}.Unnamed")),
            "Classification learns classes, and the data have none; expected a data",
        ),
        (dict(network=dict(name="MLP")), r"MLP returns shape \(1, 1\) for one example; expected \(1, 2\), one logit"),
        (dict(sde=dict(name="DDPM", n=10)), "objective.times draws times between the levels of DDPM"),
        (
            dict(network=dict(name="MLP"), data=dict(name=f"{__name__}.TwoModes", given=("label",))),
            "MLP reads label, and Classification predicts the class from x_t alone",
        ),
        (dict(data=dict(name=f"{__name__}.TwoModes", drop=dict(label=0.1))), "label"),
    ],
)
def test_what_a_classifier_cannot_learn_is_one_line(entries, message):
    with pytest.raises(ss.InputError, match=message) as caught:
        Experiment.from_config(config(**entries))
    assert "\n" not in str(caught.value)


def test_the_variant_of_the_digits():
    made = Experiment.from_config(digits.get_config("classifier"))
    assert isinstance(made.objective, Classification) and made.network.classes == 10
    assert made.network.embedding == "fourier" and not made.network.conditions
    on_chain = Experiment.from_config(digits.get_config("classifier,ddpm"))
    assert on_chain.sde.levels == 1000
    with pytest.raises(ss.InputError, match="'classifier' beside 'conditional'; expected 'classifier', with or"):
        digits.get_config("classifier,conditional")


def test_the_variants_of_other_data():
    """The classifier of CIFAR-10 has the scale of the published VE models, and the wide network."""
    made = Experiment.from_config(cifar10.get_config("classifier"))
    published = Experiment.from_config(cifar10.get_config("ve,ncsnpp"))
    assert made.codec.model_range == published.codec.model_range == (0.0, 1.0)
    assert isinstance(made.network, networks.WideResNet) and made.network.classes == 10
    fashion = Experiment.from_config(fashion_mnist.get_config("classifier"))
    assert fashion.network.shape == (28, 28, 1) and fashion.network.classes == 10


# Networks.


def test_the_parameters_of_the_wide_residual_network():
    """The count of WRN-28-10 with its embedding, layer by layer; the published code has the same count."""
    count = 9 * 3 * 16 + 128 + (256 * 512 + 512) + (512 * 512 + 512)
    now = 16
    for width in (160, 320, 640):
        for _ in range(4):
            # Two norms, two convolutions without bias, and a linear map of the embedding.
            count += 2 * now + 9 * now * width + 512 * width + width + 2 * width + 9 * width * width
            now = width
    count += 2 * now + now * 10 + 10
    network = networks.WideResNet(shape=(32, 32, 3), classes=10)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count == 38_913_242


def test_classifiers_return_logits_of_images():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    t = jnp.asarray([0.1, 2.0])
    wide = networks.WideResNet(shape=(8, 8, 3), classes=5, blocks=1, widen=1, embedding_channels=8)
    half = networks.UNetClassifier(
        shape=(8, 8, 3), classes=5, channels=8, multipliers=(1, 2), blocks=1, attention=(4,), fold=1, head_channels=8
    )
    for network in (wide, half, dataclasses.replace(half, pool="mean", fold=2, stem=4, attention=(2,))):
        params = network.init(jax.random.key(1))
        logits = network.apply(params, x, t)
        assert logits.shape == (2, 5) and np.ptp(np.asarray(logits)) > 0
        # An image alone has the logits that it has beside another one.
        np.testing.assert_allclose(network.apply(params, x[1:], t[1:]), logits[1:], rtol=1e-4, atol=1e-5)
        assert np.abs(np.asarray(network.apply(params, x, t[::-1]) - logits)).max() > 0  # the noise level is read
    brighter = wide.apply(wide.init(jax.random.key(1)), 3 * x + 1, t)
    np.testing.assert_allclose(brighter, wide.apply(wide.init(jax.random.key(1)), x, t), rtol=1e-3, atol=1e-4)


def test_attention_pooling_against_numpy(x64):
    from flax import nnx

    from score_sde.networks.classifiers import AttentionPool

    pool = AttentionPool(6, 4, 3, nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 2, 2, 6))
    tokens = x.reshape(2, 4, 6)
    tokens = np.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1) + np.asarray(pool.positions[...])

    def linear(layer, value):
        return value @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    query, key, value = (linear(layer, tokens) for layer in (pool.query, pool.key, pool.value))
    expected = np.zeros((2, 6))
    for head in (slice(0, 3), slice(3, 6)):
        logits = np.einsum("bc,bkc->bk", query[:, 0, head], key[..., head]) / math.sqrt(3)
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected[:, head] = np.einsum("bk,bkc->bc", weights, value[..., head])
    np.testing.assert_allclose(pool(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: networks.WideResNet(shape=(8, 8, 3)), "WideResNet got classes=0; expected the number of classes"),
        (lambda: networks.WideResNet(shape=(10, 8, 3), classes=3), "sides divisible by 4"),
        (lambda: networks.WideResNet(shape=(8, 8, 3), classes=3, blocks=0), "blocks of WideResNet is 0"),
        (
            lambda: networks.WideResNet(shape=(8, 8, 3), classes=3, conditions=ss.Conditions(label=ss.Label(3))),
            "WideResNet reads no conditions, and conditions has label",
        ),
        (lambda: networks.UNetClassifier(shape=(8, 8, 1), classes=1), "UNetClassifier got classes=1"),
        (lambda: networks.UNetClassifier(shape=(8, 8, 1), classes=3, pool="max"), "pool of UNetClassifier is 'max'"),
        (lambda: networks.UNetClassifier(shape=(8, 8, 1), classes=3, head_channels=0), "head_channels of UNetC"),
    ],
)
def test_wrong_settings_of_classifiers_are_one_line(make, message):
    with pytest.raises(ss.InputError, match=message):
        make()
