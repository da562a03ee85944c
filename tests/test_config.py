"""Configs: names to things, JSON and back, and what is refused."""

import contextlib
import inspect
import json
import types

import jax.numpy as jnp
import ml_collections
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import score_sde as ss
from configs import digits
from score_sde import config as config_
from score_sde import data, networks, parametrization, sampling, sde, time_grid


class Slow(ss.VP):
    """A user's own SDE, reached by its dotted path."""

    rate: float = 1.0


def test_a_spec_is_a_constructor_with_arguments():
    built = config_.build(sde, dict(name="VP", beta_max=12.0))
    assert isinstance(built, ss.VP)
    assert (built.beta_min, built.beta_max) == (0.1, 12.0)
    assert config_.build(sampling, ml_collections.ConfigDict(dict(name="Ancestral"))) == ss.Ancestral()
    grid = config_.build(time_grid, dict(name="uniform", n=3), ss.VP())
    assert grid.shape == (4,)


class Still(ss.Corrector):
    """A user's own corrector."""

    def correct(self, keys, denoiser, x, t, cond=None):
        return x, jnp.zeros(len(x), jnp.int32)


def test_a_spec_within_a_spec_is_built_too():
    spec = dict(
        name="PredictorCorrector", predictor=dict(name="DDIM", eta=0.5), corrector=dict(name="Langevin", snr=0.1)
    )
    built = config_.build(sampling, ml_collections.ConfigDict(spec), base=ss.Sampler)
    assert built == ss.PredictorCorrector(ss.DDIM(eta=0.5), ss.Langevin(snr=0.1))
    spec = dict(name="PredictorCorrector", predictor=None, corrector=dict(name=f"{__name__}.Still"))
    assert isinstance(config_.build(sampling, spec, base=ss.Sampler).corrector, Still)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (dict(name="PredictorCorrector", predictor=dict(name="Langevin"), corrector=None), ["'Langevin'", "DDIM"]),
        (dict(name="PredictorCorrector", predictor=None, corrector=dict(name="DDIM")), ["'DDIM'", "AnnealedLangevin"]),
        (dict(name="PredictorCorrector", predictor=dict(name="os.system"), corrector=None), ["'os.system'", "Sampler"]),
        (dict(name="PredictorCorrector", predictor=dict(name="DDIM")), ["corrector", "predictor"]),
        (dict(name="Ancestral", variance=dict(name="posterior")), ["Ancestral", "variance", "plain value"]),
    ],
)
def test_a_spec_within_a_spec_that_does_not_fit(spec, words):
    with pytest.raises(ss.InputError) as caught:
        config_.build(sampling, spec, base=ss.Sampler)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_dotted_path_reaches_a_users_class():
    for separator in (".", ":"):
        mine = config_.build(sde, dict(name=f"{__name__}{separator}Slow", rate=2.0), base=ss.SDE)
        assert isinstance(mine, Slow)
        assert mine.rate == 2.0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (dict(name="VPP"), ["'VPP'", "SubVP, VE, VP"]),
        (dict(beta_min=1.0), ["no 'name'"]),
        (dict(name=3), ["no 'name'"]),
        (dict(name="VE", beta_min=0.1), ["VE", "beta_min", "sigma_min=0.01", "sigma_max"]),
        (dict(name="os.system"), ["'os.system'", "not a subclass of SDE"]),
        (dict(name="nosuchpackage.Thing"), ["'nosuchpackage.Thing'", "cannot be imported"]),
        (dict(name="."), ["'.'"]),
        (dict(name="score_sde.sde.SDE.variance"), ["score_sde.sde.SDE"]),
    ],
)
def test_what_does_not_fit_is_answered_with_what_would(spec, words):
    with pytest.raises(ss.InputError) as caught:
        config_.build(sde, spec, base=ss.SDE)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_path_is_refused_where_no_class_is_asked_for():
    with pytest.raises(ss.InputError, match=r"time_grid has no 'os\.system'"):
        config_.build(time_grid, dict(name="os.system", command="true"))


def test_a_long_list_is_cut_to_the_near_misses():
    library = types.ModuleType("library")
    for i in range(60):
        setattr(library, f"thing_{i}", lambda: None)
    with pytest.raises(ss.InputError) as caught:
        config_.lookup(library, "thing_7x")
    assert "thing_7" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("room", "base", "known"),
    [
        (sampling, ss.Sampler, {"Ancestral", "EulerMaruyama", "Heun", "ProbabilityFlow"}),
        (sde, ss.SDE, {"SubVP", "VE", "VP"}),
        (networks, networks.Network, {"DDPMpp"}),
        (data, data.Dataset, {"Digits"}),
        (parametrization, ss.Parametrization, {"Noise", "Score"}),
    ],
)
def test_every_concrete_class_of_a_room_is_offered_and_no_abstract_one(room, base, known):
    offered = config_.names(room, base)
    assert known <= set(offered)
    assert base.__name__ not in offered
    for name in offered:
        assert issubclass(getattr(room, name), base) and not inspect.isabstract(getattr(room, name))


def test_what_is_not_of_the_base_is_not_offered():
    assert set(config_.names(time_grid)) == set(time_grid.__all__)
    with pytest.raises(ss.InputError, match="sampling has no 'sample'"):
        config_.lookup(sampling, "sample", ss.Sampler)


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
names = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=8)
trees = st.dictionaries(
    names,
    st.recursive(
        values, lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(values, max_size=3).map(tuple)
    ),
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
def test_json_round_trip(tree):
    text = config_.to_json(tree)
    assert json.loads(text) is not None
    assert config_.to_dict(config_.from_json(text)) == tree
    assert config_.differences(tree, config_.from_json(text)) == {}


@given(st.text() | st.dictionaries(st.text(max_size=5), values, max_size=3).map(json.dumps))
@example('{"a.b": 1}')
@example("[" * 100_000)
@example('{"a":' * 100_000)
def test_text_that_is_no_config_is_refused_in_one_way(text):
    with contextlib.suppress(ss.InputError):
        config_.from_json(text)


def test_differences_are_named_by_their_path():
    ours = dict(a=dict(b=1, c=(1, 2)), d=None)
    theirs = dict(a=dict(b=2, c=[1, 2]), e=3)
    assert config_.differences(ours, theirs) == {"a.b": (1, 2), "e": (None, 3)}


def test_a_config_that_lacks_entries_is_told_which():
    config = digits.get_config()
    config_.check_complete(config)
    del config.train["keep"]
    del config["ema"]
    with pytest.raises(ss.InputError, match=r"has no ema, train.keep.last, train.keep.every; configs/digits.py"):
        config_.check_complete(config)
