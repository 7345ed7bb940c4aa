import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from swise_deploy.checkpoints.adapting import SizeRules, StatedSizes, find_size_rules, wrap
from swise_deploy.checkpoints.foreign import open_any, open_foreign
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.networks.parts.padding import mirror_to_multiple

MODULE = """
from torch import nn

class Double(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))

def answer():
    return 42

def wants_arguments(scale):
    return Double()
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A module of somebody else, in the working folder."""
    (tmp_path / "somebodys_network.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "somebodys_network"
    sys.modules.pop("somebodys_network", None)


class Picky(nn.Module):
    """Nearest-neighbour upscaling that wants multiples of `multiple` and at least `minimum`."""

    def __init__(self, multiple=1, minimum=1, scale=3, channels=3):
        super().__init__()
        self.rules = SizeRules(channels, scale, multiple, minimum)

    def forward(self, lr):
        rules, sides = self.rules, lr.shape[2:]
        if lr.shape[1] != rules.channels:
            raise RuntimeError(f"wants {rules.channels} channels")
        if any(side % rules.multiple or side < rules.minimum for side in sides):
            raise RuntimeError(f"cannot take {tuple(sides)}")
        return F.interpolate(lr, scale_factor=rules.scale, mode="nearest")


@pytest.mark.parametrize(
    "rules",
    [
        SizeRules(3, 3, 1, 1),
        SizeRules(3, 2, 8, 8),
        SizeRules(3, 4, 4, 12),
        SizeRules(1, 2, 1, 1),
        SizeRules(1, 3, 16, 32),
    ],
)
def test_the_rules_are_found_by_running(rules):
    network = Picky(rules.multiple, rules.minimum, rules.scale, rules.channels)
    assert find_size_rules(network, name="picky") == rules


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 11), (12, 16), (17, 33)])
def test_a_picky_network_takes_any_size_once_wrapped(height, width):
    lr = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    rules = SizeRules(3, 3, 8, 16)
    sr = wrap(Picky(8, 16), rules)(lr)
    assert torch.equal(sr, F.interpolate(lr, scale_factor=3, mode="nearest"))


def test_a_luma_network_is_given_chroma():
    sr = wrap(Picky(channels=1), SizeRules(1, 3, 1, 1))(torch.rand(1, 3, 5, 6))
    assert sr.shape == (1, 3, 15, 18)


@pytest.mark.parametrize(("size", "multiple"), [(9, 8), (13, 8), (16, 8), (5, 4)])
def test_mirroring_equals_reflection_where_that_is_defined(size, multiple):
    x = torch.rand(1, 2, size, size)
    more = -size % multiple
    expected = F.pad(x, (0, more, 0, more), mode="reflect") if more else x
    assert torch.equal(mirror_to_multiple(x, multiple), expected)


def test_mirroring_goes_to_and_fro_by_hand():
    row = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    mirrored = mirror_to_multiple(row, 4, minimum=7)
    assert mirrored.shape == (1, 1, 8, 8)
    assert mirrored[0, 0, 5].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]


@pytest.mark.parametrize("stated", [StatedSizes(4, 1), StatedSizes(8, 16), StatedSizes(96, 1)])
def test_the_sizes_that_a_network_states_come_before_those_at_which_it_runs(stated):
    rules = find_size_rules(Picky(scale=2), name="picky", stated=stated)
    assert (rules.multiple, rules.minimum) == (
        stated.multiple,
        max(stated.minimum, stated.multiple),
    )


def test_a_stated_multiple_that_does_not_run_is_followed_by_larger_ones():
    rules = find_size_rules(Picky(16, 16), name="picky", stated=StatedSizes(4, 1))
    assert (rules.multiple, rules.minimum) == (16, 16)


class Square(Picky):
    def forward(self, lr):
        if lr.shape[2] != lr.shape[3]:
            raise RuntimeError("not square")
        return super().forward(lr)


@pytest.mark.parametrize(("height", "width"), [(5, 40), (40, 5), (16, 16), (3, 2)])
def test_a_network_for_square_pictures_gets_them(height, width):
    module = Square(multiple=8, minimum=16)
    rules = find_size_rules(module, name="square", stated=StatedSizes(8, 16, is_square=True))
    assert rules == SizeRules(3, 3, 8, 16, is_square=True)
    lr = torch.rand(1, 3, height, width)
    expected = F.interpolate(lr, scale_factor=3, mode="nearest")
    assert torch.equal(wrap(module, rules)(lr), expected)


def test_a_factory_and_its_weights_are_opened(foreign, tmp_path):
    torch.manual_seed(0)
    trained = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "theirs.pth")
    network = open_any(f"{foreign}:Double", scale=None, weights=tmp_path / "theirs.pth")
    lr = torch.rand(1, 3, 5, 7)
    assert (network.name, network.scale) == ("double", 2)
    with torch.inference_mode():
        assert torch.equal(network.module(lr), trained(lr))


@pytest.mark.parametrize("seed", [1, 2])
def test_weights_that_a_factory_gives_are_told_apart_by_their_values(foreign, seed):
    torch.manual_seed(1)
    first = open_any(f"{foreign}:Double", scale=None, weights=None)
    torch.manual_seed(seed)
    second = open_any(f"{foreign}:Double", scale=None, weights=None)
    assert (first.weights_sha256 == second.weights_sha256) is (seed == 1)


def test_another_scale_than_the_network_has_is_refused(foreign):
    with pytest.raises(InputError, match="double upscales x2, not x4"):
        open_any(f"{foreign}:Double", scale=4, weights=None)


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("answer", "gave a int; expected a torch"),
        ("wants_arguments", "cannot be called without arguments"),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_what_is_no_factory_is_refused(foreign, factory, complaint):
    with pytest.raises(InputError, match=complaint):
        open_foreign(f"{foreign}:{factory}")


def test_a_module_that_does_not_import_is_refused():
    with pytest.raises(InputError, match="cannot import no_such_package_here:net"):
        open_foreign("no_such_package_here:net")


def test_weights_of_something_else_are_refused(foreign, tmp_path):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not fit"):
        open_foreign(f"{foreign}:Double", tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (nn.Conv2d(3, 3, 3, padding=1, stride=2), "enlarged by a whole number"),
        (nn.Flatten(), "enlarged by a whole number"),
        (nn.Conv2d(5, 3, 1), "does not run on a picture"),
    ],
)
def test_a_network_that_does_not_upscale_is_refused(network, complaint):
    with pytest.raises(InputError, match=complaint):
        find_size_rules(network.eval(), name="theirs")


def test_a_network_of_one_size_only_is_refused():
    class Fixed(Picky):
        def forward(self, lr):
            if tuple(lr.shape[2:]) != (64, 64):
                raise RuntimeError("only 64x64")
            return super().forward(lr)

    with pytest.raises(InputError, match="size is not fixed"):
        find_size_rules(Fixed(), name="fixed")


def test_spandrel_without_a_checkpoint_says_what_is_missing():
    with pytest.raises(InputError, match="needs a checkpoint"):
        open_any("spandrel", scale=None, weights=None)


def test_spandrel_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    (tmp_path / "some.pth").write_bytes(b"")
    with pytest.raises(BackendMissingError, match=r"\[spandrel\]"):
        open_any("spandrel", scale=None, weights=tmp_path / "some.pth")


def test_a_checkpoint_that_spandrel_knows_is_opened(tmp_path):
    pytest.importorskip("torchvision", reason="spandrel needs torchvision")
    architecture = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
    torch.manual_seed(0)
    theirs = architecture.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=2).eval()
    torch.save(theirs.state_dict(), tmp_path / "compact.pth")
    network = open_any("spandrel", scale=2, weights=tmp_path / "compact.pth")
    lr = torch.rand(1, 3, 9, 6)
    with torch.inference_mode():
        assert torch.equal(network.module(lr), theirs(lr))
    assert network.name == "compact"


def test_a_denoiser_gets_the_map_of_the_noise_that_spandrel_gives_it(tmp_path):
    pytest.importorskip("torchvision", reason="spandrel needs torchvision")
    denoising = pytest.importorskip("spandrel.architectures.DnCNN")
    spandrel = pytest.importorskip("spandrel")
    torch.manual_seed(0)
    options = {"in_nc": 4, "out_nc": 3, "nc": 4, "nb": 8, "act_mode": "R", "mode": "FDnCNN"}
    theirs = denoising.DnCNN(**options).eval()
    torch.save(theirs.state_dict(), tmp_path / "denoiser.pth")
    network = open_any("spandrel", scale=1, weights=tmp_path / "denoiser.pth")
    lr = torch.rand(1, 3, 9, 6)
    own = spandrel.ModelLoader().load_from_file(tmp_path / "denoiser.pth")
    with torch.inference_mode():
        assert torch.equal(network.module(lr).clamp(0, 1), own(lr))
        noisy = theirs(torch.cat([lr, torch.full((1, 1, 9, 6), 15 / 255)], dim=1))
        torch.testing.assert_close(network.module(lr), noisy)


def test_a_checkpoint_that_spandrel_does_not_know_is_refused_with_what_else_to_try(tmp_path):
    pytest.importorskip("torchvision", reason="spandrel needs torchvision")
    torch.save({"classifier.weight": torch.zeros(3, 3)}, tmp_path / "classifier.pth")
    with pytest.raises(InputError, match=r"knows no architecture.*--model package.module:factory"):
        open_any("spandrel", scale=2, weights=tmp_path / "classifier.pth")
