"""Counts what operators read and write, and what they copy inside."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They only make a tensor, or another view of one. Some don't say so in their schema.
FREE = {
    'aten::_unsafe_view',
    'aten::empty',
    'aten::empty_like',
    'aten::new_empty',
    'aten::new_empty_strided',
    'prim::device',
}
COPYING = {'aten::clone', 'aten::_to_copy', 'aten::copy_'}

# The arguments that CUDA's operators copy to contiguous memory unless they are.
COPIED_INSIDE = {
    'aten::native_layer_norm': (0,),
    'aten::native_layer_norm_backward': (0, 1),
    'aten::convolution_backward': (0,),
}


class Traffic(TorchDispatchMode):
    """Lists the operators that touch ``least`` elements or more of a tensor.

    Attributes:
        calls: (operator, dtypes of the tensors that it reads and writes).
        moved: bytes that all of them read and write, hidden copies included.
        copies: operators that only copy, or whose arguments are copied inside.
    """

    def __init__(self, least: int = 0):
        super().__init__()
        self.least = least
        self.calls, self.copies, self.moved = [], [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        name = function._schema.name
        tensors = [t for t in tree_leaves((args, results)) if torch.is_tensor(t)]
        large = max((t.numel() for t in tensors), default=0) >= self.least
        if function.is_view or name in FREE or not large:
            return results
        self.calls.append((name.split('::')[1], [_short(t.dtype) for t in tensors]))
        self.moved += sum(_bytes(t) for t in tensors)
        if name in COPYING:
            self.copies.append(name.split('::')[1])
        for i in COPIED_INSIDE.get(name, ()):
            if not args[i].is_contiguous():
                self.copies.append(f'inside {name.split("::")[1]}')
                self.moved += 2 * _bytes(args[i])
        return results


def _bytes(tensor):
    return tensor.numel() * tensor.element_size()


def _short(dtype):
    return str(dtype).removeprefix('torch.')
