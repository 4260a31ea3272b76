"""Notes on the meaning of a layer's parameters, in the metadata of its state_dict."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..functional import INTERPOLATIONS


class StateDictError(RuntimeError):
    """An error for a state_dict whose parameters mean something else than the layer's.

    Attributes:
        reason: what differs and what to do, as a sentence.
    """

    def __init__(self, module: nn.Module, reason: str):
        # The form of torch's message: a line for the module and one per problem.
        name = type(module).__name__
        super().__init__(f'Error(s) in loading state_dict for {name}:\n\t{reason}')
        self.reason = reason


class NotedState(nn.Module):
    """A module that saves, with its parameters, notes that are needed to read them.

    torch keeps such notes in a state_dict's metadata, by the module's name.
    """

    def notes(self) -> dict[str, Any]:
        """Return the notes, name -> plain value."""
        return {}

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """Return why the state_dict's parameters mean something else here, or None.

        Args:
            state_dict: parameters, those of this module under ``prefix``.
            prefix: the module's name with a dot after it, or ''.
            notes: the state_dict's metadata for this module; empty if they were lost.
        """
        return None

    def adopt(self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]) -> None:
        """Take over from a state_dict, before it is loaded, what it may decide."""

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, '_metadata', {}).get(prefix[:-1])
        if metadata is not None:
            metadata.update(self.notes())

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors
    ) -> None:
        reason = self.misreading(state_dict, prefix, local_metadata)
        if reason is not None:
            # Not appended to `errors`: mmengine would log it and load all the same.
            raise StateDictError(self, reason)
        self.adopt(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing, unexpected, errors
        )


def as_noted(value: Any) -> Any:
    """Return a note as it was made, as other formats save a tuple as a list."""
    return tuple(value) if isinstance(value, list) else value


def other_extent(key: str, noted: Any, extent: tuple[int, ...]) -> str | None:
    """Return why parameters for the extent ``noted`` give another kernel, or None.

    Args:
        key: name of a parameter, for the sentence.
        noted: extent in the notes; None if there is none.
        extent: the layer's.
    """
    noted = as_noted(noted)
    if noted in (None, extent):
        return None
    return (
        f'{key}: the state_dict is of a layer of extent {noted}, this one has {extent}:'
        f' give dilated_kernel_size={noted}, or load the parameters on purpose by '
        'dcls_mm.conversion.without_extent (in a Pretrained init_cfg: any_extent=True)'
    )


def is_other_interpolation(noted: Any, interpolation: str) -> bool:
    """Return whether parameters for ``noted`` mean something else here.

    They don't if nothing is noted (None), or between 'bilinear' and 'triangle', which
    are the same function.
    """
    if noted in (None, interpolation):
        return False
    rules = [INTERPOLATIONS.get(str(name)) for name in (noted, interpolation)]
    return not all(rule is not None and rule.two_taps for rule in rules)
