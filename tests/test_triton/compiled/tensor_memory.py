"""The memory of a launch that is evaluated: its CPU tensors, as numpy sees them.

Pointers are addresses in bytes. An access outside of every tensor is an error.
"""

import ctypes

import numpy as np

# The numpy dtype in which values are kept, by the name of the element in TTIR.
DTYPES = {
    'i1': np.bool_,
    'i8': np.int8,
    'i16': np.int16,
    'i32': np.int32,
    'i64': np.int64,
    'index': np.int64,
    'f16': np.float16,
    'bf16': np.float32,
    'f32': np.float32,
    'f64': np.float64,
}


class Memory:
    """The tensors that a launch was given."""

    def __init__(self, tensors):
        self.spans = []
        for tensor in tensors:
            steps = zip(tensor.shape, tensor.stride())
            count = 1 + sum((size - 1) * step for size, step in steps)
            size = count * tensor.element_size() if tensor.numel() else 0
            memory = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
            self.spans.append((tensor.data_ptr(), np.frombuffer(memory, np.uint8)))

    def find(self, addresses, element: str):
        """Return an array of elements and the indices in it of some addresses."""
        dtype = np.dtype(np.uint16 if element == 'bf16' else DTYPES[element])
        low, high = addresses.min(), addresses.max() + dtype.itemsize
        for start, memory in self.spans:
            if start <= low and high <= start + len(memory):
                offsets = addresses - start
                if (offsets % dtype.itemsize).any():
                    raise IndexError(f'an address is not aligned for {element}')
                whole = len(memory) // dtype.itemsize * dtype.itemsize
                return memory[:whole].view(dtype), offsets // dtype.itemsize
        raise IndexError('an access outside of every tensor of the launch')

    def load(self, addresses, mask, other, element: str):
        loaded = np.array(np.broadcast_to(other, addresses.shape))
        if mask.any():
            array, indices = self.find(addresses[mask], element)
            values = array[indices]
            if element == 'bf16':
                values = (values.astype(np.uint32) << 16).view(np.float32)
            loaded[mask] = values
        return loaded

    def store(self, addresses, mask, values, element: str):
        if mask.any():
            array, indices = self.find(addresses[mask], element)
            values = values[mask]
            if element == 'bf16':
                values = (values.view(np.uint32) >> 16).astype(np.uint16)
            array[indices] = values
