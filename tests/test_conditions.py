"""Conditions are declared, are refused on the host if invalid, and may be absent; streams of keys share no key."""

import ast
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import score_sde as ss
from configs import digits
from score_sde.core import conditions
from score_sde.core import given as given_
from score_sde.core import keys as keys_
from score_sde.data import Digits
from score_sde.experiment import Experiment, write_config
from score_sde.jobs import train

ROOT = pathlib.Path(__file__).parent.parent
READS = ss.Conditions(
    label=ss.Label(3), depth=ss.Condition(shape=(2,), required=True), caption=ss.Text(4), size=ss.Condition()
)
DEPTH = {"depth": np.ones((2, 2))}
TEXT = {"tokens": np.zeros((2, 4), int), "mask": np.ones((2, 4), bool)}


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        (None, "cond has no 'depth', which is required"),
        ({"label": np.zeros(2, int)}, "cond has no 'depth'"),
        (DEPTH | {"colour": np.zeros(2)}, "cond has 'colour', which is not read; conditions read: caption, depth"),
        (np.zeros(2), "cond is a ndarray; expected None or a dictionary"),
        ({"depth": np.ones((3, 2))}, r"cond\['depth'\] has shape \(3, 2\); expected leading axis 2"),
        ({"depth": np.ones((2, 3))}, r"shape \(2, 3\) and dtype float64; expected \(2, 2\) and float32"),
        ({"depth": np.full((2, 2), np.inf)}, "contains NaN or infinity"),
        (DEPTH | {"label": np.array([0, 3])}, r"cond\['label'\] contains 3; expected classes from 0 to 2"),
        (DEPTH | {"label": np.array([-1, 0])}, "contains -1"),
        (DEPTH | {"label": np.zeros(2)}, r"dtype float64; expected \(2,\) and int32"),
        (DEPTH | {"label": np.eye(3)[:2]}, r"shape \(2, 3\)"),
        (DEPTH | {"label": [0, 1]}, "expected int32 of shape"),
        (DEPTH | {"caption": np.zeros((2, 4), int)}, "expected a dictionary with tokens, mask"),
        (DEPTH | {"caption": TEXT | {"mask": np.ones((2, 5), bool)}}, r"shape \(2, 5\)"),
        (DEPTH | {"absent": {"label": np.zeros(2, bool)}}, r"cond\['absent'\]\['label'\] .* for a name that cond has"),
        (DEPTH | {"label": np.zeros(2, int), "absent": {"label": np.zeros(2)}}, "dtype float64; expected bool"),
        (DEPTH | {"absent": {"depth": np.array([False, True])}}, "cond has no 'depth'"),
    ],
)
def test_what_cannot_be_read_is_refused(cond, words):
    with pytest.raises(ss.InputError, match=words) as caught:
        given_.checked(cond, READS, 2)
    assert "\n" not in str(caught.value)


def test_what_can_be_read_comes_in_the_declared_form():
    absent = {"label": np.array([True, False])}
    cond = given_.checked(DEPTH | {"label": np.array([0, 2]), "caption": TEXT, "absent": absent}, READS, 2)
    assert cond["depth"].dtype == np.float32 and cond["label"].dtype == np.int32
    assert cond["caption"]["tokens"].dtype == np.int32 and cond["absent"]["label"].tolist() == [True, False]
    assert conditions.is_absent(cond, "label", 2).tolist() == [True, False]
    assert conditions.is_absent(cond, "size", 2).tolist() == [True, True]
    assert conditions.is_absent(cond, "depth", 2).tolist() == [False, False]
    left = conditions.without(cond, ["label"])
    assert left.keys() == {"depth", "caption"} and conditions.without(cond, READS) is None
    assert conditions.only(cond, ["label"]).keys() == {"label", "absent"}
    traced = jax.jit(lambda label: given_.checked({"label": label}, ss.Conditions(label=ss.Label(3)), 2)["label"])
    assert traced(jnp.array([0, 1])).tolist() == [0, 1]


def test_what_a_person_asks_for():
    """One value is for all samples, a list is used in turn, None is absent, and other conditions have defaults."""
    reads, numbers = ss.Conditions(label=ss.Label(3), caption=ss.Text(3)), np.arange(4, 9)
    assert given_.asked_for({}, reads, numbers).keys() == {"label"}
    assert given_.asked_for({}, reads, numbers)["label"].tolist() == [1, 2, 0, 1, 2]
    cond = given_.asked_for({"label": [2, 0], "caption": "ab"}, reads, numbers)
    assert cond["label"].tolist() == [2, 0, 2, 0, 2]
    assert cond["caption"]["tokens"].tolist() == [[97, 98, 0]] * 5
    assert given_.asked_for({"label": None}, reads, numbers) is None
    point = ss.Conditions(point=ss.Condition(shape=(2,)))
    assert given_.asked_for({"point": (1, 2)}, point, numbers)["point"].tolist() == [[1, 2]] * 5
    assert given_.asked_for({"point": [(1, 2), (3, 4)]}, point, numbers)["point"][1].tolist() == [3, 4]
    for asked, words in (
        ({"colour": 1}, "sample.cond names 'colour', which the model does not read; it reads caption, label"),
        ({"label": 3}, "sample.cond, label: a label is 3; expected a whole number from 0 to 2"),
        ({"label": 1.5}, "a label is 1.5"),
        ({"label": []}, "sample.cond gives no value of 'label'"),
        ({"caption": 7}, "a text is 7; expected text"),
    ):
        with pytest.raises(ss.InputError, match=words):
            given_.asked_for(asked, reads, numbers)
    with pytest.raises(ss.InputError, match=r"sample\.cond has no .depth., which the model requires"):
        given_.asked_for({}, READS, numbers)


@settings(deadline=None)
@given(st.text(max_size=12), st.integers(1, 8))
def test_text_is_its_bytes(text, length):
    parsed = ss.Text(length).parse(text)
    raw = text.encode("utf-8", "surrogatepass")[:length]
    assert bytes(parsed["tokens"][parsed["mask"]].astype(np.uint8)) == raw
    assert parsed["mask"].sum() == len(raw) and not parsed["tokens"][~parsed["mask"]].any()


def test_declarations_are_values():
    a, b = ss.Conditions(label=ss.Label(3)), ss.Conditions({"label": ss.Label(3)})
    assert a == b and hash(a) == hash(b) and a != ss.Conditions(label=ss.Label(4)) and repr(a).startswith("Conditions(")
    for wrong in ({"absent": ss.Label(2)}, {"label": 3}, {"two words": ss.Label(2)}):
        with pytest.raises(ss.InputError, match="expected names other than 'absent'"):
            ss.Conditions(wrong)
    with pytest.raises(ss.InputError, match="classes=0"):
        ss.Label(0)


class Named(ss.SDE):
    """`Named` is an SDE for tests of refused conditions; no test solves the SDE."""

    def alpha(self, t):
        return 1 - 0.5 * t

    def variance(self, t):
        return t**2


def test_every_public_function_refuses_what_the_denoiser_does_not_read():
    sde = Named()
    plain = ss.NetworkDenoiser(sde, ss.X0(), lambda params, x, *_, keys: x, ())
    x, keys, cond = np.zeros((2, 3)), jax.random.split(jax.random.key(0), 2), {"label": np.zeros(2, int)}
    for call in (
        lambda: ss.sample(plain, ss.DDIM(), [1.0, 0.1], (3,), n=2, seed=0, cond=cond),
        lambda: ss.log_prob(plain, x, keys, cond=cond),
        lambda: ss.encode(plain, x, cond=cond),
        lambda: ss.decode(plain, x, cond=cond),
        lambda: ss.interpolate(plain, x, x, 3, cond=cond),
        lambda: ss.denoising_loss(plain, jnp.asarray(x), keys, t=0.5, cond=cond),
        lambda: ss.bits_per_dim(plain, x, keys, codec=ss.ContinuousCodec((3,)), cond=cond),
    ):
        with pytest.raises(ss.InputError, match="cond has 'label', which is not read"):
            call()


def test_two_purposes_of_a_seed_share_no_key():
    """Two streams share no key; each call of `stream` names an entry of STREAMS, and no code uses the root key."""
    streams = set()
    for path in (ROOT / "score_sde").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("stream", "host_stream"):
                    assert isinstance(node.args[1], ast.Constant), path
                    streams.add(node.args[1].value)
                assert node.func.attr != "root", f"{path}: draws come from keys.stream"
    assert streams == set(keys_.STREAMS)
    data = {tuple(np.asarray(jax.random.key_data(keys_.stream(0, name)))) for name in keys_.STREAMS}
    data.add(tuple(np.asarray(jax.random.key_data(keys_.root(0)))))
    assert len(data) == len(keys_.STREAMS) + 1
    numbers = [keys_.number(name) for name in [*keys_.STREAMS, *NAMES]]
    assert len(set(numbers)) == len(numbers)
    draws = {name: keys_.host_stream(0, name, 0).random() for name in keys_.STREAMS}
    assert len(set(draws.values())) == len(draws)


# The package folds the numbers of these names into an example's key.
NAMES = {
    "noise", "dropout", "times", "encode", "condition", "drop", "component", "mixture", "probes",
    "before", "step", "after", "known", "up", "measured", "prior", "noise of y", "resample", "shown",
    "hidden", "accepted", "content", "bound", "levels", "previous", "moments",
    "area", "middle", "restart", "colours", "renoise", "start",
}  # fmt: skip


def test_what_is_folded_into_an_examples_key_is_named():
    folded = set()
    for path in (ROOT / "score_sde").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("keys_.fold", "folded"):
                folded |= {
                    arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                }
    assert folded == NAMES
    keys = keys_.examples(keys_.stream(0, "train"), np.arange(3))
    for a, b in itertools.combinations(sorted(NAMES), 2):
        ours, theirs = (np.asarray(jax.random.key_data(keys_.fold(keys, name))) for name in (a, b))
        assert not (ours == theirs).all(axis=1).any()


def test_workdirs_and_caches_of_version_0_1_are_refused(tmp_path):
    config = digits.get_config()
    write_config(tmp_path / "run", config)
    path = tmp_path / "run" / "config.json"
    old = json.loads(path.read_text())
    del old["version"]
    path.write_text(json.dumps(old))
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for call in (lambda: ss.load(tmp_path / "run"), lambda: train(config, tmp_path / "run")):
        with pytest.raises(ss.InputError, match=r"config.json: version is missing: .*run was made by score_sde 0\.1"):
            call()
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    (tmp_path / "data" / "digits" / "1.0.0").mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"digits.1\.0\.0 was prepared by score_sde 0\.1 and is not read"):
        Digits(tmp_path / "data").source("test")


def test_an_experiment_gives_a_network_what_it_takes():
    """A network gets the shape, the conditions of data.given and the levels of a chain; a config states each once."""
    config = digits.get_config("smld")
    config.network = dict(name="NCSN", channels=4)
    assert Experiment.from_config(config).network.levels == 1000
    config.sde.n = 7
    experiment = Experiment.from_config(config)
    assert experiment.network.levels == 7 and experiment.network.shape == (8, 8, 1)
    assert not experiment.network.conditions and not experiment.reads
    both = digits.get_config("vp,conditional")
    assert Experiment.from_config(both).reads == ss.Conditions(label=ss.Label(10))


@pytest.mark.parametrize("words", ["sde.sigma_max", "sde.sigma_min"])
def test_a_noise_level_is_stated_once(words):
    """Another sigma of a discrete VE config changes the divisor of the output."""
    from configs import cifar10

    config = cifar10.get_config("ve,ncsnpp,discrete")
    config.update_from_flattened_dict({words: 0.5 if words.endswith("min") else 90.0})
    experiment = Experiment.from_config(config)
    t = jnp.asarray([1 / 1000, 1.0])
    scale = experiment.parametrization.output_scale(experiment.sde, t)
    np.testing.assert_allclose(1 / scale, [config.sde.sigma_min, config.sde.sigma_max], rtol=1e-5)
