"""What learned positions reveal about the extent, count and sharing to choose."""

from .advice import RULES, Advice, Rule, advise
from .elements import LayerElements, collect_elements
from .report import as_json, as_markdown, as_text
from .statistics import LayerStatistics, SigmaSpread, compute_statistics

__all__ = [
    'RULES',
    'Advice',
    'LayerElements',
    'LayerStatistics',
    'Rule',
    'SigmaSpread',
    'advise',
    'as_json',
    'as_markdown',
    'as_text',
    'collect_elements',
    'compute_statistics',
]
