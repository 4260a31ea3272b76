"""Long lists of names in a sentence."""

from collections.abc import Iterable


def listing(names: Iterable[str], most: int = 10, separator: str = ', ') -> str:
    """Join the first names and say how many more there are."""
    names = list(names)
    shown = separator.join(names[:most])
    more = len(names) - most
    return f'{shown} and {more} more' if more > 0 else shown
