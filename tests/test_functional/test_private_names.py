"""Private names of torch that the package uses have a default, in case they change."""

import ast
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from kinds import KINDS, image, make, output_and_gradients
from torch.autograd import forward_ad

import dcls_mm
from dcls_mm.functional import _torch

PACKAGE = Path(dcls_mm.__file__).parent
PRIVATE = [
    'torch._C',
    'torch._C._are_functorch_transforms_active',
    'torch._C._functorch',
    'torch._C._functorch.is_legacy_batchedtensor',
    'torch.compiler.is_exporting',
    'forward_ad._current_level',
]


class Without:
    """A module without one name, which may be dotted for an attribute's attribute.

    The names can't be deleted, as torch itself uses them.
    """

    def __init__(self, module, name):
        self._module = module
        self._first, _, self._rest = name.partition('.')

    def __getattr__(self, name):
        value = getattr(self._module, name)
        if name != self._first:
            return value
        if not self._rest:
            raise AttributeError(name)
        return Without(value, self._rest)


@pytest.mark.parametrize('name', PRIVATE)
def test_every_layer_works_without(name, monkeypatch):
    layers = {kind: make(kind) for kind in KINDS}
    inputs = {kind: image(kind) for kind in KINDS}
    expected = {
        kind: output_and_gradients(layer, inputs[kind])
        for kind, layer in layers.items()
    }
    module, _, rest = name.partition('.')
    modules = {'torch': torch, 'forward_ad': forward_ad}
    monkeypatch.setattr(_torch, module, Without(modules[module], rest))
    for kind, layer in layers.items():
        found = output_and_gradients(layer, inputs[kind])
        for value, wanted in zip(found, expected[kind]):
            assert_close(value, wanted)
        layer.eval()
        with torch.no_grad():
            assert_close(layer(inputs[kind]), expected[kind][0])


def private_names(path):
    """Yield torch's private names that a file uses without getattr."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    of_torch = {'torch', 'nn', 'F'}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('torch'):
            of_torch |= {alias.asname or alias.name for alias in node.names}
            yield from (alias.name for alias in node.names if alias.name[0] == '_')
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (n for n in names if n.startswith('torch.') and '._' in n)
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    for node in attributes:
        private = node.attr.startswith('_') and not node.attr.startswith('__')
        if private and root(node) in of_torch:
            yield node.attr


def root(node):
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def test_no_other_private_name_of_torch_is_used():
    used = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob('*.py')
        if (names := list(private_names(path)))
    }
    assert used == {}
