"""A config names classes, survives a round trip through JSON, and is refused if invalid."""

import contextlib
import inspect
import json
import keyword
import types

import jax.numpy as jnp
import ml_collections
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import score_sde as ss
from score_sde import config as config_
from score_sde import data, networks, sampling, sde
from score_sde.denoisers import parametrization
from score_sde.experiment import Experiment
from score_sde.sampling import time_grid


class Slow(ss.VP):
    """`Slow` is a user's SDE, which a config names by its dotted path."""

    rate: float = 1.0


def test_a_spec_is_a_constructor_with_arguments():
    built = config_.build(sde, dict(name="VP", beta_max=12.0))
    assert isinstance(built, ss.VP)
    assert (built.beta_min, built.beta_max) == (0.1, 12.0)
    assert config_.build(sampling, ml_collections.ConfigDict(dict(name="Ancestral"))) == ss.Ancestral()
    grid = config_.build(time_grid, dict(name="uniform", n=3), ss.VP())
    assert grid.shape == (4,)


class Still(ss.Corrector):
    """`Still` is a user's corrector, which changes nothing."""

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


def test_a_file_states_what_differs_and_the_rest_has_defaults():
    small = dict(data=dict(name="Digits"), network=dict(name="MLP", width=8), train=dict(steps=7, keep=dict(last=3)))
    config = config_.complete(small)
    assert (config.train.steps, config.train.keep.last, config.train.keep.every) == (7, 3, 0)
    assert config.version == config_.VERSION and config.train.log_every == config_.DEFAULTS["train"]["log_every"]
    assert config.network.to_dict() == dict(name="MLP", width=8) and config.sde.to_dict() == dict(name="VP")
    assert config_.to_dict(config_.complete(config)) == config_.to_dict(config)  # `complete` is idempotent
    back = config_.complete(config_.from_json(config_.to_json(config)))
    assert config_.differences(back, config) == {}
    other = config_.complete(small | dict(optimizer=dict(schedule=dict(name="linear_schedule", init_value=1.0))))
    # The default schedule adds no entry.
    assert other.optimizer.schedule.to_dict() == dict(name="linear_schedule", init_value=1.0)
    assert other.optimizer.clip == 1.0 and other.averages.ema.decay == 0.999
    given = config_.complete(small | dict(averages=dict(slow=dict(name="Constant", decay=0.5))))
    assert given.averages.to_dict() == dict(slow=dict(name="Constant", decay=0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(trian=dict(steps=3)), ["has trian", "did you mean train"]),
        (dict(train=dict(step=3)), ["has train.step", "did you mean train.steps"]),
        (dict(train=dict(keep=dict(lats=3))), ["train.keep.lats", "train.keep.last"]),
        (dict(eval=dict(probes=3)), ["eval.probes"]),
        (dict(ema=0.9), ["has ema", "averages.ema"]),
        (dict(train=3), ["train is 3", "steps"]),
        (dict(version=1), ["version is 1", "expected 2"]),
        (dict(data=dict(name=None)), ["has no data.name"]),
        (dict(eval=dict(what="FID(n=")), ["eval.what", "'FID(n='"]),
        (dict(eval=dict(what=(3,))), ["eval.what has 3"]),
        (dict(sample=dict(cond=dict(label=2))), ["sample.cond", "label=2"]),
        (dict(sample=dict(guidance=(dict(weight=2.0),))), ["sample.guidance", "dict(name="]),
    ],
)
def test_an_entry_that_nothing_reads_is_refused(change, words):
    whole = dict(data=dict(name="Digits"), network=dict(name="MLP")) | change
    with pytest.raises(ss.InputError) as caught:
        config_.complete(whole)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


plain = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
arguments = st.dictionaries(
    names.filter(
        lambda name: name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name != "name"
    ),
    plain | st.text(max_size=10) | st.lists(plain, max_size=3).map(tuple),
    max_size=3,
)
specs = st.builds(
    lambda name, more: {"name": name, **more}, st.sampled_from(["FID", "my.Own", "Likelihood"]), arguments
)


@settings(deadline=None)
@given(st.lists(specs, max_size=3).map(tuple))
def test_specs_are_text_and_back(given):
    text = config_.write_specs(given)
    assert config_.read_specs("eval.what", text) == given
    assert config_.read_specs("eval.what", list(given)) == given


def test_specs_as_a_person_writes_them():
    read = config_.read_specs("eval.what", "Likelihood(probes=2, rtol=1e-3), FID(n=5_000), mine.Own,")
    assert read == (dict(name="Likelihood", probes=2, rtol=1e-3), dict(name="FID", n=5000), dict(name="mine.Own"))
    nested = config_.read_specs("x", "PredictorCorrector(predictor=DDIM(eta=0.5), corrector=None)")
    assert nested == (dict(name="PredictorCorrector", predictor=dict(name="DDIM", eta=0.5), corrector=None),)
    assert config_.write_specs(nested) == "PredictorCorrector(predictor=DDIM(eta=0.5), corrector=None)"
    assert config_.read_arguments("sample.cond", "label=[1, 2], text='a, b'") == dict(label=(1, 2), text="a, b")
    assert config_.read_arguments("sample.cond", "") == {}


@settings(deadline=None)
@given(st.text(max_size=60))
@example("F(a=__import__('os').system('true'))")
@example("F(a=1) if x else G")
@example("F(**d)")
@example("F(a=1, a=2)")
@example("F(1)")
@example("[" * 3000)
@example("F(a=lambda: 1)")
@example("a=1) + g(b=2")
@example("a=1)(b=2")
@example("x\x00y")
def test_text_of_specs_is_read_as_literals_or_refused(text):
    """The reader executes no text: the outcome is plain values, or one error."""
    for read in (config_.read_specs, config_.read_arguments):
        with contextlib.suppress(ss.InputError):
            json.dumps(config_.to_dict({"found": read("eval.what", text)}), default=repr)


def test_a_file_that_makes_no_config(tmp_path):
    path = tmp_path / "mine.py"
    for text, words in (
        ("x = 1", "makes no config: KeyError"),
        ("def get_config():\n    return 3", "returns a int"),
        ("def get_config():\n    return {'data': {'name': 'Digits'}}", "has no network.name"),
        ("import nothing_like_it", "makes no config: ModuleNotFoundError"),
    ):
        path.write_text(text)
        with pytest.raises(ss.InputError, match=words):
            config_.read_file(str(path))
    with pytest.raises(ss.InputError, match=r"there is no file nowhere\.py; expected FILE or FILE:VARIANT"):
        config_.read_file("nowhere.py:vp")
    path.write_text("def get_config(v='a'):\n    return dict(data=dict(name='Digits'), network=dict(name=v))")
    assert config_.read_file(f"{path}:MLP").network.name == "MLP" and config_.read_file(str(path)).network.name == "a"


@pytest.mark.parametrize("text", ["A(b=DDIM())", "A(b=mine.C(d=E()), f=(1, ), g={'a': 1e999})", "A(x=-1e999)"])
def test_specs_within_specs_are_text_and_back(text):
    specs = config_.read_specs("what", text)
    assert config_.write_specs(specs) == text
    assert config_.read_specs("what", config_.write_specs(specs)) == specs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(data=dict(drop=0.1)), r"data.drop is 0.1; expected entries"),
        (dict(data=dict(given=5)), r"data.given is 5; expected names"),
        (dict(data=dict(conditions=None)), r"data.conditions is None; expected text"),
        (dict(data=dict(flip=True)), r"examples of TwoMoons have shape \(2,\); only images"),
        (dict(averages=None), r"averages is None; expected entries"),
        (dict(averages=dict(ema=0.99)), r"0.99 has no 'name'"),
        (dict(objective=dict(weight=2.0)), r"A rule is 2.0; expected one of"),
        (dict(optimizer=dict(clip="1")), r"optimizer.clip is '1'; expected a number"),
        (dict(optimizer=dict(groups=3)), r"optimizer.groups is 3; expected entries"),
        (dict(sde=dict(beta_max="x")), r"VP .*'x'"),
        (dict(eval=dict(what=5)), r"eval.what is 5; expected text"),
    ],
    ids=str,
)
def test_entries_of_another_kind_are_refused(change, words):
    config = dict(data=dict(name="TwoMoons"), network=dict(name="MLP"))
    merged = config | {name: config.get(name, {}) | value if value else value for name, value in change.items()}
    with pytest.raises(ss.InputError, match=words):
        Experiment.from_config(merged)


def test_what_a_module_of_ones_own_raises_is_told_with_its_place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("syntax_is_wrong", "class X(:"), ("has_no_licence", "raise RuntimeError('no licence')")):
        (tmp_path / f"{name}.py").write_text(text)
        with pytest.raises(ss.InputError, match=rf"'{name}.X' cannot be imported: \w+Error"):
            config_.build(ss.sde, dict(name=f"{name}.X"), base=ss.SDE)
    (tmp_path / "has_names.py").write_text("class Cosine: pass")
    with pytest.raises(ss.InputError, match=r"has no 'Cosin'; did you mean Cosine\?"):
        config_.build(ss.sde, dict(name="has_names.Cosin"), base=ss.SDE)
