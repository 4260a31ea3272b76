# CAFormer-S18 with DCLS for its depthwise convolutions: 34 elements in 17x17 pixels.
_base_ = './caformer-s18_upernet_8xb2-amp-160k_ade20k-512x512.py'
# ImageNet-1k, exponential moving average of the weights.
checkpoint_file = (
    'https://zenodo.org/records/8370737/files/caformer_s18_v1_17lim_34el_seed0.pth.tar'
)

model = dict(
    backbone=dict(
        model_name='caformer_dcls_s18', init_cfg=dict(checkpoint=checkpoint_file)
    )
)
