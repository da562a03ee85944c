"""This module runs a training step on all devices: each device holds a part of the batch, and the state or a part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding

from score_sde.core.checks import is_whole
from score_sde.core.errors import InputError

Step = Callable[[Any, Any, Any], tuple[Any, Any]]  # (state, batch, frozen) -> (state, metrics)


class Jit:
    """`Jit` runs jax.jit over a mesh of all devices; every device holds the state, and the devices share the batch.

    Each device computes the step on its own rows of the batch (jax.shard_map), and gradients are averaged.

    Args:
        devices: the devices; None for all devices of all processes.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None) -> None:
        self.devices = list(jax.devices() if devices is None else devices)
        self.mesh = self._make_mesh()
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.sharded = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        self._fused = NamedSharding(self.mesh, PartitionSpec(None, self.mesh.axis_names))

    def _make_mesh(self) -> jax.sharding.Mesh:
        return _mesh(self.devices, data=len(self.devices))

    def sum(self, tree: Any) -> Any:
        """Return, inside a step, the sum over the devices that share a batch."""
        return jax.lax.psum(tree, self.mesh.axis_names)

    def gather(self, tree: Any) -> Any:
        """Return, inside a step, the rows of all devices that share a batch, concatenated along the first axis."""
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, self.mesh.axis_names, tiled=True), tree)

    @functools.cached_property
    def local(self) -> Jit:
        """Return a `Jit` of the devices of this process, for work that each process does independently."""
        mine = [device for device in self.devices if device.process_index == jax.process_index()]
        return Jit(mine)

    def check_fused(self, fused: int) -> None:
        """Raise InputError if one call cannot compute `fused` steps."""

    def mean(self, tree: Any) -> Any:
        """Return, inside a step, the mean over the devices that share a batch."""
        if len(self.devices) == 1:
            return tree
        of_one_process = len({device.process_index for device in self.devices}) == 1
        if jax.default_backend() != "cpu" or of_one_process:
            return jax.lax.pmean(tree, self.mesh.axis_names)
        # Between processes XLA:CPU sends a message per array. One vector needs one message, but compiles longer.
        vector, back = jax.flatten_util.ravel_pytree(tree)
        return back(jax.lax.pmean(vector, self.mesh.axis_names))

    def whole(self, params: Any) -> Any:
        """Return, inside a step, complete parameters on every device."""
        return params

    def state_sharding(self, state: Any, cuts: Any = None) -> Any:
        """Return the sharding of each array of a state, for a pytree of arrays or shapes.

        `cuts` gives, by group, the axis along which each parameter is cut, or None, in the structure of the group's
        parameters. `cuts` applies to every part of the state with this structure, such as an average.
        """
        return jax.tree.map(lambda _: self.replicated, state)

    def place_state(self, state: Any, cuts: Any = None) -> Any:
        """Place the state on its devices, from a complete copy in each process."""
        return jax.tree.map(_place, state, self.state_sharding(state, cuts))

    def rows(self, batch_size: int) -> np.ndarray:
        """Return the ascending positions in a batch of the rows that this process must read for its devices."""
        spans = self.sharded.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[span] for span in spans if span]))

    def padded(self, size: int) -> int:
        """Return the smallest multiple of the number of devices that is at least `size`, the size of a batch."""
        return -(-size // len(self.devices)) * len(self.devices)

    def place_batch(self, batch: Any, batch_size: int | None = None, fused: bool = False) -> Any:
        """Place a training batch on its devices as `compile` expects; the arguments are those of `place_sharded`."""
        return self.place_sharded(batch, batch_size, fused)

    def place_sharded(self, batch: Any, batch_size: int | None = None, fused: bool = False) -> Any:
        """Split the batch axis of arrays over the devices, for programs that jax.jit distributes by their inputs.

        Args:
            batch: arrays (rows, ...), with the rows of the batch that `rows` returns.
            batch_size: the size of the whole batch; None if this process holds the whole batch.
            fused: whether the arrays are (steps, rows, ...), for several batches.
        """
        sharding, axis = (self._fused, 1) if fused else (self.sharded, 0)
        if sharding.is_fully_addressable:
            return jax.device_put(batch, sharding)
        if batch_size is None:
            raise InputError("place_batch needs batch_size if the devices belong to several processes.")
        rows = self.rows(batch_size)

        def place(leaf: np.ndarray) -> jax.Array:
            shape = (*leaf.shape[:axis], batch_size, *leaf.shape[axis + 1 :])

            def part(where: tuple[slice, ...] | None) -> np.ndarray:
                assert where is not None
                low = int(np.searchsorted(rows, where[axis].start or 0))
                length = len(range(*where[axis].indices(batch_size)))
                return leaf[(*where[:axis], slice(low, low + length))]

            return jax.make_array_from_callback(shape, sharding, part)

        return jax.tree.map(place, batch)

    def one_copy(self, tree: Any) -> Any:
        """Return a state as complete numpy arrays in every process.

        All processes must call this method. The state may be donated afterwards.
        """
        whole = jax.tree.map(self._one_device, tree)
        for leaf in jax.tree.leaves(whole):  # all copies start before the first one is awaited
            leaf.copy_to_host_async()
        return jax.tree.map(np.array, whole)

    def _one_device(self, leaf: jax.Array) -> jax.Array:
        if not leaf.is_fully_replicated:
            leaf = _gathering(self.replicated)(leaf)
        return leaf.addressable_data(0)

    def on_local(self, tree: Any) -> Any:
        """Return a part of the state, complete on each device of this process; all processes must call this method."""
        here = all(leaf.is_fully_replicated and leaf.is_fully_addressable for leaf in jax.tree.leaves(tree))
        return tree if here else self.local.place_state(self.one_copy(tree))

    def compile(self, step: Step, state: Any, fused: int = 1, cuts: Any = None) -> Step:
        """Return a step (state, batch, frozen) -> (state, metrics) on all devices; it reuses the old state's memory.

        Args:
            step: one training step; `frozen` is a pytree of arrays that the step only reads.
            state: a state, or the shapes of a state.
            fused: the number of steps per call; if above 1, the leaves of the batch and the metrics are (fused, ...).
            cuts: the cuts, as in `state_sharding`.
        """
        many = _repeated(step, fused)
        rows = (self.sharded if fused == 1 else self._fused).spec
        whole = PartitionSpec()
        spread = jax.shard_map(
            many, mesh=self.mesh, in_specs=(whole, rows, whole), out_specs=(whole, whole), check_vma=False
        )
        return jax.jit(spread, donate_argnums=0)


class Fsdp(Jit):
    """`Fsdp` runs jax.jit with parameters, averages and optimizer state in parts, one part on each device of a group.

    Without a declared axis an array is cut along its largest axis that the group's size divides. Arrays with fewer than
    `smallest` numbers, and arrays without a fitting axis, stay complete. A step gathers the parameters, so that it
    computes the same as `Jit`. The compiler sees the whole batch and inserts the sums over devices.

    Args:
        group: the number of devices that hold one copy of the state together; None for all devices.
        smallest: arrays with fewer numbers are not cut.
        devices: the devices; None for all devices of all processes.
    """

    def __init__(
        self, group: int | None = None, smallest: int = 4096, devices: Sequence[jax.Device] | None = None
    ) -> None:
        count = len(jax.devices() if devices is None else devices)
        if not is_whole(count if group is None else group, 1) or count % (group or count):
            raise InputError(f"The fsdp group is {group!r}; expected a number that divides the {count} devices.")
        self.group, self.smallest = group or count, smallest
        super().__init__(devices)

    def _make_mesh(self) -> jax.sharding.Mesh:
        return _mesh(self.devices, data=len(self.devices) // self.group, fsdp=self.group)

    def state_sharding(self, state: Any, cuts: Any = None) -> Any:
        def by_shape(leaf: Any) -> NamedSharding:
            return NamedSharding(self.mesh, self._cut(leaf.shape))

        # Cuts apply to parts with the structure of a group: parameters, an average, Adam's moments. None is a leaf.
        flat = (jax.tree.flatten(group, is_leaf=lambda cut: cut is None) for group in (cuts or {}).values())
        axes_of = {structure: axes for axes, structure in flat if any(axis is not None for axis in axes)}

        def declared(part: Any) -> Any:
            structure = jax.tree.structure(part)
            if structure not in axes_of:
                return by_shape(part)
            leaves = zip(jax.tree.leaves(part), axes_of[structure], strict=True)
            return jax.tree.unflatten(
                structure, [NamedSharding(self.mesh, self._cut(leaf.shape, axis)) for leaf, axis in leaves]
            )

        return jax.tree.map(declared, state, is_leaf=lambda part: jax.tree.structure(part) in axes_of)

    def _cut(self, shape: tuple[int, ...], axis: int | None = None) -> PartitionSpec:
        """Return a spec that splits the declared axis, or the last of the largest axes that the group size divides."""
        if axis is not None and shape[axis] % self.group == 0 and self.group > 1:
            return PartitionSpec(*(None,) * (axis % len(shape)), "fsdp")
        axes = [(length, axis) for axis, length in enumerate(shape) if length % self.group == 0]
        if not axes or np.prod(shape) < self.smallest or self.group == 1:
            return PartitionSpec()
        cut = max(axes)[1]
        return PartitionSpec(*(None,) * cut, "fsdp")

    def mean(self, tree: Any) -> Any:
        return tree

    def sum(self, tree: Any) -> Any:
        return tree

    def gather(self, tree: Any) -> Any:
        return tree

    def whole(self, params: Any) -> Any:
        return jax.lax.with_sharding_constraint(params, self.replicated)

    def compile(self, step: Step, state: Any, fused: int = 1, cuts: Any = None) -> Step:
        out = (self.state_sharding(state, cuts), self.replicated)
        return jax.jit(_repeated(step, fused), donate_argnums=0, out_shardings=out)


class Pmap(Jit):
    """`Pmap` runs jax.pmap: each device runs the step on its part of the batch, and means use the axis name.

    The results equal those of `Jit` up to rounding. `Pmap` is for code that builds on pmap, in one process; it copies
    the state at every step.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None) -> None:
        if jax.process_count() > 1:
            raise InputError("parallel is 'pmap' in a run of several processes; expected 'jit' or 'fsdp' there.")
        super().__init__(devices)

    def place_batch(self, batch: Any, batch_size: int | None = None, fused: bool = False) -> Any:
        count = len(self.devices)
        return jax.tree.map(lambda leaf: np.reshape(leaf, (count, -1, *np.shape(leaf)[1:])), batch)

    def check_fused(self, fused: int) -> None:
        if fused != 1:
            raise InputError(f"train.fused is {fused} with parallel='pmap'; expected 1 there, or parallel='jit'.")

    def compile(self, step: Step, state: Any, fused: int = 1, cuts: Any = None) -> Step:
        self.check_fused(fused)
        return jax.pmap(step, axis_name="data", in_axes=(None, 0, None), out_axes=None, devices=self.devices)


def _mesh(devices: Sequence[jax.Device], **axes: int) -> jax.sharding.Mesh:
    """Return a mesh with named axes, the last over neighbouring devices; jax.make_mesh rejects several hosts."""
    grid = np.asarray(devices).reshape(tuple(axes.values()))
    return jax.sharding.Mesh(grid, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def _place(leaf: Any, sharding: Sharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda where: host[where])


@functools.lru_cache(maxsize=8)
def _gathering(sharding: Sharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.copy, out_shardings=sharding)


def _repeated(step: Step, fused: int) -> Step:
    """Return the step itself, or a function that runs `fused` steps over stacked batches."""
    if fused == 1:
        return step
    return lambda state, batches, frozen: scan(lambda state, batch: step(state, batch, frozen), state, batches)


def scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, items: Any) -> tuple[Any, Any]:
    """Run jax.lax.scan, unrolled on a CPU, where XLA computes gradients of convolutions 30 times slower in a loop."""
    return jax.lax.scan(step, carry, items, unroll=jax.default_backend() == "cpu")


def ahead(place: Callable[[Any], Any], batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches on their devices; the transfer of each batch starts before the previous batch is used."""
    iterator = iter(batches)
    waiting = [place(batch) for _, batch in zip(range(1), iterator, strict=False)]
    for batch in iterator:
        waiting.append(place(batch))
        yield waiting.pop(0)
    yield from waiting


def check_batch(batch_size: int, devices: int, name: str = "batch_size", microbatches: int = 1) -> None:
    """Raise InputError if the devices (times micro-batches) do not divide the batch, with the nearest valid sizes."""
    parts = devices * microbatches
    if batch_size < 1 or batch_size % parts:
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        nearest = f"{above}" if below < 1 else f"{below} or {above}"
        what = f"{devices} devices" + (f" times {microbatches} micro-batches" if microbatches > 1 else "")
        raise InputError(f"{name} is {batch_size}, which {what} do not divide; the nearest that works: {nearest}.")


STRATEGIES: dict[str, Callable[..., Jit]] = {"jit": Jit, "fsdp": Fsdp, "pmap": Pmap}


def strategy(name: str) -> Jit:
    """Return the strategy that config.parallel names: 'jit', 'fsdp', 'fsdp:GROUP' or 'pmap'."""
    kind, colon, group = str(name).partition(":")
    if kind not in STRATEGIES or (colon and kind != "fsdp") or (colon and not group.isdecimal()):
        raise InputError(f"parallel is {name!r}; expected one of {', '.join(STRATEGIES)}, or fsdp:GROUP, as in fsdp:4.")
    return Fsdp(int(group)) if colon else STRATEGIES[kind]()
