"""The order of batch norm and activation, where the documents print it."""

import pytest
from outlines import outline


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("unet_bn", "bn", "relu"),
        ("attention_unet", "bn", "relu"),
        ("fcn_strided_prelu", "bn", "prelu"),
        ("fcn_resnet50", "bn", "relu"),
        ("unet_slim", "bn", "relu"),
        ("fcn_attention", "bn", "relu"),
        ("fcn_resnet34", "relu", "bn"),  # its decoder; VOC07 normalises last
        ("fcn_dilated_tanh", "tanh", "bn"),
        ("unet_valid", "relu", "bn"),
    ],
)
def test_order_of_batch_norm_and_activation(name, first, second):
    model = outline(name, (160, 160), 3)
    units = [
        layer.name.removesuffix(f"_{second}")
        for layer in model.layers
        if layer.name.endswith(f"_{second}")
        and (name != "fcn_resnet34" or layer.name.startswith("dec"))
        and not layer.name.startswith("gate")
    ]
    assert len(units) >= 5
    for unit in units:
        before = model.get_layer(f"{unit}_{second}").input
        assert before is model.get_layer(f"{unit}_{first}").output
