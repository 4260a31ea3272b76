"""Conversions between other packages' ConvNeXt weights and :class:`ConvNeXtDCLS`.

ConvNeXtDCLS has the keys of the original ConvNeXt release, with ``P`` and ``SIG`` in
the depthwise convolutions. A classifier's ``norm`` and ``head`` are kept so that
nothing is lost, although a dense-prediction backbone doesn't use them.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._listing import listing
from ..functional import construct_kernel
from ..functional._arguments import IntOrTuple, as_bool, as_tuple
from ..functional.interpolation import interpolation_name
from ..layers import DCLSConv2d
from ..layers.local_branch import in_extent
from .published_weights import from_published, to_published
from .recognition import Match, matches, recognise
from .state_dicts import (
    SHOWN_KEYS,
    check_noted,
    check_prefix,
    check_state_dict,
    copy_with_metadata,
    layers_with_positions,
    note_position_axes,
    noted_axes,
    real_sigma,
    real_tensor,
    refuse_turned,
    under,
)
from .unrecognised import why_not

POSITION_KEY = r'(stages\.\d+)\.\d+\.dwconv\.(P|SIG)'

# The published backbones have square kernels, whose conversion ignores the extent.
ANY_SQUARE = 1


@torch.no_grad()
def from_convnext(
    state_dict: Mapping[str, Tensor],
    *,
    release: str | None = None,
    dilated_kernel_size: IntOrTuple = 17,
    interpolation: str = 'bilinear',
    sigma: float | None = None,
    prefix: str = '',
) -> OrderedDict:
    """Convert weights so that ConvNeXtDCLS computes what a plain ConvNeXt did.

    Each tap of a depthwise convolution becomes an element at its place on the grid, so
    7x7 weights need ``depthwise_cfg=dict(type='DCLSConv2d', kernel_count=49,
    dilated_kernel_size=...)``. All blocks of a stage get the same positions and can
    share them.

    Args:
        state_dict: weights of a classifier or a backbone; left unchanged.
        release: the format of its keys, by default recognised: 'convnext' (the original
            release), 'dinov3', 'eupe', 'mmpretrain', 'timm', 'timm-features',
            'torchvision', 'transformers' or 'transformers-dinov3'.
        dilated_kernel_size: extent in pixels, odd like the kernels of ``state_dict``.
        interpolation: 'bilinear' and 'triangle', and 'max' with sigma 0, give the same
            kernels. 'gauss' and 'max' with another sigma give the nearest ones, by
            least squares.
        sigma: SIG at the start in pixels, for 'gauss' and 'max'; by default the
            published one.
        prefix: what the backbone's keys start with; other keys are left unchanged.

    Returns:
        The weights, with weight (channels, 1, taps) and P (2, channels, 1, taps) in
        the depthwise convolutions.

    Raises:
        ValueError, TypeError: an argument is invalid, or no ConvNeXt of this
            release has such a key or shape; the message names it.

    Example:
        >>> from dcls_mm import ConvNeXtDCLS
        >>> from dcls_mm.conversion import from_convnext
        >>> plain = ConvNeXtDCLS(
        ...     'atto', depthwise_cfg=dict(type='Conv2d', kernel_size=7)
        ... )
        >>> large = dict(type='DCLSConv2d', kernel_count=49, dilated_kernel_size=17)
        >>> backbone = ConvNeXtDCLS('atto', depthwise_cfg=large)
        >>> backbone.load_state_dict(from_convnext(plain.state_dict()))
        <All keys matched successfully>
    """
    return start_of_convnext(
        state_dict,
        release=release,
        dilated_kernel_size=dilated_kernel_size,
        interpolation=interpolation,
        sigma=sigma,
        prefix=prefix,
    ).weights


class Start(NamedTuple):
    """Weights that start a ConvNeXtDCLS from a plain ConvNeXt.

    Attributes:
        weights: what :func:`from_convnext` returns.
        match: the format, and which keys were read or left.
        error: the largest relative error of a kernel, see ``DCLSConv2d.from_conv``.
    """

    weights: OrderedDict
    match: Match
    error: float


@torch.no_grad()
def start_of_convnext(
    state_dict: Mapping[str, Tensor],
    *,
    release: str | None = None,
    dilated_kernel_size: IntOrTuple = 17,
    interpolation: str = 'bilinear',
    sigma: float | None = None,
    prefix: str = '',
) -> Start:
    """Convert as :func:`from_convnext` does, and tell what became of the file."""
    extent = as_tuple('dilated_kernel_size', dilated_kernel_size, 2, minimum=1)
    check_state_dict(state_dict)
    check_prefix(prefix)
    match, read = read_convnext(under(state_dict, prefix), release)
    if any(key.endswith('.dwconv.P') for key in read):
        raise ValueError(
            f'state_dict has positions already, in the keys of {match.form.title}: '
            'ConvNeXtDCLS loads it as it is, or from_convnext_dcls converts it'
        )
    converted = copy_with_metadata(state_dict)
    for key in [key for key in converted if key.startswith(prefix)]:
        del converted[key]
    error = 0.0
    for name, value in read.items():
        key = prefix + name
        if not key.endswith('.dwconv.weight'):
            converted[key] = value
            continue
        start = key[: -len('weight')]
        layer = _layer_from(value, key, extent, interpolation, sigma)
        own = layer.state_dict()
        converted.update({f'{start}{tensor}': own[tensor] for tensor in own})
        converted._metadata[start[:-1]] = dict(own._metadata[''])
        error = max(error, layer.kernel_error)
    return Start(converted, match, error)


@torch.no_grad()
def to_convnext(
    state_dict: Mapping[str, Tensor],
    *,
    dilated_kernel_size: IntOrTuple,
    interpolation: str = 'bilinear',
) -> OrderedDict:
    """Convert weights to a plain ConvNeXt with the original's keys and dense kernels.

    Each learned kernel becomes the weight of an ``nn.Conv2d`` of its extent, which
    computes the same. The positions can't be recovered from it.

    Args:
        state_dict: weights of ConvNeXtDCLS; left unchanged.
        dilated_kernel_size, interpolation: arguments of its depthwise convolutions.

    Returns:
        The weights, with weight (channels, 1, *dilated_kernel_size) in the depthwise
        convolutions.

    Raises:
        ValueError, TypeError: an argument or a layer is invalid; the message names it.
    """
    extent = as_tuple('dilated_kernel_size', dilated_kernel_size, 2, minimum=1)
    name = interpolation_name(interpolation)
    converted = copy_with_metadata(state_dict)
    if normed := [key for key in state_dict if '.branch_norms.' in key]:
        raise ValueError(
            f'state_dict must have no norms in its layers, got {normed[0]}: fold the '
            'model with switch_to_deploy, and save that'
        )
    _check_dcls(state_dict, 'ConvNeXtDCLS')
    for layer in layers_with_positions(state_dict, ''):
        refuse_turned(state_dict, layer, 'a plain ConvNeXt')
        positions = real_tensor(state_dict, f'{layer}P')
        sigma = real_sigma(state_dict, layer, 'interpolation', interpolation)
        for parameter in ('P', 'SIG'):
            converted.pop(f'{layer}{parameter}', None)
        axes = noted_axes(state_dict, layer, (0, 1))
        if sorted(axes) != [0, 1] or len(positions) != 2:
            raise ValueError(
                f'{layer}P must have a row for each of the axes 0 and 1, got '
                f'{len(positions)} for {axes}'
            )
        argument = f'interpolation={interpolation!r}'
        check_noted(state_dict, layer, argument, name, extent)
        order = [axes.index(axis) for axis in range(2)]
        kernel = construct_kernel(
            real_tensor(state_dict, f'{layer}weight'),
            positions[order],
            None if sigma is None else sigma[order],
            kernel_size=extent,
            interpolation=name,
        )
        if converted.pop(f'{layer}local_weight', None) is not None:
            kernel += in_extent(real_tensor(state_dict, f'{layer}local_weight'), extent)
        converted[f'{layer}weight'] = kernel
        note_position_axes(converted, layer, None)
    return converted


def from_convnext_dcls(
    state_dict: Mapping[str, Tensor],
    *,
    version: str,
    sync_positions: bool = True,
    prefix: str = '',
) -> OrderedDict:
    """Convert weights of the published ConvNeXt-dcls code to ConvNeXtDCLS.

    The keys are the same; only the order of the rows of P and SIG differs, see
    :func:`from_published`.

    Args:
        state_dict: weights of a classifier or a backbone; left unchanged.
        version: version of its layers: 'v0', 'v1', 'max' or 'gauss'. The published
            weights are 'v0' except those with SIG, which are 'gauss'.
        sync_positions: check that the blocks of a stage have equal positions; False for
            weights that were trained without sharing them.
        prefix: what the backbone's keys start with; other keys are left unchanged.

    Raises:
        ValueError, TypeError: an argument is invalid, or such a backbone has no such
            key or value; the message names it.
    """
    check_state_dict(state_dict)
    check_prefix(prefix)
    as_bool('sync_positions', sync_positions)
    backbone = under(state_dict, prefix)
    _check_dcls(backbone, 'the published ConvNeXt-dcls', prefix)
    if sync_positions:
        _check_shared(backbone, prefix)
    return from_published(
        state_dict, version=version, dilated_kernel_size=ANY_SQUARE, prefix=prefix
    )


def to_convnext_dcls(
    state_dict: Mapping[str, Tensor], *, version: str, prefix: str = ''
) -> OrderedDict:
    """Invert :func:`from_convnext_dcls`, with the same arguments."""
    return to_published(
        state_dict, version=version, dilated_kernel_size=ANY_SQUARE, prefix=prefix
    )


def read_convnext(
    state_dict: Mapping[str, Tensor], release: str | None = None
) -> tuple[Match, OrderedDict]:
    """Read a state_dict of any format under the keys and shapes of the original.

    Args:
        state_dict: weights of a classifier or a backbone; left unchanged.
        release: the name of its format in ``FORMATS``; by default recognised.

    Returns:
        The match, and the weights with the metadata under the new names.

    Raises:
        ValueError, TypeError: it is of no format or another one, a value is no tensor
            or keys that repeat each other differ.
    """
    match = recognise(state_dict, release)
    if match is None:
        raise ValueError(why_not(state_dict, release))
    for key, first in match.repeated.items():
        if not torch.equal(*(real_tensor(state_dict, k) for k in (key, first))):
            raise ValueError(
                f'{key} differs from {first}, which {match.form.title} stores twice: '
                'the file was changed'
            )
    read, noted = OrderedDict(), OrderedDict()
    metadata = getattr(state_dict, '_metadata', None) or {}
    for key, name in match.original_names().items():
        value = real_tensor(state_dict, key)
        read[name] = value.reshape(_shape(name, value))
        module = key.rpartition('.')[0]
        if module in metadata:
            noted[name.rpartition('.')[0]] = dict(metadata[module])
    read._metadata = noted
    return match, read


def _shape(name: str, value: Tensor) -> tuple[int, ...]:
    """Return the shape in the original; others add axes of one pixel or sample."""
    if re.search(r'\.pwconv[12]\.weight$', name) and value.ndim == 4:
        return tuple(value.shape[:2])
    if re.search(r'\.(gamma|beta)$', name):
        return (value.numel(),)
    return tuple(value.shape)


def _layer_from(
    weight: Tensor,
    key: str,
    extent: tuple[int, ...],
    interpolation: str,
    sigma: float | None,
) -> DCLSConv2d:
    """Return a depthwise layer that computes what ``weight`` does."""
    if weight.ndim != 4 or weight.shape[1] != 1:
        raise ValueError(
            f'{key} must be depthwise, (channels, 1, height, width), '
            f'got {tuple(weight.shape)}'
        )
    channels, _, *size = weight.shape
    # The random initial values are discarded, so leave the generator as it was.
    with torch.random.fork_rng(devices=[]):
        conv = nn.Conv2d(
            channels,
            channels,
            size,
            padding=[side // 2 for side in size],
            groups=channels,
            bias=False,
        )
        conv.weight = nn.Parameter(weight)
        return DCLSConv2d.from_conv(
            conv,
            dilated_kernel_size=extent,
            interpolation=interpolation,
            initial_sigma=sigma,
        )


def _check_dcls(
    state_dict: Mapping[str, Tensor], source: str, prefix: str = ''
) -> None:
    """Raise a ValueError for keys that don't belong, or if no layer has positions.

    Args:
        state_dict: weights without ``prefix``, which only the message shows.
        source: what the state_dict should be of.
    """
    (match,) = matches(state_dict, 'dcls')
    if not any(key.endswith('.dwconv.P') for key in match.places):
        raise ValueError(
            f'state_dict is not of {source}: it has no stages.0.0.dwconv.P or the '
            f'like, only {listing(state_dict, SHOWN_KEYS) or "nothing"}'
        )
    if match.unknown:
        unknown = [prefix + key for key in match.unknown]
        raise ValueError(
            f'state_dict is not of {source}, which has no '
            f'{listing(unknown, SHOWN_KEYS)}'
        )


def _check_shared(state_dict: Mapping[str, Tensor], prefix: str) -> None:
    """Raise a ValueError if the blocks of a stage differ in P or SIG."""
    first = {}
    for key in state_dict:
        match = re.fullmatch(POSITION_KEY, key)
        if match:
            shared = first.setdefault(match.groups(), key)
            if not torch.equal(*(real_tensor(state_dict, k) for k in (shared, key))):
                raise ValueError(
                    f'{prefix}{key} differs from {prefix}{shared}, which the blocks '
                    'of a stage share: give sync_positions=False here and to the '
                    'backbone if they were trained separately'
                )
