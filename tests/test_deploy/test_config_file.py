"""A written config reads back as it was, and reading it runs nothing."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.config import Config, ConfigDict
from torch import nn

from dcls_mm.checks.errors import ConfigError
from dcls_mm.deploy.config_file import Beside, write_config

RUNS = "x'+str(open('ran','w'))+'"
# Pieces that break a string, and those that mmengine replaces when it reads a file.
PIECES = [
    *("'", '"', "'''", '\\', '{', '}', '{{', '}}', '$', '#', ' ', '~'),
    *('\n', '\r\n', '\t', '\x85', '\u2028', 'é', '点', '\U0001f600'),
    *('{{ fileDirname }}', '{{fileBasename}}', '{{ _base_.model }}'),
    *('{{$HOME:x}}', '{{$ABSENT:}}', "{{'$HOME:1'}}", RUNS, '_base_', 'a', '\x7b'),
]
texts = st.one_of(st.lists(st.sampled_from(PIECES)).map(''.join), st.text(max_size=9))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(texts, max_size=1),
        st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


def as_file_name(text):
    name = text.replace('/', '').replace('\0', '').encode('utf-8', 'ignore')[:200]
    return name.decode('utf-8', 'ignore').strip('.') or 'plain'


def read(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        read = Config.fromfile(os.path.join(folder, 'config.py')).to_dict()
    assert not os.path.exists(os.path.join(folder, 'ran'))
    return read


@settings(max_examples=150, deadline=None)
@given(value=values, key=texts)
@example(value=RUNS, key=RUNS)
@example(value='{{{{ fileDirname }}}}', key='lambda')
def test_values_come_back_as_they_were(value, key):
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder, 'config.py'), {'model': {key: value}, 'b': value})
        assert repr(read(folder)) == repr({'model': {key: value}, 'b': value})


@settings(max_examples=60, deadline=None)
@given(name=texts.map(as_file_name), file=texts.map(as_file_name))
@example(name=RUNS, file=RUNS)
@example(name="o'brien", file='a"b')
def test_a_file_beside_it_is_found_in_any_folder(name, file):
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, name)
        os.mkdir(folder)
        write_config(Path(folder, 'config.py'), {'model': {'f': Beside(file)}})
        assert read(folder) == {'model': {'f': os.path.join(folder, file)}}
        moved = os.path.join(parent, 'moved' + name)
        os.rename(folder, moved)
        assert read(moved) == {'model': {'f': os.path.join(moved, file)}}


def test_classes_and_functions_become_names(tmp_path):
    types = {'type': nn.Conv2d, 'loader': {'type': torch.jit.load}}
    write_config(tmp_path / 'config.py', {'model': ConfigDict(types)})
    assert read(tmp_path)['model'] == {
        'type': 'torch.nn.modules.conv.Conv2d',
        'loader': {'type': 'torch.jit._serialization.load'},
    }


class Outer:
    class Inner:
        pass


def local_class():
    class Local:
        pass

    return Local


def test_a_nested_class_has_a_name(tmp_path):
    write_config(tmp_path / 'config.py', {'model': {'type': Outer.Inner}})
    assert read(tmp_path)['model']['type'] == f'{__name__}.Outer.Inner'


def test_what_no_text_gives_back_leaves_no_file(tmp_path):
    for value in (torch.ones(2), {'type': local_class()}):
        with pytest.raises(ConfigError, match='model'):
            write_config(tmp_path / 'config.py', {'model': value})
    assert not any(tmp_path.iterdir())
