"""What the README shows runs, and what it names exists."""

import re
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import dcls_mm
from dcls_mm._registration import REGISTERED
from dcls_mm.layers import DCLSConv2d

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
SNIPPETS = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
CONFIGS = [snippet for snippet in SNIPPETS if 'custom_imports' in snippet]
COMMANDS = [
    line.partition('#')[0].strip()
    for block in re.findall(r'```bash\n(.*?)```', README, flags=re.DOTALL)
    for line in block.replace('\\\n', ' ').splitlines()
]
LITERALS = re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', README, flags=re.DOTALL))


@pytest.mark.parametrize(('snippet', 'layers'), list(zip(CONFIGS, (18, 53, 13))))
def test_config_snippets(tmp_path, snippet, layers):
    """Each has as many DCLS layers as convolutions that it replaces."""
    pytest.importorskip('mmdet')
    path = tmp_path / 'config.py'
    path.write_text(snippet)
    config = Config.fromfile(path)
    init_default_scope('mmdet')
    with torch.device('meta'):
        backbone = MODELS.build(config.model.backbone)
    assert sum(isinstance(m, DCLSConv2d) for m in backbone.modules()) == layers


def test_other_snippets():
    """They run one after the other, as someone who tries them all would do."""
    others = [snippet for snippet in SNIPPETS if snippet not in CONFIGS]
    names = {}
    for snippet in others:
        if 'from_conv' in snippet:
            names['conv'] = conv = torch.nn.Conv2d(8, 8, 7, padding=3, groups=8)
            names['model'] = model = torch.nn.Sequential(conv)
        exec(snippet, names)
    assert names['y'].shape == (1, 96, 56, 56)
    x = torch.randn(1, 8, 20, 20)
    assert names['layer'].extent == (17, 17)
    for replaced in (names['layer'], model):
        assert_close(replaced(x), conv(x), factor=5)
    assert names['replaced'].became == 'DCLSConv2d 17x17, 8 groups'


def test_snippets_import_what_the_front_has_from_it():
    imports = re.findall(r'^from (dcls_mm\S*) import (\w+)', README, flags=re.MULTILINE)
    assert imports
    for module, name in imports:
        assert module == 'dcls_mm' or name not in dcls_mm.__all__


def test_every_snippet_is_tested():
    assert (len(CONFIGS), len(SNIPPETS)) == (3, 6)


def test_commands_name_files_targets_and_options_that_exist():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    shared = (ROOT / 'dcls_mm/apis/command.py').read_text(encoding='utf-8')
    for command in [*COMMANDS, *LITERALS]:
        words = command.split()
        if words[:1] == ['make']:
            assert re.search(f'^{words[1]}:', makefile, flags=re.MULTILINE), command
        places = [w for w in words if re.match(r'(tools|configs|benchmarks)/', w)]
        paths = [next(ROOT.glob(place), None) for place in places]
        assert None not in paths, command
        if paths and paths[0].is_file():
            script = paths[0].read_text(encoding='utf-8') + shared
            for option in re.findall(r' (--[\w-]+)', command):
                assert f"'{option}'" in script, command


def test_extras_exist():
    text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    for extra in re.findall(r'\.\[(\w+)\]', README):
        assert re.search(rf'^{extra} = ', text, flags=re.MULTILINE), extra


def test_links_lead_to_files():
    for target in re.findall(r'\]\(([^)]+)\)', README):
        assert target.startswith('https://') or (ROOT / target).exists(), target


def test_class_names_exist():
    """Hooks, layers and constructors that it names are registered."""
    ours = {
        name
        for packages in REGISTERED.values()
        for names in packages.values()
        for name in names
    }
    named = {
        word for word in LITERALS if re.fullmatch(r'DCLS\w+|Flex\w+|\w+Hook', word)
    }
    assert 'DCLSConv2d' in named
    assert named <= ours
