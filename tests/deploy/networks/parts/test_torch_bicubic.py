import pytest
import torch
from torch.nn import functional as F

from swise_deploy.networks.parts.torch_bicubic import bicubic_to, matrix_bicubic_to

SIZES = [((6, 9), (4, 6)), ((5, 4), (40, 32)), ((1, 7), (3, 21)), ((15, 10), (12, 8))]


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_matrix_products_resize_as_torch_does_and_so_do_their_gradients(size, target):
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found = matrix_bicubic_to(x, *target)
    expected = F.interpolate(x, size=target, mode="bicubic", align_corners=False)
    # torch computes positions in the type of the picture; float64 leaves its rounding alone.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    weights = torch.rand_like(expected)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_training_resizes_as_running_does_and_runs_by_torchs_own(size, target):
    x = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, size=target, mode="bicubic", align_corners=False)
    assert torch.equal(bicubic_to(x, *target), expected)
    x.requires_grad_()
    assert torch.equal(bicubic_to(x, *target), expected)
    trained = bicubic_to(x, *target, training=True)
    torch.testing.assert_close(trained, expected, rtol=0, atol=1e-5)


def test_half_precision_keeps_its_type_and_float32_coefficients():
    torch.manual_seed(0)
    x = torch.rand(1, 4, 12, 12).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = matrix_bicubic_to(x, 8, 8)
    assert found.dtype == torch.bfloat16
    exact = F.interpolate(x.double(), size=(8, 8), mode="bicubic", align_corners=False)
    # One rounding to bf16, 2^-9 of values up to 1.2, and no more.
    assert (found.double() - exact).abs().max() <= 1.2 * 2**-9
