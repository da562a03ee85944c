"""This config trains a class-conditional model of Fashion-MNIST: grey images of clothes, 28 x 28 pixels.

python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion --mode=train,eval,sample,report

`classifier`, with or without an SDE, trains a classifier of noised images, a guide for models of these images.

The data come from Debian's package dataset-fashion-mnist, or from --config.data.dir. Variants, joined by commas: an SDE
(a word of configs/variants.py), a parametrisation (noise, score, x0, velocity, v, preconditioned), unconditional,
likelihood, pc. The default SDE is edm, or vp if the variant has a parametrisation, likelihood or pc.

Steps, batch and network are those that learn most in about ten minutes on two CPU cores (docs/performance.md).
"""

import ml_collections

from score_sde import config as config_
from score_sde.configs import variants

DATA_STD = 0.7


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = variants.choose("configs/fashion_mnist.py", variant, classes=("unconditional",), task=variants.TASKS)
    if words["task"]:
        return _classifier(variant, words)
    sde = variants.sde_of(words, "edm")
    model = variants.model(sde, words["parametrization"], DATA_STD, words["loss"])
    given = dict(given=(), drop={}) if words["classes"] else dict(given=("label",), drop=dict(label=0.1))
    guidance = "" if words["classes"] else "ClassifierFree(weight=2.5)"
    return config_.complete(
        dict(
            data=dict(name="FashionMNIST", dir="", batch_size=16, flip=False, **given),
            **model,
            network=dict(
                name="DDPMpp",
                fold=2,
                stem=8,
                channels=32,
                multipliers=(1, 2),
                blocks=1,
                attention=(7,),
                dropout=0.0,
                dtype="auto",
                remat="none",
                **variants.embedding(sde),
            ),
            objective=variants.objective(sde, model["parametrization"]["name"], words["loss"], DATA_STD),
            optimizer=dict(
                name="adam",
                schedule=dict(
                    name="warmup_cosine_decay_schedule",
                    init_value=0.0,
                    peak_value=2e-3,
                    warmup_steps=100,
                    decay_steps=6000,
                ),
                clip=1.0,
            ),
            averages=dict(ema=dict(name="WarmedUp", decay=0.999)),
            train=dict(
                steps=6000,
                log_every=200,
                eval_every=0,
                sample_every=3000,
                checkpoint_every=2000,
                keep=dict(last=2, every=0),
            ),
            sample=dict(
                **variants.sampling(
                    sde, model["parametrization"]["name"], words["sampler"], steps=250, loss=words["loss"]
                ),
                guidance=guidance,
                n=1000,
                batch_size=250,
            ),
            eval=dict(what="HeldOutLoss, Likelihood(first=500, probes=1, rtol=1e-3, atol=1e-3)", batch_size=250),
        )
    )


def _classifier(variant: str, words: dict[str, str | None]) -> ml_collections.ConfigDict:
    made = variants.classifier(
        "configs/fashion_mnist.py",
        variant,
        words,
        DATA_STD,
        steps=3000,
        data=dict(name="FashionMNIST", dir="", batch_size=64, flip=False),
        network=dict(fold=2, stem=8, channels=32, multipliers=(1, 2), blocks=1, attention=(7,), dropout=0.1),
    )
    return config_.complete(made)
