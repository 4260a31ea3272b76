"""How parameters that several modules share stand in a state_dict."""

from torch import Tensor, nn


class SharedParameters(nn.Module):
    """A module whose parameters other modules may have too.

    A state_dict names a shared parameter under every module that has it, and in torch's
    all these entries are one memory: whoever averages weights entry by entry in place
    (mmengine's ``BaseAveragedModel(update_buffers=True)``, as RTMDet's configs have it,
    timm's ``ModelEmaV2``) moves it once a module instead of once. Here the first entry
    is the parameter's memory, as ever, and each further one a copy of its own: the same
    keys and values, and every parameter moves once. So a value written in place into a
    state_dict reaches the model by the first entry alone.
    """

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        earlier = list(destination.items())
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if keep_vars:  # the parameters themselves are asked for
            return
        for name in self._parameters:
            entry = destination.get(prefix + name)
            if entry is not None and any(
                key.endswith(name) and _is_same_memory(entry, value)
                for key, value in earlier
            ):
                destination[prefix + name] = entry.clone()


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    # torch has no is_set_to for 'meta', where there is no memory to write into.
    return a.device.type != 'meta' and a.device == b.device and a.is_set_to(b)
