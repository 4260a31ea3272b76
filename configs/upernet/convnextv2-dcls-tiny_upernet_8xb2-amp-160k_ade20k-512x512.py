# ConvNeXt-V2-T with DCLS. Each tap of its trained 7x7 kernels starts an element on its
# place, so training starts from what ConvNeXt-V2-T computes.
_base_ = './convnextv2-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=49,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
    )
)
