"""What stands where in a config, in whichever of mmengine's styles it is written.

A ``type`` is a registered name, such a name with its scope ('mmdet.RetinaNet'), a
dotted path, as mmengine writes them, or, in configs of pure Python, a class.
"""

from collections.abc import Container, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

# Where a data set's wrappers (RepeatDataset, ConcatDataset...) keep what they wrap.
_WRAPPED = ('dataset', 'datasets')


def type_name(node: Any) -> str:
    """The name in a node's ``type``, without scope or module; '' without one."""
    kind = node.get('type') if isinstance(node, dict) else None
    if isinstance(kind, str):
        return kind.rpartition('.')[2]
    return getattr(kind, '__name__', '')


def find_class(registry: Registry, kind: Any, scope: str | None = None) -> type | None:
    """The class that a ``type`` stands for, or None where there is none.

    Args:
        registry: In which to look for a name.
        kind: A ``type`` of a config.
        scope: Where to look first; by default the scope in force.
    """
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope) as scoped:
            kind = scoped.get(kind)
    return kind if isinstance(kind, type) else None


def items(section: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Everything in a section, each with its dotted key."""
    if isinstance(section, dict):
        parts = section.items()
    elif isinstance(section, (list, tuple)):
        parts = enumerate(section)
    else:
        return
    for name, item in parts:
        yield f'{key}.{name}', item
        yield from items(item, f'{key}.{name}')


def innermost_datasets(dataset: Any, key: str = 'dataset') -> dict[str, dict]:
    """The data sets inside all wrappers, such as RepeatDataset and ConcatDataset.

    Args:
        dataset: What a dataloader has as ``dataset``, or a list of such.
        key: Its dotted key.

    Returns:
        The data sets by their dotted keys, in the order in which they stand.
    """
    if isinstance(dataset, (list, tuple)):
        parts = {f'{key}.{index}': part for index, part in enumerate(dataset)}
    elif isinstance(dataset, dict):
        parts = {f'{key}.{name}': dataset[name] for name in _WRAPPED if name in dataset}
        if not parts:
            return {key: dataset}
    else:
        return {}
    found = {}
    for name, part in parts.items():
        found.update(innermost_datasets(part, name))
    return found


def metrics(cfg: Config, stage: str) -> dict[str, dict]:
    """The metrics of a run, by their dotted keys: one, several, or in an evaluator.

    Args:
        cfg: The config.
        stage: 'val' or 'test'.
    """
    key = f'{stage}_evaluator'
    found = cfg.get(key) or []
    if isinstance(found, dict) and 'metrics' in found:
        key, found = f'{key}.metrics', found['metrics']
    if isinstance(found, (list, tuple)):
        return {f'{key}.{index}': metric for index, metric in enumerate(found)}
    return {key: found}


def find_scope(cfg: Config, scopes: Container[str]) -> str | None:
    """The scope to which a config's classes belong, where it names none.

    Configs of pure Python have ``default_scope = None``, since classes need none.

    Args:
        cfg: The config.
        scopes: Those among which to choose, each the name of a package.

    Returns:
        That of the first class, or base of a class, from one of those packages: of the
        model, or else of the rest.
    """
    for section in ('model', *cfg):
        top = cfg.get(section)
        for node in (top, *(item for _, item in items(top, section))):
            kind = node.get('type') if isinstance(node, dict) else None
            if isinstance(kind, str):
                origins = [kind] if '.' in kind else []
            else:
                origins = [base.__module__ for base in getattr(kind, '__mro__', ())]
            for origin in origins:
                scope = origin.partition('.')[0]
                if scope in scopes:
                    return scope
    return None
