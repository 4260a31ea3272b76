"""Parameters that several modules share, and their entries in a state_dict."""

from torch import Tensor, nn


class SharedParameters(nn.Module):
    """A module whose parameters other modules may share.

    A state_dict has an entry for a shared parameter under each of its modules, and in
    torch's all of them are views of one memory. Code that averages weights in place,
    entry by entry, then updates the parameter once per module instead of once:
    mmengine's ``BaseAveragedModel(update_buffers=True)``, as in RTMDet's configs, and
    timm's ``ModelEmaV2``. Here the first entry is the parameter's memory and each
    further one a copy, so that every parameter is updated once; keys and values are the
    same. A value written in place into a state_dict thus reaches the model through the
    first entry only.
    """

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        earlier = list(destination.items())
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if keep_vars:  # the parameters themselves are wanted
            return
        for name in self._parameters:
            entry = destination.get(prefix + name)
            if entry is not None and any(
                key.endswith(name) and _is_same_memory(entry, value)
                for key, value in earlier
            ):
                destination[prefix + name] = entry.clone()


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    # is_set_to doesn't support 'meta', which has no memory to write to anyway.
    return a.device.type != 'meta' and a.device == b.device and a.is_set_to(b)
