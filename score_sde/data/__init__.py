"""Data sets, the order in which they are read, and their transform to the model's scale."""

from score_sde.data.base import Arrays, Dataset, Records, Source, all_examples, cache_dir, read
from score_sde.data.digits import Digits
from score_sde.data.pictures import CIFAR10, ImageFolder
from score_sde.data.stream import training_batches
from score_sde.data.toy import Checkerboard, GaussianRing, Plane, SwissRoll, TwoMoons
from score_sde.data.transform import ContinuousTransform, QuantizedTransform, Transform, UniformDequantization

__all__ = [
    "CIFAR10",
    "Arrays",
    "Checkerboard",
    "ContinuousTransform",
    "Dataset",
    "Digits",
    "GaussianRing",
    "ImageFolder",
    "Plane",
    "QuantizedTransform",
    "Records",
    "Source",
    "SwissRoll",
    "Transform",
    "TwoMoons",
    "UniformDequantization",
    "all_examples",
    "cache_dir",
    "read",
    "training_batches",
]
