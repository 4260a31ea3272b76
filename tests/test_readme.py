"""The config snippets of the README build what they say."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dcls_mm.layers import DCLSConv2d

README = (Path(__file__).parents[1] / 'README.md').read_text(encoding='utf-8')
SNIPPETS = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
CONFIGS = [snippet for snippet in SNIPPETS if 'custom_imports' in snippet]


@pytest.mark.parametrize(('snippet', 'layers'), zip(CONFIGS, (18, 53, 13)))
def test_config_snippets(tmp_path, snippet, layers):
    """Each has as many DCLS layers as it replaces convolutions."""
    pytest.importorskip('mmdet')
    path = tmp_path / 'config.py'
    path.write_text(snippet)
    config = Config.fromfile(path)
    init_default_scope('mmdet')
    with torch.device('meta'):
        backbone = MODELS.build(config.model.backbone)
    assert sum(isinstance(m, DCLSConv2d) for m in backbone.modules()) == layers


def test_every_config_snippet_is_tested():
    assert len(CONFIGS) == 3
