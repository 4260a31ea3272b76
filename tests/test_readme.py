"""The config snippets of the README build what they say."""

import re
from pathlib import Path

import pytest
import torch
from conftest import assert_close
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


def test_other_snippets():
    """They run one after the other, as a reader of them all would have it."""
    others = [snippet for snippet in SNIPPETS if snippet not in CONFIGS]
    names = {}
    for snippet in others:
        if 'from_conv' in snippet:
            names['conv'] = conv = torch.nn.Conv2d(8, 8, 7, padding=3, groups=8)
        exec(snippet, names)
    x = torch.randn(1, 8, 20, 20)
    assert names['layer'].extent == (17, 17)
    assert_close(names['layer'](x), conv(x), factor=5)


def test_every_snippet_is_tested():
    assert (len(CONFIGS), len(SNIPPETS)) == (3, 6)
