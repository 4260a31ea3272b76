"""Rooms import only from rooms below them, as CONTRIBUTING.md says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'dcls_mm'
RULE = re.search(
    r'<!-- rooms -->\s*```\n(.*?)```',
    (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'),
    re.DOTALL,
)
# Room -> its floor, counted from the lowest.
FLOORS = {
    room: floor
    for floor, line in enumerate(reversed(RULE[1].splitlines()))
    for room in line.split()
}
FILES = sorted(
    path
    for path in PACKAGE.rglob('*.py')
    if '.mim' not in path.relative_to(PACKAGE).parts
)
# These work without mmengine.
TORCH_ONLY = {'functional', 'layers'}


def room_of(module):
    """Return 'layers' for 'dcls_mm.layers.dcls'; files in the package are rooms."""
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else '__init__'


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(path):
    """Yield the absolute names of the modules that a file imports anywhere."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*base, *filter(None, [node.module])])
            for alias in node.names:
                # `from .. import layers` imports a module, not a name from one.
                inner = PACKAGE.parent.joinpath(*module.split('.'), alias.name)
                is_module = inner.is_dir() or inner.with_suffix('.py').is_file()
                yield f'{module}.{alias.name}' if is_module else module


def test_the_rule_names_every_room_once():
    rooms = {room_of(module_of(path)) for path in FILES}
    assert set(FLOORS) == rooms
    assert len(RULE[1].split()) == len(FLOORS)


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_imports_go_down(path):
    room = room_of(module_of(path))
    for module in imports(path):
        if not module.startswith('dcls_mm'):
            continue
        other = room_of(module)
        assert other == room or FLOORS[other] < FLOORS[room], (
            f'{module_of(path)} imports {module}, which stands no lower'
        )


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_the_lower_rooms_need_torch_alone(path):
    if room_of(module_of(path)) in TORCH_ONLY:
        packages = {module.split('.')[0] for module in imports(path)}
        assert not packages & {'mmengine', 'mmcv', 'mmdet', 'mmseg'}
