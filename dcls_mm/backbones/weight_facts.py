"""What ConvNeXt weights say about the backbone that they belong to."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

BLOCK = re.compile(r'stages\.(\d{1,4})\.(\d{1,4})\.')


class Facts(NamedTuple):
    """The arguments of :class:`ConvNeXtDCLS` that weights reveal.

    Attributes:
        depths, dims: blocks and channels per stage.
        in_channels: channels of the input image.
        grn: whether the blocks have a global response norm.
        layer_scale: whether the residuals have a scale.
        depthwise: config of the depthwise convolutions, as far as it is known.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    in_channels: int
    grn: bool
    layer_scale: bool
    depthwise: dict[str, Any]

    def arch(self, architectures: Mapping[str, Mapping]) -> str:
        """Return the value for ``arch``: a name, or depths and dims."""
        own = dict(depths=self.depths, dims=self.dims)
        for name, arch in architectures.items():
            if arch == own:
                return repr(name)
        return f'dict(depths={self.depths}, dims={self.dims})'

    def __str__(self) -> str:
        learned = 'kernel_count' in self.depthwise
        version = '-V2' if self.grn else ''
        kind = f'ConvNeXt{version}{"-dcls" if learned else ""}'
        if learned:
            kernels = f'{self.depthwise["kernel_count"]} elements per kernel'
        else:
            height, width = self.depthwise['kernel_size']
            kernels = f'plain {height}x{width} kernels'
        return (
            f'a {kind} of depths {", ".join(map(str, self.depths))} and dims '
            f'{", ".join(map(str, self.dims))} with {kernels}'
        )


def facts_of(state_dict: Mapping[str, Tensor]) -> Facts | None:
    """Read the facts from weights under the keys of the original release.

    Returns:
        None if the weights are not those of a ConvNeXt with plain or DCLS kernels.
    """
    stem = state_dict.get('downsample_layers.0.0.weight')
    depths: dict[int, int] = {}
    for key in state_dict:
        if match := BLOCK.match(key):
            stage, block = map(int, match.groups())
            depths[stage] = max(depths.get(stage, 0), block + 1)
    first = [f'stages.{stage}.0.' for stage in range(len(depths))]
    names = [f'{start}dwconv.weight' for start in first]
    weights = [state_dict[name] for name in names if name in state_dict]
    if stem is None or stem.ndim != 4 or not names or len(weights) < len(names):
        return None
    if any(weight.ndim not in (3, 4) for weight in weights):
        return None
    return Facts(
        tuple(depths[stage] for stage in sorted(depths)),
        tuple(len(weight) for weight in weights),
        stem.shape[1],
        f'{first[0]}grn.gamma' in state_dict,
        f'{first[0]}gamma' in state_dict,
        _depthwise(state_dict, f'{first[0]}dwconv'),
    )


def _depthwise(state_dict: Mapping[str, Tensor], layer: str) -> dict[str, Any]:
    weight = state_dict[f'{layer}.weight']
    if weight.ndim == 4:
        return dict(type='Conv2d', kernel_size=tuple(weight.shape[2:]))
    notes = (getattr(state_dict, '_metadata', None) or {}).get(layer, {})
    cfg = dict(type='DCLSConv2d', kernel_count=weight.shape[-1])
    if 'extent' in notes:
        cfg['dilated_kernel_size'] = tuple(notes['extent'])
    if 'interpolation' in notes or f'{layer}.SIG' in state_dict:
        cfg['interpolation'] = notes.get('interpolation', 'gauss')
    if f'{layer}.local_weight' in state_dict:
        cfg['local_size'] = tuple(state_dict[f'{layer}.local_weight'].shape[2:])
    if f'{layer}.branch_norms.local.weight' in state_dict:
        cfg['branch_norms'] = True
    return cfg


def differences(
    file: Facts, own: Facts, num_stages: int, architectures: Mapping[str, Mapping]
) -> list[str]:
    """List the arguments that would make the backbone fit the file.

    Args:
        file: facts of the file.
        own: facts of the backbone, which may not have built all its stages.
        num_stages: the number of them all.
        architectures: names of depths and dims.
    """
    built = len(own.dims)
    found = []
    same = (own.depths, own.dims) == (file.depths[:built], file.dims[:built])
    if not same or len(file.dims) > num_stages:
        found.append(f'arch={file.arch(architectures)}')
    if file.in_channels != own.in_channels:
        found.append(f'in_channels={file.in_channels}')
    if file.grn != own.grn:
        found.append(f'grn={file.grn}')
    if file.layer_scale != own.layer_scale:
        value = '1e-6' if file.layer_scale else '0'
        found.append(f'layer_scale_init_value={value}')
    learned = 'kernel_count' in file.depthwise
    plain_in_learned = not learned and 'kernel_count' in own.depthwise
    compared = file.depthwise.keys() & own.depthwise.keys()
    compared |= {'local_size', 'branch_norms'}
    if not plain_in_learned and any(
        file.depthwise.get(key) != own.depthwise.get(key) for key in compared
    ):
        given = ', '.join(f'{key}={value!r}' for key, value in file.depthwise.items())
        missing = learned and 'dilated_kernel_size' not in file.depthwise
        more = ', dilated_kernel_size=...' if missing else ''
        found.append(f'depthwise_cfg=dict({given}{more})')
    return found
