"""This benchmark counts the conditional samples of Fashion-MNIST that an independent classifier assigns to their class.

python benchmarks/classes.py --workdir=runs/fashion [--data=DIR] [--epochs=4]

The classifier is a small convolutional network in flax, trained on the 60,000 real training images. The script prints
the accuracy of the classifier on the 10,000 real test images for each class: perfect samples have this accuracy. The
exit status is 1 if the share of samples that are assigned to their class is below --least, or below --least_class for
one class.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

DEBIAN = "/usr/share/datasets/fashion-mnist"
NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def real(folder: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, (n, 28, 28) bytes, and the labels of 'train' or 't10k'."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


class Classifier(nnx.Module):
    """`Classifier` has two convolutions with pooling, and two dense layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 32, (5, 5), strides=2, rngs=rngs)
        self.second = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(7 * 7 * 64, 256, rngs=rngs)
        self.dropout = nnx.Dropout(0.4, rngs=rngs)
        self.out = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        h = nnx.relu(self.first(images[..., None].astype(jnp.float32) / 255 - 0.3))
        h = nnx.max_pool(nnx.relu(self.second(h)), (2, 2), strides=(2, 2))
        return self.out(self.dropout(nnx.relu(self.hidden(h.reshape(len(h), -1)))))


def trained(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int = 0) -> Classifier:
    """Train a classifier on the images and their mirror images."""
    model, generator, size = Classifier(nnx.Rngs(seed)), np.random.default_rng(seed), 128
    steps = epochs * len(images) // size
    optimizer = nnx.Optimizer(model, optax.adamw(optax.cosine_onecycle_schedule(steps, 2e-3)), wrt=nnx.Param)

    @nnx.jit
    def step(model: Classifier, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> None:
        def loss(model: Classifier) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(epochs):
        order = generator.permutation(len(images))
        for rows in order[: len(order) // size * size].reshape(-1, size):
            batch = images[rows]
            mirrored = np.where(generator.random(size)[:, None, None] < 0.5, batch[:, :, ::-1], batch)
            step(model, optimizer, mirrored, labels[rows].astype(np.int32))
    model.eval()
    return model


def classes_of(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the class that the classifier assigns to each image."""
    logits = nnx.jit(lambda model, images: model(images))
    return np.concatenate([np.argmax(logits(model, images[i : i + 500]), -1) for i in range(0, len(images), 500)])


def shares(assigned: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return, for each class, the share of the images that are assigned to the class."""
    return np.array([np.mean(assigned[labels == label] == label) for label in range(10)])


def summary(what: str, n: int, by_class: np.ndarray, whole: float) -> str:
    """Return one line with the share of all images and of each class."""
    classes = ", ".join(f"{name} {share:.0%}" for name, share in zip(NAMES, by_class, strict=True))
    return f"{what}: {whole:.1%} of {n:,} images are assigned to their class ({classes})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True, nargs="+", type=pathlib.Path)
    parser.add_argument("--data", default=DEBIAN, type=pathlib.Path)
    parser.add_argument("--epochs", default=4, type=int)
    parser.add_argument("--least", default=0.85, type=float)
    parser.add_argument("--least_class", default=0.6, type=float)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    model = trained(*real(options.data, "train"), options.epochs)
    images, labels = real(options.data, "t10k")
    assigned = classes_of(model, images)
    seconds = time.perf_counter() - start
    print(
        summary(
            f"real test images ({seconds:.0f} s)", len(images), shares(assigned, labels), np.mean(assigned == labels)
        )
    )
    good = True
    for workdir in options.workdir:
        with np.load(workdir / "samples" / "samples.npz") as arrays:
            samples, labels = arrays["images"][..., 0], arrays["labels"]
        assigned = classes_of(model, samples)
        by_class, whole = shares(assigned, labels), float(np.mean(assigned == labels))
        print(summary(str(workdir), len(samples), by_class, whole))
        good &= whole >= options.least and by_class.min() >= options.least_class
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
