"""Which network a file's tensors are of, where they are not of the config's: so that the setting can be named."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from score_sde.core.errors import InputError
from score_sde.networks import DDPM, NCSNpp, Network, UNetNetwork
from score_sde.published.names import tensors
from score_sde.published.refusal import shown
from score_sde.published.weights import Weights

Shapes = dict[str, tuple[int, ...]]

# How a setting is called in a sentence, and the variant of a config that has this value of it.
_PHRASES = {
    "blocks": "{} blocks per resolution",
    "channels": "{} channels at the first resolution",
    "multipliers": "channel multipliers {}",
    "attention": "attention at the resolutions {}",
    "embedding": "a {} embedding",
    "noise_conditional": "noise_conditional {}",
}
_VARIANTS = {
    ("blocks", 8): "use variant deep",
    ("blocks", 4): "leave out the variant deep",
    ("noise_conditional", False): "use variant unconditional",
    ("progressive_input", "none"): "use variant ddpmpp",
    ("progressive_input", "residual"): "use variant ncsnpp",
    ("embedding", "fourier"): "use the variants ve,ncsnpp without discrete",
    ("embedding", "positional"): "use the variant vp or subvp, or ve,discrete",
    ("name", "DDPM"): "use variant ddpm",
    ("name", "NCSNpp"): "use variant ncsnpp or ddpmpp",
}


def misfit(network: Network, weights: Weights, shapes: Shapes, expected: Shapes) -> str:
    """Why a file's tensors are not those of a network, and what to do."""
    found = recognise(network, weights.format, shapes) if isinstance(network, UNetNetwork) else None
    if found is None or not isinstance(network, UNetNetwork):
        return _first_difference(shapes, expected)
    differences = _differences(network, found)
    said, remedies = [], []
    for name, (theirs, ours) in differences.items():
        phrase = _PHRASES.get(name, name + " {}").format(theirs)
        said.append(f"file has {phrase}, config says {ours}")
        remedies.append(_VARIANTS.get((name, theirs), f"use --config.network.{name}={_flag(theirs)}"))
    if "name" in differences:  # the other settings come with it
        return f"{said[0]}: {remedies[0]}"
    return f"{'; '.join(said)}: {', '.join(dict.fromkeys(remedies))}"


def _flag(value: Any) -> str:
    return "'" + str(value).replace(" ", "") + "'" if isinstance(value, tuple) else str(value)


def _first_difference(shapes: Shapes, expected: Shapes) -> str:
    for name, shape in expected.items():
        if name not in shapes:
            missing = sum(each not in shapes for each in expected)
            return f"file has no tensor {name} ({missing} are missing, {len(set(shapes) - set(expected))} left over)"
        if shapes[name] != shape:
            return f"file has {name} in shape {shapes[name]}, config makes {shape}"
    left = sorted(set(shapes) - set(expected))
    return f"file has {len(left)} tensors that the config's network has not, such as {shown(left[0])}"


def _differences(network: UNetNetwork, found: UNetNetwork) -> dict[str, tuple[Any, Any]]:
    """{setting: (in the file, in the config)}."""
    different: dict[str, tuple[Any, Any]] = {}
    if type(found) is not type(network):
        different["name"] = type(found).__name__, type(network).__name__
    if found.shape[2] != network.shape[2]:
        different["shape"] = found.shape, network.shape
    for field in dataclasses.fields(found):
        theirs, ours = getattr(found, field.name), getattr(network, field.name, None)
        if field.name != "shape" and theirs != ours:
            different[field.name] = theirs, ours
    return different


def recognise(like: UNetNetwork, form: str, shapes: Shapes) -> UNetNetwork | None:
    """The network whose tensors have exactly these names and shapes, with the settings of `like` where none shows."""
    blocks, channels = _blocks(form, shapes), _first_conv(form, shapes)
    if not blocks or channels is None:
        return None
    shape = (*like.shape[:2], channels[0])
    for settings in _settings(like, shapes, blocks, channels[1]):
        kinds: tuple[type[UNetNetwork], ...] = (type(like), NCSNpp, DDPM)
        for kind in dict.fromkeys(kinds):
            names = {field.name for field in dataclasses.fields(kind)}
            kept = {f.name: getattr(like, f.name) for f in dataclasses.fields(like) if f.name in names}
            try:
                candidate = kind(**kept | {k: v for k, v in settings.items() if k in names} | {"shape": shape})
                wanted = tensors(candidate)
            except InputError:
                continue
            if len(wanted) == len(shapes) and shapes == {
                each.torch if form == "torch" else each.flax: each.torch_shape if form == "torch" else each.shape
                for each in wanted
            }:
                return candidate
    return None


def _settings(
    like: UNetNetwork, shapes: Shapes, blocks: list[tuple[int, int]], channels: int
) -> Iterator[dict[str, Any]]:
    """Settings that the tensors leave possible."""
    text = "\n".join(shapes)
    combined = "Combine" in text or any(
        s[2:] == (1, 1) and re.fullmatch(r"all_modules\.\d+\.Conv_0\.weight", n) for n, s in shapes.items()
    )
    filtered = "Conv2d_0" in text
    attentions = len(re.findall(r"NIN_3[./]W", text))
    fixed = dict(
        channels=channels,
        embedding="fourier"
        if any(len(s) == 1 and re.search(r"[./]W$", n) for n, s in shapes.items())
        else "positional",
        noise_conditional=re.search(r"[./]Dense_0[./]", text) is not None,
    )
    firs = (True,) if filtered else (getattr(like, "fir", False), not getattr(like, "fir", False))
    inputs = ("input_skip",) if combined else ("none", "residual")
    ways = ("sum", "cat") if combined else (getattr(like, "combine", "sum"),)
    for resblock in ("biggan", "ddpm"):
        for sizes in _sizes(like.shape[0], resblock, blocks, channels, attentions):
            convs = (True, False) if resblock == "ddpm" else (getattr(like, "resample_with_conv", True),)
            for grows, comes, way, fir, conv in itertools.product(
                ("none", "output_skip", "residual"), inputs, ways, firs, convs
            ):
                choice = dict(progressive=grows, progressive_input=comes, combine=way, fir=fir, resample_with_conv=conv)
                yield fixed | sizes | choice | dict(resblock=resblock)


def _sizes(
    height: int, resblock: str, blocks: list[tuple[int, int]], channels: int, attentions: int
) -> Iterator[dict[str, Any]]:
    """Levels, blocks, multipliers and attention that fit the sequence of residual blocks."""
    between = 1 if resblock == "biggan" else 0
    for levels in range(1, 13):
        rest = len(blocks) - 2 - 2 * between * (levels - 1) - levels
        if rest <= 0 or rest % (2 * levels):
            continue
        each = rest // (2 * levels)
        widths = [{out for _, out in blocks[level * (each + between) :][:each]} for level in range(levels)]
        if any(len(width) != 1 for width in widths):
            continue
        outs = [width.pop() for width in widths]
        if any(out % channels for out in outs) or (attentions - 1) % (each + 1):
            continue
        for places in itertools.combinations(range(levels), (attentions - 1) // (each + 1)):
            heights = tuple(sorted((height >> level for level in places), reverse=True))
            yield dict(blocks=each, multipliers=tuple(out // channels for out in outs), attention=heights)


def _blocks(form: str, shapes: Shapes) -> list[tuple[int, int]]:
    """(inputs, outputs) of the residual blocks, in order."""
    found = {}
    for name, shape in shapes.items():
        if form == "torch":
            at = re.fullmatch(r"all_modules\.(\d+)\.Conv_0\.weight", name)
            if at and f"all_modules.{at[1]}.GroupNorm_1.weight" in shapes and len(shape) == 4:
                found[int(at[1])] = shape[1], shape[0]
        else:
            at = re.fullmatch(r"ResnetBlock\w+_(\d+)/Conv_0/kernel", name)
            if at and len(shape) == 4:
                found[int(at[1])] = shape[2], shape[3]
    return [found[place] for place in sorted(found)]


def _first_conv(form: str, shapes: Shapes) -> tuple[int, int] | None:
    """(inputs, outputs) of the first convolution."""
    if form == "flax":
        shape = shapes.get("Conv_0/kernel", ())
        return (shape[2], shape[3]) if len(shape) == 4 else None
    places = {int(at[1]): shapes[n] for n in shapes if (at := re.fullmatch(r"all_modules\.(\d+)\.weight", n))}
    convs = [shape for _, shape in sorted(places.items()) if len(shape) == 4]
    return (convs[0][1], convs[0][0]) if convs else None
