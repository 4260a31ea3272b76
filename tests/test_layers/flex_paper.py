"""The formulas of FlexConv and its networks, one tap and one unit at a time."""

import itertools
import math

import torch


def paper_kernel(layer):
    """Return the kernel of a float64 layer over its whole extent, without cropping."""
    steps = [max(size - 1, 1) for size in layer.extent]
    taps = []
    for tap in itertools.product(*map(range, layer.extent)):
        x = [-1 + 2 * i / n for i, n in zip(tap, steps)]
        mask = 1.0
        if layer.mask_width is not None:
            for a, mean, width in zip(
                x, layer.mask_mean.tolist(), layer.mask_width.tolist()
            ):
                mask *= math.exp(-(((a - mean) / width) ** 2) / 2)
        taps.append([mask * value for value in network(layer.net, x)])
    kernel = torch.tensor(taps, dtype=torch.float64).T
    return kernel.reshape(*layer.kernel_channels, *layer.extent)


def network(net, x):
    """Return the network's values at the coordinates x."""
    kind = type(net).__name__
    if kind == 'MAGNet':
        h = gabor(net.filters[0], x)
        for linear, following in zip(net.linears, net.filters[1:]):
            h = [g * v for g, v in zip(gabor(following, x), affine(linear, h))]
        return affine(net.output, h)
    h = x
    for linear in net.linears:
        h = affine(linear, h)
        if kind == 'SIREN':
            h = [math.sin(net.omega_0 * v) for v in h]
        else:
            h = [max(0.0, v) for v in h]
    return affine(net.output, h)


def affine(layer, values):
    return [
        sum(w * v for w, v in zip(row, values)) + b
        for row, b in zip(layer.weight.tolist(), layer.bias.tolist())
    ]


def gabor(layer, x):
    found = []
    for unit in range(len(layer.bias)):
        w, gamma, mu = (p[unit].tolist() for p in (layer.weight, layer.gamma, layer.mu))
        offset = [a - m for a, m in zip(x, mu)]
        if layer.theta is not None:
            angle = 2 * math.pi * layer.theta[unit].item()
            c, s = math.cos(angle), math.sin(angle)
            offset = [c * offset[0] + s * offset[1], c * offset[1] - s * offset[0]]
        envelope = math.exp(-sum((g * o) ** 2 for g, o in zip(gamma, offset)) / 2)
        phase = sum(a * b for a, b in zip(w, x)) + layer.bias[unit].item()
        found.append(envelope * math.sin(phase))
    return found
