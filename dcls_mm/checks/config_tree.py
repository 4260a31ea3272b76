"""Access to the parts of a config in any of mmengine's styles.

A ``type`` is a registered name, such a name with its scope ('mmdet.RetinaNet'), a
dotted path, as mmengine writes them, or, in configs of pure Python, a class.
"""

from collections.abc import Container, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

# The keys under which wrappers of data sets (RepeatDataset...) keep what they wrap.
_WRAPPED = ('dataset', 'datasets')


def type_name(node: Any) -> str:
    """Return the name in a node's ``type`` without scope or module, '' if none."""
    kind = node.get('type') if isinstance(node, dict) else None
    if isinstance(kind, str):
        return kind.rpartition('.')[2]
    return getattr(kind, '__name__', '')


def find_class(registry: Registry, kind: Any, scope: str | None = None) -> type | None:
    """Return the class that a ``type`` stands for, or None if there is none.

    Args:
        registry: the registry in which to look up a name.
        kind: a ``type`` of a config.
        scope: the scope to search first; by default the current one.
    """
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope) as scoped:
            kind = scoped.get(kind)
    return kind if isinstance(kind, type) else None


def items(section: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield everything in a section, each item with its dotted key."""
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
    """Return the data sets inside all wrappers, such as RepeatDataset.

    Args:
        dataset: the ``dataset`` of a dataloader, or a list of those.
        key: its dotted key.

    Returns:
        The data sets by their dotted keys, in the config's order.
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
    """Return the metrics of a run by their dotted keys, also those in an evaluator.

    Args:
        cfg: the config.
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
    """Return the scope of a config's classes, for configs that name no scope.

    Configs of pure Python have ``default_scope = None``, since classes need none.

    Args:
        cfg: the config.
        scopes: the scopes to choose from, each the name of a package.

    Returns:
        The scope of the first class that is, or has a base, from one of these packages;
        the model is searched first.
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
