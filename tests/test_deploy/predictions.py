"""Predictions by mmdet's and mmseg's own entry points, without importing dcls_mm."""

import importlib

import torch

SIZE = 96, 128


def predict(scope, config, checkpoint):
    """Return the predicted tensors for an image of random pixels, by name."""
    apis = importlib.import_module(f'{scope}.apis')
    options = dict(device='cpu')
    if scope == 'mmdet':
        model = apis.init_detector(config, checkpoint, palette='random', **options)
    else:
        model = apis.init_model(config, checkpoint, **options)
    mean = getattr(model.data_preprocessor, 'mean', None)
    channels = 3 if mean is None else len(mean)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, channels, *SIZE, generator=generator)
    with torch.no_grad():
        (found,) = model(images, [_sample(scope)], mode='predict')
    tensors = {}
    for name, values in found.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f'{name}.{key}'] = value
    return tensors


def _sample(scope):
    structures = importlib.import_module(f'{scope}.structures')
    kind = {'mmdet': 'DetDataSample', 'mmseg': 'SegDataSample'}[scope]
    about = dict(img_shape=SIZE, ori_shape=SIZE, batch_input_shape=SIZE, pad_shape=SIZE)
    about['scale_factor'] = (1.0, 1.0)
    return getattr(structures, kind)(metainfo=about)
