"""This module recognises the network of a file, to name the settings that differ from the config."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from score_sde.core.errors import InputError
from score_sde.networks import COMPUTE_SETTINGS, DDPM, NCSN, NCSNpp, NCSNv2, Network, RefineNetwork, UNetNetwork
from score_sde.networks.refinenet import SECTIONS
from score_sde.pretrained.names import tensors, unused
from score_sde.readers.refusal import shown

Shapes = dict[str, tuple[int, ...]]

# _PHRASES describes a setting in a sentence. _VARIANTS gives the variant of a config that has this value.
_PHRASES = {
    "blocks": "{} blocks per resolution",
    "channels": "{} channels at the first resolution",
    "multipliers": "channel multipliers {}",
    "attention": "attention at the resolutions {}",
    "embedding": "a {} embedding",
    "noise_conditional": "noise_conditional {}",
    "name": "network {}",
    "levels": "{} noise levels",
    "size": "images of {} (by its levels and attention)",
}
_SIDES = (16, 32, 64, 128, 256, 512, 1024)  # sides of images to try, besides the config's own
_VARIANTS = {
    ("noise_conditional", False): "use variant unconditional",
    ("progressive_input", "none"): "use variant ddpmpp",
    ("progressive_input", "residual"): "use variant ncsnpp",
    ("embedding", "fourier"): "use the variants ve,ncsnpp without discrete",
    ("embedding", "positional"): "use the variant vp or subvp, or ve,discrete",
    ("name", "DDPM"): "use variant ddpm",
    ("name", "NCSNpp"): "use variant ncsnpp or ddpmpp",
    ("name", "NCSN"): "use variant ncsn",
    ("name", "NCSNv2"): "use variant ncsnv2",
}


def misfit(network: Network, form: str, shapes: Shapes, expected: Shapes) -> str:
    """Return why the tensors of a file do not fit a network, with a remedy."""
    found = recognise(network, form, shapes)
    if found is None:
        return _first_difference(shapes, expected)
    differences = _differences(network, found)
    said, remedies = [], []
    for name, (theirs, ours) in differences.items():
        phrase = _PHRASES.get(name, name + " {}").format(theirs)
        said.append(f"file has {phrase}, config says {ours}")
        remedies.append(_remedy(name, theirs, ours))
        if name == "size":
            remedies[-1] += _or_attention(network, found)
    if "name" in differences:  # the right network brings the other settings, except the size
        kept = [list(differences).index(name) for name in ("name", "size") if name in differences]
        said, remedies = ([texts[k] for k in kept] for texts in (said, remedies))
    return f"{'; '.join(said)}: {', '.join(dict.fromkeys(remedies))}"


def _or_attention(network: Network, found: Any) -> str:
    """Return a second remedy: the attention that fits the file at the config's image size; '' if none fits."""
    own, theirs = network.shape[0], found.shape[0]
    there = tuple(side * own // theirs for side in getattr(found, "attention", ()))
    if not there or _like(found, type(found), shape=network.shape, attention=there) is None:
        return ""
    return f", or --config.network.attention={_flag(there)} for images of {own} x {own}"


def _remedy(name: str, theirs: Any, ours: Any) -> str:
    if name == "blocks" and {theirs, ours} == {4, 8}:
        return "use variant deep" if theirs == 8 else "omit the variant deep"
    if name == "shape":
        return f"use a data set whose images have {theirs[2]} channels"
    if name == "size":
        return f"use the config of a data set with images of {theirs}"
    if name == "depth":
        return (
            f"use the config of a data set with images of about {theirs} x {theirs}, or --config.network.depth={theirs}"
        )
    return _VARIANTS.get((name, theirs), f"use --config.network.{name}={_flag(theirs)}")


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
    return f"file has {len(left)} tensors that the config's network does not have, such as {shown(left[0])}"


def _differences(network: Network, found: UNetNetwork | RefineNetwork) -> dict[str, tuple[Any, Any]]:
    """Return {setting: (value in the file, value in the config)}."""
    different: dict[str, tuple[Any, Any]] = {}
    if type(found) is not type(network):
        different["name"] = type(found).__name__, type(network).__name__
    if found.shape[:2] != network.shape[:2]:
        size_of = "{0[0]} x {0[1]}".format
        different["size"] = size_of(found.shape), size_of(network.shape)
    if found.shape[2] != network.shape[2]:
        different["shape"] = found.shape, network.shape
    for field in dataclasses.fields(found):
        theirs, ours = getattr(found, field.name), getattr(network, field.name, None)
        if field.name not in ("shape", *COMPUTE_SETTINGS) and theirs != ours:
            different[field.name] = theirs, ours
    return different


def is_refine(shapes: Shapes) -> bool:
    """Return whether the tensors belong to NCSN or NCSNv2."""
    return "begin_conv.weight" in shapes or any("RefineBlock_" in name for name in shapes)


def recognise(like: Network, form: str, shapes: Shapes) -> UNetNetwork | RefineNetwork | None:
    """Return the network with exactly these tensors, or None; settings that no tensor shows come from `like`."""
    candidates = _refine_candidates(like, form, shapes) if is_refine(shapes) else _unet_candidates(like, form, shapes)
    for candidate in candidates:
        wanted = tensors(candidate)
        left = unused(candidate) if form == "torch" else frozenset()
        kept = {name: shape for name, shape in shapes.items() if name not in left}
        if left <= shapes.keys() and kept == dict(each.in_file(form) for each in wanted):
            return candidate
    return None


def _like(like: Network, kind: Any, **settings: Any) -> Any:
    """Return a network of class `kind` with the settings that both classes have; None if they conflict."""
    names = {field.name for field in dataclasses.fields(kind)}
    kept = {f.name: getattr(like, f.name) for f in dataclasses.fields(like) if f.name in names}  # type: ignore[arg-type]
    try:
        return kind(**kept | {name: value for name, value in settings.items() if name in names})
    except InputError:
        return None


def _refine_candidates(like: Network, form: str, shapes: Shapes) -> Iterator[RefineNetwork]:
    first = shapes.get("begin_conv.weight", ())[1::-1] if form == "torch" else shapes.get("Conv_0/kernel", ())[2:]
    tables = [shape for name, shape in shapes.items() if re.search(r"(embed\.weight|Embed_0/embedding)$", name)]
    rows = tables[0][0] if tables and tables[0] else None
    if len(first) != 2 or not first[1] or len(like.shape) != 3:
        return
    kind = NCSNv2 if rows is None else NCSN
    settings = dict(channels=first[1], shape=(*like.shape[:2], first[0]), port=form == "torch")
    levels = {} if rows is None else {"levels": rows}
    for depth in SECTIONS if kind is NCSNv2 else (64,):
        candidate = _like(like, kind, **settings, **levels, depth=depth)
        if candidate is not None:
            yield candidate


def _unet_candidates(like: Network, form: str, shapes: Shapes) -> Iterator[UNetNetwork]:
    blocks, channels = _blocks(form, shapes), _first_conv(form, shapes)
    if not blocks or channels is None or not channels[1] or len(like.shape) != 3:
        return
    # In the port, DDPM and NCSN++ with 'ddpm' blocks have equal names. Of the two, DDPM was published, so try it first.
    alike = isinstance(like, NCSNpp) and like.resblock == "ddpm"
    kinds: tuple[type, ...] = (NCSNpp, DDPM) if alike else (DDPM, type(like), NCSNpp)
    for places, settings in _settings(like, form, shapes, blocks, channels[1]):
        for kind in dict.fromkeys(kinds):
            if not issubclass(kind, UNetNetwork):
                continue
            for height, width in _image_sizes(like, places):
                sizes = dict(shape=(height, width, channels[0]), attention=_attention(height, places))
                candidate = _like(like, kind, **settings, **sizes)
                if candidate is not None:  # one size is enough, because every size has equal tensors
                    yield candidate
                    break


def _attention(height: int, places: tuple[int, ...]) -> tuple[int, ...]:
    """Return the heights of the feature maps at these levels, the largest first."""
    return tuple(sorted((height >> level for level in places), reverse=True))


def _image_sizes(like: Network, places: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the possible (height, width), the likeliest first.

    Tensors are equal for images of every size, but the levels with attention usually show the size. Sizes with the
    attention of the config come first, then the config's own size, then the smallest size.
    """
    own = (like.shape[0], like.shape[1])
    others = [(side, side) for side in _SIDES if own[0] == own[1] and side != own[0]]
    return sorted([own, *others], key=lambda size: not _explains(like, size[0], places))


def _explains(like: Network, height: int, places: tuple[int, ...]) -> bool:
    """Return whether these levels, for images of this height, have the heights of the config's attention."""
    return _attention(height, places) == tuple(sorted(getattr(like, "attention", ()), reverse=True))


def _in_order(like: Network, levels: int, attentions: int) -> list[tuple[int, ...]]:
    """Return the sets of levels that may have attention, the likeliest first.

    A msgpack file does not always show the levels. The levels of the config at its own size come first, then its levels
    at another size; among equals, a lowest feature map of side 4 comes first, as in the published networks.
    """

    def rank(places: tuple[int, ...]) -> tuple[bool, bool, int]:
        height = _image_sizes(like, places)[0][0]
        explains = _explains(like, height, places)
        return not (explains and height == like.shape[0]), not explains, abs((height >> (levels - 1)) - 4)

    return sorted(itertools.combinations(range(levels), attentions), key=rank)


def _settings(
    like: Network, form: str, shapes: Shapes, blocks: list[tuple[int, int]], channels: int
) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """Yield (levels with attention, other settings) that are possible with these tensors."""
    text = "\n".join(shapes)
    combined = "Combine" in text or any(
        s[2:] == (1, 1) and re.fullmatch(r"all_modules\.\d+\.Conv_0\.weight", n) for n, s in shapes.items()
    )
    filtered = "Conv2d_0" in text
    attentions = len(re.findall(r"NIN_3[./]W", text))
    fourier = any(len(s) == 1 and re.search(r"[./]W$", n) for n, s in shapes.items())
    linear = [n for n, s in shapes.items() if len(s) == 2 and re.fullmatch(r"all_modules\.\d+\.weight", n)]
    fixed = dict(
        channels=channels,
        embedding="fourier" if fourier else "positional",
        noise_conditional=bool(linear) if form == "torch" else "Dense_0/kernel" in shapes,
    )
    firs = (True,) if filtered else (getattr(like, "fir", False), not getattr(like, "fir", False))
    inputs = ("input_skip",) if combined else ("none", "residual")
    ways = ("sum", "cat") if combined else (getattr(like, "combine", "sum"),)
    for resblock in ("biggan", "ddpm"):
        for places, sizes in _sizes(like, resblock, blocks, channels, attentions):
            convs = (True, False) if resblock == "ddpm" else (getattr(like, "resample_with_conv", True),)
            for grows, comes, way, fir, conv in itertools.product(
                ("none", "output_skip", "residual"), inputs, ways, firs, convs
            ):
                choice = dict(progressive=grows, progressive_input=comes, combine=way, fir=fir, resample_with_conv=conv)
                yield places, fixed | sizes | choice | dict(resblock=resblock)


def _sizes(
    like: Network, resblock: str, blocks: list[tuple[int, int]], channels: int, attentions: int
) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """Yield (levels with attention, blocks and multipliers) that fit the sequence of residual blocks."""
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
        for places in _in_order(like, levels, (attentions - 1) // (each + 1)):
            yield places, dict(blocks=each, multipliers=tuple(out // channels for out in outs))


def _blocks(form: str, shapes: Shapes) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the residual blocks, in order."""
    found = {}
    for name, shape in shapes.items():
        if form == "torch":
            at = re.fullmatch(r"all_modules\.(\d{1,6})\.Conv_0\.weight", name)
            if at and f"all_modules.{at[1]}.GroupNorm_1.weight" in shapes and len(shape) == 4:
                found[int(at[1])] = shape[1], shape[0]
        else:
            at = re.fullmatch(r"ResnetBlock\w+_(\d{1,6})/Conv_0/kernel", name)
            if at and len(shape) == 4:
                found[int(at[1])] = shape[2], shape[3]
    return [found[place] for place in sorted(found)]


def _first_conv(form: str, shapes: Shapes) -> tuple[int, int] | None:
    """Return (inputs, outputs) of the first convolution; None without such a tensor."""
    if form == "flax":
        shape = shapes.get("Conv_0/kernel", ())
        return (shape[2], shape[3]) if len(shape) == 4 else None
    places = {int(at[1]): shapes[n] for n in shapes if (at := re.fullmatch(r"all_modules\.(\d{1,6})\.weight", n))}
    convs = [shape for _, shape in sorted(places.items()) if len(shape) == 4]
    return (convs[0][1], convs[0][0]) if convs else None
