"""Operators of torch, registered with rules for autograd, fake tensors and FLOPs.

torch.compile, torch.export and DistributedDataParallel see each as a single node. On
CUDA they launch the kernels of ``functional/triton_kernels``, on a CPU they consist of
torch's own operators.
"""
