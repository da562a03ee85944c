"""This module makes the published configurations of Song et al. 2021 for CIFAR-10, 32 x 32.

python main.py --config=configs/cifar10.py:ve,ncsnpp,deep --mode=describe
python main.py --config=configs/cifar10.py:ve,ncsnpp --workdir=runs/cifar10 --mode=import --weights=checkpoint_24.pth

Words: see configs/published.py. The default is ve,ncsnpp. `classifier` alone trains the noise-conditional WideResNet of
Song et al. 2021 (App. I.1), a guide for the class; its learning rate and steps are ours, as the paper states none.
Data: the binary version of https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import ml_collections

from score_sde import config as config_
from score_sde.configs import published, variants

OLD = {
    "subvp/cifar10_ddpm_continuous": "subvp,ddpm",
    "subvp/cifar10_ddpmpp_continuous": "subvp,ddpmpp",
    "subvp/cifar10_ddpmpp_deep_continuous": "subvp,ddpmpp,deep",
    "subvp/cifar10_ncsnpp_continuous": "subvp,ncsnpp",
    "subvp/cifar10_ncsnpp_deep_continuous": "subvp,ncsnpp,deep",
    "ve/cifar10_ddpm": "ve,ddpm,discrete",
    "ve/cifar10_ncsnpp": "ve,ncsnpp,discrete",
    "ve/cifar10_ncsnpp_continuous": "ve,ncsnpp",
    "ve/cifar10_ncsnpp_deep_continuous": "ve,ncsnpp,deep",
    "ve/ncsn/cifar10": "ve,ncsn",
    "ve/ncsn/cifar10_124": "ve,ncsn,124",
    "ve/ncsn/cifar10_1245": "ve,ncsn,1245",
    "ve/ncsn/cifar10_5": "ve,ncsn,5",
    "ve/ncsnv2/cifar10": "ve,ncsnv2",
    "vp/cifar10_ddpmpp": "vp,ddpmpp,discrete",
    "vp/cifar10_ddpmpp_continuous": "vp,ddpmpp",
    "vp/cifar10_ddpmpp_deep_continuous": "vp,ddpmpp,deep",
    "vp/cifar10_ncsnpp": "vp,ncsnpp,discrete",
    "vp/cifar10_ncsnpp_continuous": "vp,ncsnpp",
    "vp/cifar10_ncsnpp_deep_continuous": "vp,ncsnpp,deep",
    "vp/ddpm/cifar10": "vp,ddpm,discrete",
    "vp/ddpm/cifar10_continuous": "vp,ddpm",
    "vp/ddpm/cifar10_unconditional": "vp,ddpm,discrete,unconditional",
}
DATA_SET = published.DataSet(
    file="configs/cifar10.py",
    data=dict(name="CIFAR10"),
    sigma_max=50,
    scales=1000,
    snr=0.16,
    batch_size=128,
    steps=1_300_000,
    dropout=0.1,
    old=OLD,
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant == "classifier":
        return _classifier()
    return published.small(DATA_SET, variant, levels=232, snr=0.176)


def _classifier() -> ml_collections.ConfigDict:
    return config_.complete(
        dict(
            data=dict(DATA_SET.data, dir="", batch_size=DATA_SET.batch_size, centered=False, flip=True),
            sde=dict(name="VE", sigma_min=0.01, sigma_max=DATA_SET.sigma_max),
            parametrization=dict(name="Score", time_label="log_sigma", scale_by_sigma=True),
            network=dict(name="WideResNet", blocks=4, widen=10, dtype="auto", remat="none"),
            # Uniform times of VE are uniform in log sigma.
            objective=dict(name="Classification", times="uniform", stratified=True),
            **variants.classifying(200_000, every=10_000, rate=3e-4, warmup=5000, decay=0.9999, batch_size=500),
        )
    )
