import copy

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.memory_format import use_channels_last


@pytest.mark.parametrize(
    ("convolution", "shape", "order"),
    [
        (nn.Conv2d, (2, 3, 8, 9), torch.channels_last),
        (nn.Conv3d, (2, 3, 6, 7, 8), torch.channels_last_3d),
    ],
)
def test_results_and_state_stay_and_outputs_follow(convolution, shape, order):
    usual = nn.Sequential(convolution(3, 4, 3, padding=1), nn.LeakyReLU(), convolution(4, 5, 3))
    other = copy.deepcopy(usual)
    use_channels_last(other)
    for before, after in zip(usual.parameters(), other.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.dim() == 1 or after.is_contiguous(memory_format=order)
    image = torch.randn(shape)
    expected, output = usual(image), other(image)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    assert output.is_contiguous(memory_format=order)
    usual.load_state_dict(other.state_dict())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("layer", "follows"),
    [
        (lambda dims, image: nn.LeakyReLU()(image), True),
        (lambda dims, image: torch.cat((image, image), 1), True),
        (lambda dims, image: getattr(nn, f"InstanceNorm{dims}d")(4, affine=True)(image), False),
        (lambda dims, image: image.softmax(1), False),
        (
            lambda dims, image: nn.functional.grid_sample(
                image, torch.zeros(2, *[6] * dims, dims), align_corners=False
            ),
            False,
        ),
    ],
    ids=["LeakyReLU", "concatenation", "InstanceNorm", "softmax", "grid_sample"],
)
def test_what_follows_a_convolution_may_give_the_usual_order(dims, layer, follows):
    """What PyTorch does today; where it changes, the module's text and measurements do, too."""
    order = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
    image = torch.randn(2, 4, *[6] * dims).contiguous(memory_format=order)
    output = layer(dims, image)
    assert output.is_contiguous(memory_format=order) == follows
    assert output.is_contiguous() != follows
