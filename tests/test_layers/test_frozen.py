"""Parameters that learn no further cost no gradient, and change no other's."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dcls_mm.layers import DCLSConv2d, DCLSConvTranspose2d, FlexConv2d

OPTIONS = dict(
    kernel_count=5, dilated_kernel_size=(15, 17), groups=4, formulation='construct'
)

LAYERS = {
    'bilinear': lambda: DCLSConv2d(4, 4, padding=8, **OPTIONS),
    'triangle': lambda: DCLSConv2d(4, 4, interpolation='triangle', **OPTIONS),
    'gauss': lambda: DCLSConv2d(4, 4, interpolation='gauss', **OPTIONS),
    'shared': lambda: DCLSConv2d(4, 4, per_output_positions=False, **OPTIONS),
    'sample': lambda: DCLSConv2d(4, 4, **{**OPTIONS, 'formulation': 'sample'}),
    'transposed': lambda: DCLSConvTranspose2d(4, 4, **OPTIONS),
    'flex': lambda: FlexConv2d(4, 4, dilated_kernel_size=7),
}

FREEZABLE = ('weight', 'P', 'SIG', 'mask_mean', 'bias')


class Counting(TorchDispatchMode):
    """Counts the numbers that operators make, views left out."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            results = result if isinstance(result, (tuple, list)) else (result,)
            self.numbers += sum(
                r.numel() for r in results if isinstance(r, torch.Tensor)
            )
        return result


def step(layer, x):
    """The gradients of a step by name, and how many numbers its backward pass made."""
    layer.zero_grad()
    y = layer(x)
    cotangent = torch.linspace(-1, 2, y.numel()).sin().view(y.shape)
    with Counting() as counting:
        y.backward(cotangent)
    gradients = {
        n: p.grad.clone() for n, p in layer.named_parameters() if p.grad is not None
    }
    return gradients, counting.numbers


@pytest.mark.parametrize('name', LAYERS)
def test_frozen_parameters_cost_nothing(name):
    layer = LAYERS[name]()
    x = torch.randn(2, 4, 18, 20)
    all_gradients, numbers = step(layer, x)
    frozen = [n for n in FREEZABLE if getattr(layer, n, None) is not None]
    assert frozen
    for parameter in frozen:
        getattr(layer, parameter).requires_grad_(False)
        gradients, fewer = step(layer, x)
        getattr(layer, parameter).requires_grad_(True)
        # The slopes of the positions are made of the weights' gradient.
        assert fewer < numbers or parameter == 'weight', parameter
        assert gradients.keys() == all_gradients.keys() - {parameter}
        for key, gradient in gradients.items():
            assert torch.equal(gradient, all_gradients[key]), (parameter, key)


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle'])
def test_the_construction_goes_no_further_than_the_weights(interpolation):
    layer = DCLSConv2d(
        4,
        4,
        kernel_count=200,
        dilated_kernel_size=5,
        groups=4,
        interpolation=interpolation,
    )
    numbers = []
    for learned in (True, False):
        layer.P.requires_grad_(learned)
        kernel = layer.kernel()
        with Counting() as counting:
            kernel.backward(torch.ones_like(kernel))
        numbers.append(counting.numbers)
    assert numbers[1] < 0.6 * numbers[0]
