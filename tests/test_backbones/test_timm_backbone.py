"""What TimmBackbone and the registration say where timm is not installed."""

import importlib
import sys

import pytest
from mmengine.registry import MODELS


@pytest.fixture
def no_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    for name in list(sys.modules):
        if name == 'dcls_mm.timm_models' or name.endswith('timm_networks.dcls'):
            monkeypatch.delitem(sys.modules, name)


def test_building_says_what_is_missing(no_timm):
    cfg = dict(type='TimmBackbone', model_name='convformer_dcls_s18')
    with pytest.raises(
        ImportError, match="'convformer_dcls_s18' needs timm and torchv"
    ):
        MODELS.build(cfg)


def test_registering_says_what_is_missing(no_timm):
    with pytest.raises(ImportError, match='dcls_mm.timm_models needs timm and torchv'):
        importlib.import_module('dcls_mm.timm_models')
