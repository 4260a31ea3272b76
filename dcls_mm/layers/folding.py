"""DCLS layers as the convolutions that they compute, dense or sparse, to deploy."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._listing import listing
from ..functional._arguments import as_bool, check_choice
from .base import ConstructedConvNd
from .module_places import find_places, put
from .sparse import SparseConvNd, why_not_sparse

# What a layer computes besides its kernel; some kinds lack one of these.
FORWARD_PASS = ('forward', '_conv_forward')

# All other parameters are weights of a kernel or of the network that makes it.
NOT_WEIGHTS = {'bias', 'P', 'SIG'}

# What the bias of the convolution comes from.
BIASES = {'bias', 'branch_norms'}


class Folded(NamedTuple):
    """A layer that has become a convolution with a fixed kernel.

    Attributes:
        name: name of the layer inside the model.
        taps: number of taps in all its kernels.
        used: how many of them are not zero.
        form: the form that it got, 'dense' or 'sparse'.
    """

    name: str
    taps: int
    used: int
    form: str


def switch_to_deploy(
    model: nn.Module, round_positions: bool = False, form: str = 'dense'
) -> list[Folded]:
    """Replace every DCLS layer of a model with a convolution with a fixed kernel.

    This covers all layers that make their kernel: transposed layers, layers with the
    signatures of other packages, layers that sample their input, and large-kernel
    convolutions. In evaluation mode the model computes the same as before, up to
    rounding. Positions are no longer shared or learned. A layer with several names
    stays one layer under all of them; a wrapper from torch.compile goes too.

    Args:
        model: model to change in place; left unchanged if a layer can't be folded.
        round_positions: see :func:`fold`; True changes the outputs.
        form: 'dense' gives a plain torch.nn.ConvNd for each layer. 'sparse' gives a
            :class:`.SparseConvNd`, which needs this package to run, for each layer that
            can be one (see :func:`fold`), and the dense form for the others.

    Returns:
        What was replaced, in the order of the model.

    Raises:
        ValueError: there is no such layer, ``model`` itself is one, the layer named in
            the message can't be folded, or ``form`` is 'sparse' and no layer can be.
        TypeError: the argument named in the message has the wrong type.

    Example:
        >>> import torch
        >>> from dcls_mm import DCLSConv2d, switch_to_deploy
        >>> model = torch.nn.Sequential(
        ...     DCLSConv2d(4, 4, 3, padding=1, dilated_kernel_size=9)
        ... )
        >>> [folded.name for folded in switch_to_deploy(model)]
        ['0']
        >>> model
        Sequential(
          (0): Conv2d(4, 4, kernel_size=(9, 9), stride=(1, 1), padding=(4, 4))
        )
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'model must be a torch.nn.Module, got {model!r}')
    as_bool('round_positions', round_positions)
    check_choice('form', form, FORMS)
    places = find_places(model, ConstructedConvNd)
    if any('' in names for names in places.values()):
        raise ValueError(
            'the model is itself a layer: use dcls_mm.layers.folding.fold(layer)'
        )
    if not places:
        raise ValueError('the model has no DCLS layers to fold')
    convs: dict[nn.Module, nn.Module] = {}
    report, reasons = [], []
    for layer, names in places.items():
        try:
            kernel, sides = _fixed(layer, round_positions)
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"{names[0]} can't be folded: {error}") from error
        reason = why_not_sparse(layer, kernel)
        given = 'sparse' if form == 'sparse' and reason is None else 'dense'
        convs[layer] = FORMS[given](layer, kernel, sides)
        used = int(kernel.count_nonzero())
        report.append(Folded(names[0], kernel.numel(), used, given))
        reasons.append(f'{names[0]}: {reason}')
    if all(folded.form != form for folded in report):
        raise ValueError(
            f"form must be 'dense', as no layer can be sparse: {listing(reasons, 3)}"
        )
    for layer, names in places.items():
        put(model, names, convs[layer])
    return report


def fold(
    layer: ConstructedConvNd, round_positions: bool = False, form: str = 'dense'
) -> nn.Module:
    """Return the convolution that a layer computes in evaluation mode.

    Args:
        layer: layer to fold; it is left unchanged.
        round_positions: move every element to the nearest whole pixel, so that it has
            one tap and a kernel has no more nonzero taps than elements.
        form: 'dense' for a plain convolution, 'sparse' for one with a list of taps. The
            latter must be depthwise, with 1 or 2 axes and stride 1, not transposed, and
            in float32 or bfloat16.

    Returns:
        If dense, a torch.nn.ConvNd, or ConvTransposeNd for a transposed layer, without
        dilation. Its kernel size is the layer's extent, or what a FlexConv's mask
        leaves of it. A causal layer gives a torch.nn.Sequential of its padding and the
        convolution. Weights and bias that are frozen in the layer are frozen in the
        convolution. If sparse, a :class:`.SparseConvNd`, for inference only.

    Raises:
        NotImplementedError: the layer has no kernel that is the same for every input.
        ValueError: the elements can't be rounded to one tap each, the layer computes
            more than its class, through forward hooks or a subclass's forward pass, or
            it can't have that form.
        TypeError: the argument named in the message has the wrong type.
    """
    if not isinstance(layer, ConstructedConvNd):
        raise TypeError(
            'layer must be a dcls_mm layer that makes its kernel, such as DCLSConv2d, '
            f'got {layer!r}; fold a model with switch_to_deploy'
        )
    as_bool('round_positions', round_positions)
    check_choice('form', form, FORMS)
    kernel, sides = _fixed(layer, round_positions)
    reason = why_not_sparse(layer, kernel) if form == 'sparse' else None
    if reason is not None:
        raise ValueError(f"form must be 'dense' for this layer, as {reason}")
    return FORMS[form](layer, kernel, sides)


@torch.no_grad()
def _fixed(
    layer: ConstructedConvNd, round_positions: bool
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the kernel of a layer's evaluation mode, and its padding, not negative."""
    _check_only_convolves(layer)
    modes = [(module, module.training) for module in layer.modules()]
    rounding = getattr(layer, 'integer_positions', False)
    try:
        layer.eval()
        if round_positions:
            _check_roundable(layer)
            layer.integer_positions = True  # type: ignore[assignment]
        return _with_whole_sides(layer, layer.kernel())
    finally:
        layer.forget()
        for module, training in modes:
            module.training = training
        if hasattr(layer, 'integer_positions'):
            layer.integer_positions = rounding  # type: ignore[assignment]


def _sparse(
    layer: ConstructedConvNd, kernel: Tensor, sides: list[tuple[int, int]]
) -> nn.Module:
    conv = SparseConvNd(
        kernel, layer.kernel_bias(), layer.in_channels, sides, layer.padding_mode
    )
    return conv.train(layer.training)


@torch.no_grad()
def _dense(
    layer: ConstructedConvNd, kernel: Tensor, sides: list[tuple[int, int]]
) -> nn.Module:
    bias = layer.kernel_bias()
    options = {'output_padding': layer.output_padding} if layer.transposed else {}
    kind = getattr(nn, f'Conv{"Transpose" * layer.transposed}{layer.ndim}d')
    uneven = layer.padding != 'same' and any(one != other for one, other in sides)
    padding = tuple(0 if uneven else before for before, _ in sides)
    conv = nn.utils.skip_init(
        kind,
        layer.in_channels,
        layer.out_channels,
        tuple(kernel.shape[2:]),
        stride=layer.stride,
        padding='same' if layer.padding == 'same' else padding,
        groups=layer.groups,
        bias=bias is not None,
        padding_mode=layer.padding_mode,
        device=kernel.device,
        dtype=kernel.dtype,
        **options,
    )
    conv.weight.copy_(kernel)
    learned = _learned(layer)
    conv.weight.requires_grad_(bool(learned - NOT_WEIGHTS))
    if bias is not None:
        conv.bias.copy_(bias)
        conv.bias.requires_grad_(not learned.isdisjoint(BIASES))
    if uneven:
        pad = getattr(nn, f'ConstantPad{layer.ndim}d')
        last_axis_first = [side for pair in reversed(sides) for side in pair]
        conv = nn.Sequential(pad(tuple(last_axis_first), 0.0), conv)
    return conv.train(layer.training)


# Form -> what builds it from (layer, kernel, sides).
FORMS = {'dense': _dense, 'sparse': _sparse}


def _learned(layer: nn.Module) -> set[str]:
    """Return the attributes of a layer whose parameters are not frozen."""
    return {
        name.removeprefix('parametrizations.').split('.')[0]
        for name, parameter in layer.named_parameters()
        if parameter.requires_grad
    }


def _with_whole_sides(
    layer: ConstructedConvNd, kernel: Tensor
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return a layer's kernel and padding; a larger kernel avoids negative padding."""
    sides = layer.padding_sides(kernel)
    missing = [max(0, -before) for before, _ in sides]
    kernel = F.pad(kernel, [n for n in reversed(missing) for _ in range(2)])
    return kernel, [(a + n, b + n) for (a, b), n in zip(sides, missing)]


def _check_only_convolves(layer: ConstructedConvNd) -> None:
    """Raise a ValueError for what a plain convolution would leave out."""
    hooks = [*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()]
    if hooks:
        names = ', '.join(getattr(h, '__name__', type(h).__name__) for h in hooks)
        raise ValueError(
            f'it has forward hooks ({names}), which a plain convolution would not run: '
            'remove them first (torch.nn.utils.remove_spectral_norm and '
            "remove_weight_norm remove torch's own)"
        )
    for name in FORWARD_PASS:
        if not hasattr(layer, name):
            continue
        home = getattr(getattr(layer, name), '__module__', '')
        if not home.startswith(__package__ + '.'):
            raise ValueError(
                f'its forward pass is not that of a layer of {__package__}, so it may '
                f'compute more than a convolution ({name} of class '
                f'{type(layer).__qualname__})'
            )


def _check_roundable(layer: Any) -> None:
    """Raise a ValueError if an element on a whole pixel would have more than one tap.

    Layers without positions pass.
    """
    if not hasattr(layer, 'P'):
        return
    if not hasattr(layer, 'integer_positions'):
        raise ValueError(f"a {type(layer).__name__}'s positions can't be rounded")
    sigma = layer.elements()[2]  # a drop-in layer may have a SIG that it ignores
    if layer.interpolation == 'gauss' or (sigma is not None and sigma.any()):
        raise ValueError(
            'only elements that stay on one tap can be rounded (interpolation '
            "'bilinear' or 'triangle', or 'max' with sigma 0), got "
            f'{layer.interpolation!r}'
        )
