"""From one package's state_dict to another's: pure functions, without files."""

from .legacy import from_legacy, to_legacy
from .published import from_published, to_published

__all__ = ['from_legacy', 'from_published', 'to_legacy', 'to_published']
