"""Replacement of any model's plain convolutions with layers that make their kernel."""

import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from .._listing import listing
from ..functional._arguments import IntOrTuple, as_tuple, check_choice
from ..layers import ConstructedConvNd, DCLSConvNd
from ..layers.module_places import find_places, put
from ..layers.positions import LearnedPositions

STARTS = ('conv', 'fresh')

SHOWN_CONVS = 8

# The relative error of a kernel from which trained networks change their predictions
# (benchmarks/real_weights.py).
LARGE_ERROR = 0.01


class Replaced(NamedTuple):
    """A convolution that has been replaced by another layer.

    Attributes:
        name: name inside the model.
        was, became: type, extent and groups before and after.
        shares: name of the layer whose positions it shares; None if they are its own.
        error: how far its kernel is from the convolution's, relative to that kernel's
            norm, if it starts from it (see ``DCLSConvNd.from_conv``).
    """

    name: str
    was: str
    became: str
    shares: str | None
    error: float = 0.0

    def __str__(self) -> str:
        shared = f', positions of {self.shares}' if self.shares else ''
        error = f', kernel within {self.error:.2g}' if self.error else ''
        return f'{self.name}: {self.was} -> {self.became}{shared}{error}'


def replace_convs(
    model: nn.Module,
    layer: type[ConstructedConvNd],
    *,
    name: str | None = None,
    kernel_size: IntOrTuple | None = None,
    depthwise: bool | None = None,
    start: str = 'conv',
    share_positions: str | None = None,
    **options,
) -> list[Replaced]:
    """Replace each chosen convolution of a model with a ``layer``.

    Output sizes stay the same. A convolution that appears in two places stays one
    module. Replacing a frozen convolution freezes the positions too.

    Args:
        model: model to change in place; left unchanged if an error is raised.
        layer: class of the layers, such as DCLSConv2d. It replaces torch.nn.ConvNd with
            the same number of axes, or mmcv's wrapper of it.
        name: regular expression to search for in a convolution's dotted name inside the
            model; None for any name.
        kernel_size: kernel size of the convolutions to choose; None for any.
        depthwise: True for as many groups as input channels, False for fewer, None for
            both.
        start: 'conv' makes each layer compute what the convolution computes, using
            ``layer.from_conv``, or nearly so if its elements spread over several taps
            ('gauss', or 'max' with a sigma); the error is listed. 'fresh' keeps the
            convolution's geometry and the layer's own initial values. Without a local
            branch, 'conv' puts the positions on whole pixels, from which neither
            'triangle' nor 'max' with sigma 0 can move them: these give a warning.
        share_positions: regular expression to search for in the name. Layers for which
            its groups match the same text share their positions (and sigma), provided
            that the positions' shapes and the convolutions' kernel sizes and dilations
            match. ``r'layer(\\d)'`` shares within each stage of a ResNet; without
            groups, all layers share.
        options: keyword arguments of the layer, except those that the convolution
            determines.

    Returns:
        What was replaced, in the order of the model.

    Raises:
        ValueError, TypeError: an argument is invalid, no convolution is chosen, or one
            computes more than a plain convolution or can't become such a layer; the
            message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import DCLSConv2d, replace_convs
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 7, groups=8)
        ... )
        >>> for replaced in replace_convs(
        ...     model, DCLSConv2d, depthwise=True, dilated_kernel_size=17
        ... ):
        ...     print(replaced)
        1: Conv2d 7x7, 8 groups -> DCLSConv2d 17x17, 8 groups
    """
    _check_layer(layer, start, share_positions)
    if not isinstance(model, nn.Module):
        raise TypeError(f'model must be a torch.nn.Module, got {model!r}')
    names = find_places(model, getattr(nn, f'Conv{layer.ndim}d'))
    if any('' in places for places in names.values()):
        raise ValueError(
            "the model is itself a convolution, which can't be replaced in place: "
            f'use {layer.__name__}.from_conv(conv)'
        )
    chosen = _choose(names, layer.ndim, name, kernel_size, depthwise)
    made = {}
    for conv in chosen:
        _check_plain(conv, names)
        try:
            made[conv] = _make(layer, conv, start, options)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{names[conv][0]} can't become a {layer.__name__}: {error}"
            ) from error
    if start == 'conv':
        _warn_of_stuck_positions(made.values())
        _warn_of_errors(made.values())
    first_names = {conv: names[conv][0] for conv in chosen}
    shares = {}
    if share_positions is not None:
        shares = _share(made, first_names, share_positions)
    for conv, new in made.items():
        put(model, names[conv], new)
    return [
        Replaced(
            first_names[conv],
            describe(conv),
            describe(new),
            shares.get(conv),
            getattr(new, 'kernel_error', 0.0),
        )
        for conv, new in made.items()
    ]


def describe(conv: Any) -> str:
    """Summarise type, extent, dilation and groups, as in 'Conv2d 3x3, 96 groups'."""
    made = isinstance(conv, ConstructedConvNd)
    size = conv.extent if made else conv.kernel_size
    text = f'{type(conv).__name__} {_by(size)}'
    if not made and set(conv.dilation) != {1}:
        text += f' dilated by {_by(conv.dilation)}'
    return text + (f', {conv.groups} groups' if conv.groups > 1 else '')


def _by(sizes: tuple[int, ...]) -> str:
    return 'x'.join(map(str, sizes))


def _check_layer(layer: Any, start: str, share_positions: str | None) -> None:
    """Raise an error for a layer that can't replace convolutions, start so or share."""
    is_layer = isinstance(layer, type) and issubclass(layer, ConstructedConvNd)
    if not is_layer or layer.transposed or not hasattr(layer, 'ndim'):
        raise TypeError(
            'layer must be a class of convolutions of dcls_mm that are not transposed, '
            f'such as DCLSConv2d, got {getattr(layer, "__name__", repr(layer))}'
        )
    check_choice('start', start, STARTS)
    if start == 'conv' and not hasattr(layer, 'from_conv'):
        raise ValueError(
            "start='conv' needs a layer with a method from_conv, which "
            f"{layer.__name__} doesn't have: use start='fresh'"
        )
    if share_positions is not None:
        _compile('share_positions', share_positions)
        if not issubclass(layer, LearnedPositions):
            raise ValueError(
                f'share_positions must be left out: a {layer.__name__} has no positions'
            )


def _compile(argument: str, pattern: str) -> re.Pattern:
    if not isinstance(pattern, str):
        raise TypeError(f'{argument} must be a regular expression, got {pattern!r}')
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f'{argument} must be a regular expression, got {pattern!r}: {error}'
        ) from error


def _choose(
    names: dict[Any, list[str]],
    ndim: int,
    name: str | None,
    kernel_size: IntOrTuple | None,
    depthwise: bool | None,
) -> list[Any]:
    """Choose convolutions of ``names`` by the criteria of :func:`replace_convs`."""
    if depthwise is not None and not isinstance(depthwise, bool):
        raise TypeError(f'depthwise must be True, False or None, got {depthwise!r}')
    pattern = None if name is None else _compile('name', name)
    size = None
    if kernel_size is not None:
        size = as_tuple('kernel_size', kernel_size, ndim, minimum=1)
    chosen = [
        conv
        for conv, places in names.items()
        if (pattern is None or any(map(pattern.search, places)))
        and size in (None, conv.kernel_size)
        and depthwise in (None, conv.groups == conv.in_channels > 1)
    ]
    if chosen:
        return chosen
    kind = f'Conv{ndim}d'
    if not names:
        raise ValueError(f'the model has no {kind} to replace')
    shown = [f'{places[0]} ({describe(conv)})' for conv, places in names.items()]
    raise ValueError(
        f'name={name!r}, kernel_size={kernel_size}, depthwise={depthwise} match none '
        f'of the {len(shown)} {kind} of the model: {listing(shown, SHOWN_CONVS, "; ")}'
    )


def _check_plain(conv: Any, names: dict[Any, list[str]]) -> None:
    """Raise a ValueError if ``conv`` computes or shares more than torch's ConvNd."""
    kind = f'Conv{len(conv.kernel_size)}d'
    # A model with mmcv's convolutions has already imported them.
    wrappers = sys.modules.get('mmcv.cnn.bricks.wrappers')
    parameters = [key for key, _ in conv.named_parameters()]
    tied = [other for other in names if other.weight is conv.weight]
    if type(conv) not in (getattr(nn, kind), getattr(wrappers, kind, None)):
        trouble = f'is a {type(conv).__name__}, which may compute more than a {kind}'
    elif not set(parameters) <= {'weight', 'bias'}:
        trouble = f'computes its weight from {", ".join(parameters)}'
    elif conv._forward_pre_hooks or conv._forward_hooks:
        trouble = 'has forward hooks, which would be lost'
    elif len(tied) > 1:
        trouble = f'shares its weight with {", ".join(names[c][0] for c in tied[1:])}'
    else:
        return
    raise ValueError(
        f"{names[conv][0]} can't be replaced because it {trouble}: exclude it by name"
    )


def _make(layer: Any, conv: Any, start: str, options: dict) -> ConstructedConvNd:
    """Make the layer for one convolution, frozen where the convolution is."""
    if start == 'conv':
        new = layer.from_conv(conv, **options)
    else:
        new = layer(
            **{key: getattr(conv, key) for key in DCLSConvNd.CONV_ARGUMENTS},
            bias=conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
            **options,
        )
        new.accepts_plain_kernels = False
    for key, parameter in new.named_parameters():
        replaced = conv.bias if key == 'bias' else conv.weight
        if not replaced.requires_grad:
            parameter.requires_grad_(False)
    return new.train(conv.training)


def _warn_of_stuck_positions(layers: Iterable[ConstructedConvNd]) -> None:
    """Warn of positions that can't leave the whole pixels they start on.

    Around a whole pixel, all profiles but the bilinear one are flat or symmetric, so
    only an element that reaches the next pixel has a gradient there.
    """
    for layer in layers:
        if not isinstance(layer, DCLSConvNd) or layer.initial_positions != 'grid':
            continue
        learns = layer.P.requires_grad
        if learns and layer.interpolation != 'bilinear' and not layer.kernel_error:
            warnings.warn(
                f"start='conv' puts the positions on whole pixels, where interpolation "
                f'{layer.interpolation!r} gives them no gradient: they stay there '
                "unless a hook moves them or widens sigma; 'bilinear' can learn them",
                stacklevel=3,
            )
            return


def _warn_of_errors(layers: Iterable[ConstructedConvNd]) -> None:
    """Warn if the layers can't compute what the convolutions compute."""
    error = max(getattr(layer, 'kernel_error', 0.0) for layer in layers)
    if error > LARGE_ERROR:
        warnings.warn(
            f"start='conv' gives a kernel with a relative error of {error:.2g}, so the "
            'model no longer computes what it did: make initial_sigma smaller, such as '
            '0.02, or give elements for a ring of taps more (kernel_count=49 for 5x5)',
            stacklevel=3,
        )


def _share(
    made: dict[Any, Any], names: dict[nn.Module, str], pattern: str
) -> dict[nn.Module, str]:
    """Share positions; return, by convolution, the name of the layer that owns them."""
    owners: dict[tuple, Any] = {}
    shares = {}
    for conv, layer in made.items():
        match = re.search(pattern, names[conv])
        if match is None:
            continue
        group = match.groups(), conv.kernel_size, conv.dilation, layer.P.shape
        owner = owners.setdefault(group, conv)
        if owner is conv:
            continue
        if made[owner].P.requires_grad != layer.P.requires_grad:
            raise ValueError(
                f'share_positions={pattern!r} joins {names[owner]} and {names[conv]}, '
                'of which only one is frozen: add a group that tells them apart'
            )
        layer.share_positions(made[owner])
        shares[conv] = names[owner]
    if not owners:
        raise ValueError(
            f'share_positions={pattern!r} matches none of the names of the chosen '
            f'convolutions, such as {next(iter(names.values()))}'
        )
    return shares
