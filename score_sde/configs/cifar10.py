"""This module makes the published configurations of Song et al. 2021 for CIFAR-10, 32 x 32.

python main.py --config=configs/cifar10.py:ve,ncsnpp,deep --mode=describe
python main.py --config=configs/cifar10.py:ve,ncsnpp --workdir=runs/cifar10 --mode=import --weights=checkpoint_24.pth

Words: see configs/published.py. The default is ve,ncsnpp.
Data: the binary version of https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import ml_collections

from score_sde.configs import published

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
    return published.small(DATA_SET, variant, levels=232, snr=0.176)
