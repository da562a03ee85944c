"""This config trains on digits of 8 x 8 pixels, the smallest real data set, in minutes on two CPU cores.

python main.py --config=configs/digits.py --workdir=runs/digits --mode=train,eval,sample

Variants, joined by commas: an SDE (a word of configs/variants.py), a parametrisation (noise, score, x0, velocity, v,
preconditioned), conditional, likelihood (likelihood weighting with its sampling of times; not for chains and
rectified_flow, where g^2 does not exist at every time), pc (sample with predictor and corrector). `classifier`, with or
without an SDE, trains a classifier of noised digits, which guides models of digits. The default SDE is edm: after 1,000
steps edm has fewer bits per dimension than vp after 2,000 (docs/performance.md). If a variant has a parametrisation,
likelihood or pc, but no SDE, the SDE is vp.
"""

import ml_collections

from score_sde import config as config_
from score_sde.configs import variants

DATA_STD = 0.75


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    words = variants.choose("configs/digits.py", variant, task=variants.TASKS)
    if words["task"]:
        made = variants.classifier(
            "configs/digits.py",
            variant,
            words,
            DATA_STD,
            steps=1500,
            data=dict(name="Digits", dir="", batch_size=64, flip=False),
            network=dict(channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.2),
        )
        return config_.complete(made)
    sde = variants.sde_of(words, "edm")
    model = variants.model(sde, words["parametrization"], DATA_STD, words["loss"])
    return config_.complete(
        dict(
            data=variants.data(words, name="Digits", dir="", batch_size=64),
            **model,
            network=dict(
                name="DDPMpp",
                channels=32,
                multipliers=(1, 2),
                blocks=1,
                attention=(4,),
                dropout=0.0,
                dtype="float32",
                remat="none",
                **variants.embedding(sde),
            ),
            objective=variants.objective(sde, model["parametrization"]["name"], words["loss"], DATA_STD),
            optimizer=dict(
                name="adam",
                schedule=dict(name="warmup_constant_schedule", init_value=0.0, peak_value=2e-3, warmup_steps=100),
                clip=1.0,
            ),
            averages=dict(ema=dict(name="WarmedUp", decay=0.997)),
            train=dict(
                steps=1000 if sde == "edm" else 2000,
                log_every=100,
                eval_every=500,
                sample_every=0,
                checkpoint_every=500,
                keep=dict(last=2, every=1000),
            ),
            sample=dict(
                # New noise in each step corrects the errors of a small network; a probability flow keeps them.
                **variants.sampling(
                    sde,
                    model["parametrization"]["name"],
                    words["sampler"],
                    steps=250,
                    deterministic=("rectified_flow",),
                    loss=words["loss"],
                ),
                n=100,
                batch_size=100,
            ),
            eval=dict(what="HeldOutLoss, LossPerLevel, Likelihood(probes=2, rtol=1e-3, atol=1e-3)", batch_size=150),
        )
    )
