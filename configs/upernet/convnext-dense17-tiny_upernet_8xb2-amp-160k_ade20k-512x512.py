# Ablation: dense 17x17 kernels, the extent of the DCLS ones with all 289 taps learned.
# No ImageNet-1k weights are published (their accuracy is: 82.0 % top-1): set init_cfg
# to your own, without them the backbone starts from random weights.
_base_ = './convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(type='LargeKernelConv2d', kernel_size=17), init_cfg=None
    )
)
