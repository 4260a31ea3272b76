# ConvFormer-S18 with DCLS for its depthwise convolutions: 40 elements in 17x17 pixels.
_base_ = './convformer-s18_upernet_8xb2-amp-160k_ade20k-512x512.py'
# ImageNet-1k, exponential moving average of the weights.
checkpoint_file = 'https://zenodo.org/records/8370737/files/convformer_s18_v1_17lim_40el_seed0.pth.tar'

model = dict(
    backbone=dict(
        model_name='convformer_dcls_s18', init_cfg=dict(checkpoint=checkpoint_file)
    )
)
