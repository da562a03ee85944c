"""This module computes features of samples and of real examples, once for all metrics, resumable and on all devices."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from score_sde.core import npz
from score_sde.core.errors import InputError
from score_sde.jobs import results, runner
from score_sde.jobs.parts import Columns, Parts
from score_sde.metrics import FeatureNetwork, Moments
from score_sde.metrics.features import outputs_of
from score_sde.parallel import Jit, processes

_ROWS = 4096
_MOST_FEATURES = 16_384


@dataclasses.dataclass(frozen=True)
class Features:
    """`Features` refers to the features of numbered examples in one npz file.

    Attributes:
        path: the file, with the outputs of a feature network by name.
        n: the number of examples that count.
        protocol: everything on which the features depend.
    """

    path: pathlib.Path
    n: int
    protocol: dict[str, Any]

    def rows(self, name: str = "features", size: int = _ROWS) -> Iterator[np.ndarray]:
        """Yield an output in chunks of at most `size` examples, in order."""
        whole = npz.mapped(self.path, name)
        for low in range(0, self.n, size):
            yield np.asarray(whole[low : min(low + size, self.n)])

    def all(self, name: str = "features") -> np.ndarray:
        """Return an output of all examples, (n, ...), as a map of the file."""
        return npz.mapped(self.path, name)[: self.n]

    def moments(self, blocks: int = 1, name: str = "features") -> list[Moments]:
        """Return the sums of each of `blocks` parts of consecutive examples; only one chunk is in memory at a time."""
        ends = np.linspace(0, self.n, blocks + 1).round().astype(int)
        whole = npz.mapped(self.path, name)
        if whole.shape[1] > _MOST_FEATURES:
            raise InputError(
                f"There are {whole.shape[1]} features, whose covariance needs {8e-9 * whole.shape[1] ** 2:.0f} GB; "
                f"expected at most {_MOST_FEATURES}: use another feature network."
            )
        found = []
        for begin, end in itertools.pairwise(ends):
            total = Moments.zero(whole.shape[1])
            for low in range(begin, end, _ROWS):
                total = total + Moments.of(whole[low : min(low + _ROWS, end)])
            found.append(total)
        return found


def compute(
    root: pathlib.Path,
    network: FeatureNetwork,
    of: dict[str, Any],
    n: int,
    values: Callable[[np.ndarray], np.ndarray],
    *,
    maximum: float | None,
    outputs: tuple[str, ...],
    batch_size: int,
    devices: Jit,
) -> Features:
    """Return the features of the examples 0 .. n - 1; existing features are not computed again.

    The features are written to root/features-DIGEST.npz, with their identity beside them. Features of more examples
    serve for fewer. Every process calls this function and computes its share on its own devices.

    Args:
        root: the folder of the file.
        network: the feature network.
        of: the identity of the examples, without their number.
        n: the number of examples.
        values: function from consecutive numbers to the values of these examples.
        maximum: the largest value of quantised data; None for real values.
        outputs: the names of the outputs that are kept.
        batch_size: the examples in a batch.
        devices: the devices of this process.

    Raises:
        InputError: if the network does not return an output, or if a feature is not finite.
        Stopped: after SIGTERM; finished features are kept.
    """
    protocol = network.protocol()
    identity = {"features": protocol, "outputs": list(outputs), "of": of}
    name = f"features-{results.digest(identity)}"
    path, about = root / f"{name}.npz", root / f"{name}.json"
    known = int(processes.from_first(np.asarray(_known(about, identity) if processes.is_first() else 0)))
    if known >= n:
        return Features(path, n, protocol)
    parts = Parts(root, name, identity)
    if known and processes.is_first() and not parts.done(n).any():
        parts.write(0, {output: npz.mapped(path, output) for output in outputs}, 0.0)
    run = outputs_of(network, maximum)
    params = devices.place_state(network.params)
    size = runner.equal_batches(n, batch_size)
    padded = devices.padded(size)

    def columns(numbers: np.ndarray) -> Columns:
        place = np.minimum(np.arange(padded), len(numbers) - 1)
        found = run(params, devices.place_sharded(np.asarray(values(numbers))[place]))
        return _checked(found, outputs, numbers, str(protocol["network"]))

    if processes.is_first():
        root.mkdir(parents=True, exist_ok=True)
    runner.run(parts, n, size, columns, f"features of {protocol['network']}")
    if processes.is_first():
        parts.merge(path, n)
        results.write(about, {"n": n}, identity)
        parts.remove()
    processes.barrier("features")
    return Features(path, n, protocol)


def _checked(found: Mapping[str, Any], outputs: tuple[str, ...], numbers: np.ndarray, network: str) -> Columns:
    """Return the kept outputs of the examples with these numbers; raise InputError if one is missing or not finite."""
    kept: Columns = {}
    for output in outputs:
        if output not in found:
            raise InputError(
                f"{network} returns {', '.join(sorted(found))}, and this metric needs {output!r}: use another feature "
                "network."
            )
        array = kept[output] = np.asarray(found[output])[: len(numbers)]
        if not np.isfinite(array).all():
            row = int(numbers[np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0]])
            raise InputError(f"{output!r} of {network} are not finite for example {row}.")
    return kept


def _known(about: pathlib.Path, identity: dict[str, Any]) -> int:
    """Return for how many examples a file has the features of this identity."""
    path = about.with_suffix(".npz")
    if not (about.exists() and path.exists()) or results.differences(about, identity):
        return 0
    return int(results.read(about.parent, about.stem).get("n", 0))
