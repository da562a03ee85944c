"""`Model.sample` numbers its samples, and guides them as a config does."""

import numpy as np
import pytest

import score_sde as ss
from score_sde.experiment import Model

SDE = ss.VP()
MIXTURE = ss.GaussianMixture(SDE, [0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], [0.5, 0.5])
MODEL = Model(MIXTURE, ss.ContinuousCodec((2,), std=10.0), None, 0)
OPTIONS = dict(seed=3, grid=ss.time_grid.default(SDE, 10))


def test_a_sample_depends_on_its_number_alone():
    batch = MODEL.sample(6, label=[0, 1], **OPTIONS).x
    part = MODEL.sample(3, first=3, label=[0, 1], **OPTIONS).x
    np.testing.assert_allclose(part, batch[3:], rtol=1e-5)  # the label of sample 3 is the second of the list
    assert (np.sign(part[:, 0]) == [1, -1, 1]).all()


def test_guidance_as_text_and_as_a_spec_is_that_of_the_class():
    of_class = ss.sample(
        ss.ClassifierFree(MIXTURE, 2.0), ss.Heun(), OPTIONS["grid"], (2,), n=4, seed=3, cond={"label": np.arange(4) % 2}
    )
    for guidance in ("ClassifierFree(weight=2.0)", dict(name="ClassifierFree", weight=2.0)):
        guided = MODEL.sample(4, label=[0, 1], guidance=guidance, **OPTIONS)
        np.testing.assert_allclose(guided.x, 10 * of_class.x, rtol=1e-4)
        np.testing.assert_array_equal(guided.nfe, of_class.nfe)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(first=-1), "first is -1"),
        (
            dict(guidance="Nothing(weight=2)"),
            "guidance has no 'Nothing'; expected one of Analytic, ClassifierFree, ClassifierGuided",
        ),
        (dict(guidance=3), "guidance is 3; expected text"),
        (dict(guidance="ClassifierFree(scale=2)"), "no argument scale"),
    ],
)
def test_wrong_numbers_and_guides_are_refused(options, words):
    with pytest.raises(ss.InputError, match=words):
        MODEL.sample(2, **OPTIONS, **options)
