"""The networks in timm's registry, and the published files that they load."""

import copy
import re

import pytest
import torch
from conftest import assert_close

from .published import BUILDS, original_state_dict, published_network

pytestmark = pytest.mark.timm

FAMILIES = {
    'convnext_dcls_tiny': 'convnext',
    'convnext_dcls_tiny_gauss': 'convnext',
    'convformer_dcls_s18': 'metaformer',
    'caformer_dcls_s18': 'metaformer',
    'fastvit_dcls_sa24': 'fastvit',
}


@pytest.fixture
def create():
    import timm

    import dcls_mm.timm_models  # noqa: F401

    return timm.create_model


def saved(tmp_path, state_dict, key='state_dict_ema'):
    path = tmp_path / 'published.pth.tar'
    torch.save({'epoch': 3, 'arch': 'x', key: state_dict}, path)
    return str(path)


@torch.no_grad()
def outputs(*models, size=64):
    images = torch.randn(2, 3, size, size)
    return [model.eval()(images) for model in models]


@pytest.mark.parametrize('name', BUILDS)
def test_published_file_gives_published_outputs(name, create, tmp_path):
    published = published_network(name)
    path = saved(tmp_path, published.state_dict())
    ours = create(name, checkpoint_path=path)
    assert set(ours.state_dict()) == set(published.state_dict())
    expected = outputs(ours, published)
    assert_close(*expected, factor=20)
    # The outputs depend on the order of P's rows.
    with torch.no_grad():
        for positions in ours.position_training.parameters():
            positions.copy_(positions.flip(0))
    (other,) = outputs(ours)
    assert (other - expected[1]).abs().max() > 1e-3 * expected[1].abs().max()


@pytest.mark.parametrize('name', FAMILIES)
def test_names_of_the_original_repository_are_read(name, create, tmp_path):
    published = published_network(name)
    original = original_state_dict(published.state_dict(), FAMILIES[name])
    assert not set(original) & {'stem.0.weight', 'stem.conv.weight'}
    key = 'model' if FAMILIES[name] == 'convnext' else 'state_dict_ema'
    ours = create(name, checkpoint_path=saved(tmp_path, original, key))
    assert_close(*outputs(ours, published), factor=20)


@pytest.mark.parametrize('name', FAMILIES)
def test_the_original_names_are_those_that_timm_reads(name, create):
    """The table of this test, which names the files, agrees with timm's own."""
    import importlib

    plain = create(BUILDS[name][0])
    module = importlib.import_module(type(plain).__module__)
    original = original_state_dict(plain.state_dict(), FAMILIES[name])
    renamed = module.checkpoint_filter_fn(original, plain)
    assert set(renamed) == set(plain.state_dict())


def test_positions_are_shared_within_a_stage(create):
    model = create('caformer_dcls_s18')
    layers = [m for m in model.modules() if hasattr(m, 'P')]
    assert len(layers) == 6
    assert len({id(layer.P) for layer in layers}) == 2
    assert all(layer.bias is None for layer in layers)
    assert {layer.extent for layer in layers} == {(17, 17)}


def test_initial_weights_are_the_published(create):
    model = create('convnext_dcls_tiny')
    for layer in (m for m in model.modules() if hasattr(m, 'P')):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert layer.P.std().item() == pytest.approx(0.5, rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize('name', ['convnext_dcls_tiny', 'fastvit_dcls_sa24'])
def test_what_timm_does_with_a_network(name, create):
    model = create(name, num_classes=7, drop_path_rate=0.1)
    images = torch.randn(2, 3, 64, 64)
    features = create(name, features_only=True)(images)
    assert len(features) == 4
    model.reset_classifier(3)
    model.set_grad_checkpointing()
    model.train()(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    _, maps = model.forward_intermediates(images)
    assert [x.shape for x in maps] == [x.shape for x in features]
    copied = copy.deepcopy(model)
    assert_close(*outputs(model, copied), factor=1)


def test_training_checkpoint_without_metadata_loads(create, tmp_path):
    """timm drops the metadata, which tell what the rows of P are for."""
    trained = create('convformer_dcls_s18')
    with torch.no_grad():
        for layer in (m for m in trained.modules() if hasattr(m, 'P')):
            layer.P.uniform_(-8, 8)
    loaded = create(
        'convformer_dcls_s18', checkpoint_path=saved(tmp_path, trained.state_dict())
    )
    assert_close(*outputs(loaded, trained), factor=1)


@pytest.mark.parametrize('name', ['convnext_dcls_tiny', 'convformer_dcls_s18'])
def test_fine_tuning_leaves_out_the_head(name, create, tmp_path):
    """As train.py does with --pretrained --pretrained-path FILE --num-classes 7."""
    published = published_network(name)
    original = original_state_dict(published.state_dict(), FAMILIES[name])
    overlay = dict(file=saved(tmp_path, original), num_classes=-1)
    ours = create(name, True, pretrained_cfg_overlay=overlay, num_classes=7)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = [m.eval().forward_features(images) for m in (ours, published)]
        assert ours(images).shape == (1, 7)
    assert_close(*features, factor=20)


def test_weights_from_timm_are_refused(create):
    with pytest.raises(ValueError, match='pretrained must be False .*--checkpoint'):
        create('convnext_dcls_tiny', pretrained=True)


@pytest.mark.parametrize('value', ['5', -1, float('nan')])
def test_position_rate_is_checked(value, create):
    with pytest.raises((ValueError, TypeError), match='position_rate must be'):
        create('convnext_dcls_tiny', position_rate=value)


def test_another_network_is_one_sentence(create):
    fastvit = original_state_dict(
        published_network('fastvit_dcls_sa24').state_dict(), 'fastvit'
    )
    model = create('convformer_dcls_s18')
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(fastvit)
    assert re.search(
        'the state_dict is not of convformer_dcls_s18: it has conv_exp',
        str(error.value),
    )
    assert str(error.value).count('\n') == 1


def other_size(create):
    return create('convnext_dcls_small').state_dict()


def plain(create):
    return original_state_dict(create('convnext_tiny').state_dict(), 'convnext')


def other_width(create):
    return create('convnext_dcls_tiny', dims=(8, 16, 24, 32)).state_dict()


def other_classes(create):
    return create('convnext_dcls_tiny', num_classes=7).state_dict()


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        (other_size, r'it has 27 blocks in stages\.2 instead of 9$'),
        (other_width, r'its shapes differ, stem\.0\.weight \(8, 3, 4, 4\) instead of'),
        (other_classes, r'head\.fc\.weight \(7, 768\) instead of \(1000, 768\)'),
        (plain, r"no positions .P., as a plain network: .* start='conv'$"),
    ],
)
def test_another_size_is_one_sentence(file, message, create):
    weights = file(create)
    with pytest.raises(RuntimeError, match='not of convnext_dcls_tiny: ') as error:
        create('convnext_dcls_tiny').load_state_dict(weights)
    assert re.search(message, str(error.value))
    assert str(error.value).count('\n') == 1


def test_a_mixture_is_one_sentence(create):
    model = create('convformer_dcls_s18')
    weights = model.state_dict()
    mixed = {**weights, **original_state_dict(weights, 'metaformer')}
    with pytest.raises(
        RuntimeError, match='mixes the names of MetaFormer .* two files'
    ):
        model.load_state_dict(mixed)


def test_left_over_and_missing_keys_are_named(create):
    model = create('convnext_dcls_tiny')
    weights = original_state_dict(model.state_dict(), 'convnext')
    weights['extra'] = weights.pop('stages.0.0.dwconv.P')
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(weights)
    assert 'Missing key(s) in state_dict: "stages.0.blocks.0.conv_dw.P"' in str(
        error.value
    )
    assert 'Unexpected key(s) in state_dict: "extra"' in str(error.value)
