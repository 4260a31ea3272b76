"""The figures of the lists are written where they belong and nowhere else."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
SCRIPT = ROOT / 'tools' / 'analysis_tools' / 'update_zoo.py'


@pytest.fixture(scope='module')
def update_zoo():
    spec = importlib.util.spec_from_file_location('update_zoo', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('before', ['', '3x | - | '])
def test_rows_of_a_readme(update_zoo, before):
    text = (
        f'| backbone | {before}params (M) | FLOPs (G) | mIoU | config |\n|---|---|\n'
        f'| A | {before}1.0 | 2.0 | 3.0 | [config](./a.py) |\n'
        f'| B | {before}4.0 | 5.0 | 6.0 | - |\n'
        'In the text 1.0 | 2.0 stays, and so does [a link](./c.py).\n'
        '| other | table |\n|---|---|\n| 1.0 | [config](./d.py) |\n'
    )
    figures = {'a': ('10.5', '20.5')}.__getitem__
    expected = text.replace('1.0 | 2.0 | 3.0', '10.5 | 20.5 | 3.0')
    assert update_zoo.update_readme(text, figures) == expected


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*/metafile.yml')))
def test_entries_of_a_metafile(update_zoo, path):
    text = path.read_text()
    models = yaml.safe_load(text)['Models']
    figures = {m['Name']: (f'{i}.1', f'{i}.2') for i, m in enumerate(models)}
    written = yaml.safe_load(update_zoo.update_metafile(text, figures.__getitem__))
    for i, model in enumerate(models):
        model['Metadata'].update({'Parameters (M)': i + 0.1, 'FLOPs (G)': i + 0.2})
    assert written['Models'] == models


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*/README.md')))
def test_every_row_with_a_config_is_found(update_zoo, path):
    text = path.read_text()
    asked = []
    update_zoo.update_readme(text, lambda name: asked.append(name) or ('1', '2'))
    rows = [line for line in text.splitlines() if line.startswith('| ')]
    linked = [re.search(r'\]\(\./(\S+)\.py\)', row) for row in rows]
    assert asked == [link[1] for link in linked if link]


def test_counts_a_config_once_and_finds_what_is_listed(
    update_zoo, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(CONFIGS, tmp_path / 'configs') / 'retinanet'
    readme = folder / 'README.md'
    text = readme.read_text()
    readme.write_text(re.sub(r'- \| [\d.]+ \|', '- | 9.9 |', text))
    monkeypatch.setattr('sys.argv', ['update_zoo.py', str(folder)])
    update_zoo.main()
    counted, *files = capsys.readouterr().out.splitlines()
    assert counted.startswith('retinanet_convnext-dcls-t')
    assert files == [f'{readme}: written', f'{folder / "metafile.yml"}: unchanged']
    assert readme.read_text() == text
