"""Layers of every kind, hence of every formulation and backend."""

import copy

import torch

from dcls_mm import layers

# Kind -> (class, arguments, size of the image).
KINDS = {
    'bilinear 1d': ('DCLSConv1d', dict(), (7,)),
    'triangle 2d': ('DCLSConv2d', dict(interpolation='triangle', groups=2), (6, 5)),
    'max 2d': ('DCLSConv2d', dict(interpolation='max', stride=2), (6, 5)),
    'gauss 3d': ('DCLSConv3d', dict(interpolation='gauss', groups=4), (4, 4, 3)),
    'shared 2d': ('DCLSConv2d', dict(per_output_positions=False), (6, 5)),
    'dense rows 2d': ('DCLSConv2d', dict(position_axes=(1,), groups=4), (6, 5)),
    'large 2d': ('DCLSConv2d', dict(dilated_kernel_size=(11, 15), groups=4), (6, 5)),
    'reflected 2d': ('DCLSConv2d', dict(padding_mode='reflect'), (6, 5)),
    'sample 1d': ('DCLSConv1d', dict(formulation='sample'), (7,)),
    'sample 2d': ('DCLSConv2d', dict(formulation='sample', groups=2), (6, 5)),
    'sample 3d': ('DCLSConv3d', dict(formulation='sample', groups=4), (4, 4, 3)),
    'sample shared 2d': (
        'DCLSConv2d',
        dict(formulation='sample', per_output_positions=False),
        (6, 5),
    ),
    'transposed 1d': ('DCLSConvTranspose1d', dict(stride=2), (7,)),
    'transposed 2d': (
        'DCLSConvTranspose2d',
        dict(interpolation='gauss', groups=2),
        (6, 5),
    ),
    'transposed 3d': ('DCLSConvTranspose3d', dict(groups=4), (4, 4, 3)),
}


def make(kind, dtype=torch.float32):
    """Build a layer with positions inside the extent, away from whole pixels."""
    name, arguments, _ = KINDS[kind]
    arguments = {'kernel_size': 3, 'padding': 1, 'kernel_count': 3, **arguments}
    layer = getattr(layers, name)(4, 4, **arguments, dtype=dtype)
    with torch.no_grad():
        layer.P.copy_(torch.randint_like(layer.P, -1, 1) + 0.2)
        layer.P.add_(0.6 * torch.rand_like(layer.P))
        if layer.SIG is not None:
            layer.SIG.uniform_(0.05, 0.15)
    return layer


def image(kind, dtype=torch.float32, batch=2):
    return torch.randn(batch, 4, *KINDS[kind][2]).to(dtype).requires_grad_()


def output_and_gradients(layer, x):
    """Return the output, and gradients of a weighted sum for input and parameters."""
    y = layer(x)
    cotangent = torch.linspace(-1, 2, y.numel()).sin().view(y.shape).to(y)
    inputs = [x, *layer.parameters()]
    return [y, *torch.autograd.grad(y, inputs, cotangent)]


def in_float64(layer, x):
    twin = copy.deepcopy(layer).double()
    return output_and_gradients(twin, x.detach().double().requires_grad_())
