"""The norms of elements and local branch: two convolutions that become one."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from local_cases import CASES, build, gradients, image, results, two_convolutions
from torch import nn

from dcls_mm.functional import native_code
from dcls_mm.layers import DCLSConv2d, switch_to_deploy


def normed(case, dtype=torch.float64, **options):
    """Return a layer whose norms are far from their initial state."""
    layer = build(case, dtype, branch_norms=True, **options)
    for norm in layer.branch_norms.values():
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.1, 3)
    return layer


def two_normed(layer, x, training):
    """Return the sum of both convolutions, each normed by torch, and the bias."""
    total = 0
    for branch, y in zip(('elements', 'local'), two_convolutions(layer, x)):
        norm = layer.branch_norms[branch]
        total = total + F.batch_norm(
            y,
            norm.running_mean.clone(),
            norm.running_var.clone(),
            norm.weight,
            norm.bias,
            training,
            eps=norm.eps,
        )
    if layer.bias is None:
        return total
    return total + layer.bias.view(-1, *(1,) * layer.ndim)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_it_computes_the_sum_of_two_normed(case, training, groups):
    layer = normed(case, groups=groups, bias=groups > 1).train(training)
    x = image(layer).requires_grad_()
    expected = two_normed(layer, x, training)
    y = layer(x)
    assert_close(y, expected)
    direction = torch.randn_like(y)
    for got, wanted in zip(
        gradients(layer, x, y, direction), gradients(layer, x, expected, direction)
    ):
        assert_close(got, wanted, factor=100)


def test_training_moves_the_statistics():
    layer = normed('plane')
    x = image(layer)
    for branch, y in zip(('elements', 'local'), two_convolutions(layer, x)):
        norm = copy.deepcopy(layer.branch_norms[branch])
        norm(y)
        layer.branch_norms[branch].reference = norm
    layer(x)
    for norm in layer.branch_norms.values():
        assert_close(norm.running_mean, norm.reference.running_mean)
        assert_close(norm.running_var, norm.reference.running_var)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('case', ['plane', 'odd in even', 'dense rows'])
def test_sampling_gives_the_same(case, training):
    layer = normed(case).train(training)
    x = image(layer)
    for got, wanted in zip(results(layer, x, 'sample'), results(layer, x, 'construct')):
        assert_close(got, wanted, factor=100)


@pytest.mark.skipif(
    native_code.missing() is not None, reason=str(native_code.missing())
)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle'])
@pytest.mark.parametrize('case', ['line', 'plane', 'odd in even', 'dense rows'])
def test_the_direct_convolution_gives_the_same(case, interpolation, training):
    layer = normed(case, torch.float32, groups=2, interpolation=interpolation)
    layer.train(training)
    x = image(layer)
    expected = results(layer, x, 'construct')
    for formulation in ('direct', 'auto'):
        for got, wanted in zip(results(layer, x, formulation), expected):
            assert_close(got, wanted, factor=10)


@pytest.mark.parametrize('form', ['dense', 'sparse'])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('case', ['plane', 'odd in even', 'line', 'reflected'])
def test_they_fold_into_one_convolution(case, bias, form):
    dtype = torch.float32 if form == 'sparse' else torch.float64
    layer = normed(case, dtype, groups=2, bias=bias)
    layer.branch_norms['local'].eval()
    model = nn.Sequential(copy.deepcopy(layer))
    switch_to_deploy(model, form=form)
    assert not any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()
    )
    x = image(layer)
    with torch.no_grad():
        assert_close(model.eval()(x), two_normed(layer, x, training=False))
    if form == 'dense':
        assert model[0].bias.requires_grad


def test_evaluation_convolves_once(monkeypatch):
    layer = normed('plane')
    x = image(layer)
    calls = []
    convolve = layer._convolve
    monkeypatch.setattr(
        layer, '_convolve', lambda *args: calls.append(args[1].shape) or convolve(*args)
    )
    layer(x)
    assert calls == [(4, 2, 9, 9), (4, 2, 5, 5)]
    calls.clear()
    for norm in layer.branch_norms.values():
        norm.eval()  # as backbones do it with norm_eval
    layer(x)
    assert calls == [(4, 2, 9, 9)]


def test_a_kept_kernel_follows_the_norms():
    layer = normed('plane').eval()
    x = image(layer)
    with torch.no_grad():
        for change in (
            lambda norm: norm.running_var.mul_(2),
            lambda norm: norm.running_mean.add_(1),
            lambda norm: norm.weight.mul_(-1),
            lambda norm: setattr(norm, 'eps', 0.5),
        ):
            layer(x)
            change(layer.branch_norms['elements'])
            assert_close(layer(x), two_normed(layer, x, training=False))


@pytest.mark.parametrize('training', [True, False])
def test_no_batch(training):
    layer = normed('plane').train(training)
    x = image(layer)
    assert_close(layer(x[0]), two_normed(layer, x[:1], training)[0])


@pytest.mark.parametrize('training', [True, False])
def test_autocast(training):
    layer = normed('plane', torch.float32).train(training)
    x = image(layer)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), two_normed(layer, x, training), torch.bfloat16, factor=4)


def test_half_precision_norms_are_folded_in_single():
    layer = normed('plane').eval()
    x = image(layer)
    expected = two_normed(layer, x, training=False)
    layer.bfloat16()
    assert layer.kernel().dtype == layer.kernel_bias().dtype == torch.bfloat16
    y = layer(x.bfloat16())
    assert_close(y.double(), expected, torch.bfloat16, factor=4)


def test_converted_to_synchronised_norms():
    layer = normed('plane')
    x = image(layer)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer))
    kinds = [type(norm) for norm in synchronised.branch_norms.values()]
    assert kinds == [nn.SyncBatchNorm] * 2
    assert_close(synchronised.eval()(x), layer.eval()(x))


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies(copied):
    layer = normed('plane')
    x = image(layer)
    other = copied(layer)
    assert_close(other(x), layer(x))
    layer.eval(), other.eval()
    assert_close(other(x), layer(x))


def test_a_state_dict_has_them_and_loads_again():
    layer = normed('line').eval()
    own = [key for key in layer.state_dict() if key.startswith('branch_norms.')]
    names = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    assert own == [
        f'branch_norms.{branch}.{name}'
        for branch in ('elements', 'local')
        for name in names
    ]
    other = build('line', branch_norms=True).eval()
    other.load_state_dict(layer.state_dict())
    x = image(layer)
    assert_close(other(x), layer(x))
    other.reset_parameters()
    for norm in other.branch_norms.values():
        assert norm.weight.eq(1).all() and norm.running_var.eq(1).all()


class Blurred(DCLSConv2d):
    def kernel(self):
        return super().kernel() / 2


def test_a_kernel_of_its_own_can_not_be_split():
    layer = Blurred(4, 4, 5, padding=2, local_size=3, branch_norms=True)
    x = torch.randn(2, 4, 8, 8)
    with pytest.raises(ValueError, match='branch_norms must be False .* this Blurred'):
        layer(x)
    layer.eval()(x)
