"""This package defines the data sets, their conditions, their reading order, and the codec to the model's scale."""

from score_sde.data.augment import Augment
from score_sde.data.base import (
    Arrays,
    Batch,
    Dataset,
    Records,
    Source,
    all_examples,
    as_batch,
    cache_dir,
    digest,
    read,
)
from score_sde.data.codec import Codec, ContinuousCodec, QuantizedCodec
from score_sde.data.conditioning import ComputedCondition, Conditioning
from score_sde.data.digits import Digits
from score_sde.data.examples import Examples
from score_sde.data.fashion import FashionMNIST
from score_sde.data.in_memory import InMemory
from score_sde.data.own import Files
from score_sde.data.pictures import CIFAR10, ImageFolder
from score_sde.data.stream import training_batches
from score_sde.data.toy import Checkerboard, GaussianRing, Plane, SwissRoll, TwoMoons

__all__ = [
    "CIFAR10",
    "Arrays",
    "Augment",
    "Batch",
    "Checkerboard",
    "Codec",
    "ComputedCondition",
    "Conditioning",
    "ContinuousCodec",
    "Dataset",
    "Digits",
    "Examples",
    "FashionMNIST",
    "Files",
    "GaussianRing",
    "ImageFolder",
    "InMemory",
    "Plane",
    "QuantizedCodec",
    "Records",
    "Source",
    "SwissRoll",
    "TwoMoons",
    "all_examples",
    "as_batch",
    "cache_dir",
    "digest",
    "read",
    "training_batches",
]
