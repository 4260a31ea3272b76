"""Layers with a local branch, and the two convolutions that they should compute."""

import torch
import torch.nn.functional as F
from torch import nn

from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, DCLSConv3d

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# Arguments of a layer with 2 channels along so many axes.
CASES = {
    'line': (1, dict(dilated_kernel_size=9, local_size=3, padding=4)),
    'plane': (2, dict(dilated_kernel_size=9, local_size=5, padding=4)),
    'space': (3, dict(dilated_kernel_size=5, local_size=3, padding=2)),
    'whole extent': (2, dict(dilated_kernel_size=5, local_size=5)),
    'one tap': (2, dict(dilated_kernel_size=3, padding=1, local_size=1)),
    'rectangles': (
        2,
        dict(dilated_kernel_size=(7, 5), local_size=(3, 5), padding=(3, 0)),
    ),
    'odd in even': (
        2,
        dict(dilated_kernel_size=8, local_size=(3, 5), padding='same'),
    ),
    'even in even': (1, dict(dilated_kernel_size=8, local_size=4)),
    'strides': (
        2,
        dict(dilated_kernel_size=7, padding=3, local_size=3, stride=(2, 3)),
    ),
    'reflected': (
        2,
        dict(dilated_kernel_size=7, padding=2, local_size=3, padding_mode='reflect'),
    ),
    'circular': (
        1,
        dict(dilated_kernel_size=7, padding=3, local_size=3, padding_mode='circular'),
    ),
    'dense rows': (
        2,
        dict(dilated_kernel_size=(2, 7), position_axes=(1,), local_size=3),
    ),
    'dense planes': (
        3,
        dict(dilated_kernel_size=(3, 2, 5), position_axes=(2, 0), local_size=(3, 1, 3)),
    ),
    'columns first': (
        2,
        dict(dilated_kernel_size=(7, 5), position_axes=(1, 0), local_size=3, padding=3),
    ),
}


def build(case, dtype=torch.float64, **options):
    ndim, arguments = CASES[case]
    torch.manual_seed(1)
    layer = LAYERS[ndim](2, 4, kernel_count=3, dtype=dtype, **arguments, **options)
    nn.init.normal_(layer.P, std=2)  # some lie outside
    return layer


def image(layer):
    return torch.randn(2, 2, *(9, 11, 10)[: layer.ndim], dtype=layer.weight.dtype)


def element_kernel(layer):
    """Construct the kernel of the elements by the loops of the reference."""
    weight, positions, sigma = layer.elements()
    positions = positions.expand(-1, *weight.shape)
    sigma = None if sigma is None else sigma.expand_as(positions)
    axes = sorted(layer.position_axes)
    kernel = reference_kernel(
        weight,
        positions,
        sigma,
        kernel_size=[layer.extent[axis] for axis in axes],
        interpolation=layer.interpolation,
    )
    dense = [axis for axis in range(layer.ndim) if axis not in axes]
    kernel = kernel.to(weight.dtype)
    made = [2 + (dense + axes).index(axis) for axis in range(layer.ndim)]
    return kernel.permute(0, 1, *made)


def padded(layer, x):
    """Return ``x`` padded for a kernel of the layer's extent, by torch."""
    padding = layer.padding
    if padding == 'same':
        sides = [((n - 1) // 2, n // 2) for n in layer.extent]
    else:
        sides = [(n, n) for n in padding]
    mode = 'constant' if layer.padding_mode == 'zeros' else layer.padding_mode
    return F.pad(x, [n for pair in reversed(sides) for n in pair], mode)


def two_convolutions(layer, x):
    """Return the outputs of the elements and of the local branch, each by torch."""
    x = padded(layer, x)
    convolve, options = CONVOLVE[layer.ndim], dict(stride=layer.stride)
    options['groups'] = layer.groups
    # What is before the local kernel's first tap, and behind its last, it never sees.
    seen = x
    for axis, (size, extent) in enumerate(zip(layer.local_size, layer.extent)):
        first = extent // 2 - size // 2
        length = x.shape[2 + axis] - extent + size
        seen = seen.narrow(2 + axis, first, length)
    return (
        convolve(x, element_kernel(layer), **options),
        convolve(seen, layer.local_weight, **options),
    )


def gradients(layer, x, y, direction):
    learned = [p for p in layer.parameters() if p.requires_grad]
    return torch.autograd.grad((y * direction).sum(), [x, *learned], retain_graph=True)


def results(layer, x, formulation):
    """Return the output of a formulation, and the gradients of all that is learned."""
    layer.formulation = formulation
    x = x.clone().requires_grad_()
    y = layer(x)
    return y, *gradients(layer, x, y, torch.arange(y.numel()).view_as(y) % 7 - 1)
