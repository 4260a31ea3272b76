"""What a layer's parameters mean, noted in the metadata of its state_dict."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..functional import INTERPOLATIONS


class StateDictError(RuntimeError):
    """A state_dict whose parameters mean something else than the layer's.

    Attributes:
        reason: what differs and what to do, in a sentence.
    """

    def __init__(self, module: nn.Module, reason: str):
        # In torch's form, a line for the module and one for each trouble.
        name = type(module).__name__
        super().__init__(f'Error(s) in loading state_dict for {name}:\n\t{reason}')
        self.reason = reason


class NotedState(nn.Module):
    """A module that notes, beside its parameters, what they can't be read without.

    torch keeps such notes as the metadata of a state_dict, by the module's name.
    """

    def notes(self) -> dict[str, Any]:
        """What is noted, by name: plain values."""
        return {}

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """Why the parameters of ``state_dict`` mean something else here, or None.

        Args:
            state_dict: has this module's parameters under ``prefix``.
            notes: its metadata of this module; empty where they were lost.
        """
        return None

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
            # Not appended to `errors`: mmengine loads all the same, and logs them.
            raise StateDictError(self, reason)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing, unexpected, errors
        )


def as_noted(value: Any) -> Any:
    """A note as it was made: other formats keep a tuple as a list."""
    return tuple(value) if isinstance(value, list) else value


def other_extent(key: str, noted: Any, extent: tuple[int, ...]) -> str | None:
    """Why parameters of a kernel of the extent ``noted`` mean another one, or None.

    Args:
        key: of a parameter, for the sentence.
        noted: None where nothing is noted.
        extent: of the layer.
    """
    noted = as_noted(noted)
    if noted in (None, extent):
        return None
    return (
        f'{key}: the state_dict is of a layer of extent {noted}, this one has {extent}:'
        f' give dilated_kernel_size={noted}, or take the parameters over on purpose by '
        'dcls_mm.conversion.without_extent (in a Pretrained init_cfg: any_extent=True)'
    )


def is_other_interpolation(noted: Any, interpolation: str) -> bool:
    """Whether parameters of the interpolation ``noted`` mean something else in another.

    Not where nothing is noted (None); and 'bilinear' and 'triangle' are one function.
    """
    if noted in (None, interpolation):
        return False
    rules = [INTERPOLATIONS.get(str(name)) for name in (noted, interpolation)]
    return not all(rule is not None and rule.two_taps for rule in rules)
