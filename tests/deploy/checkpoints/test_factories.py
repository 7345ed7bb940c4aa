"""Networks in the forms in which people's functions give them."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from swise_deploy.checkpoints.adapting import unwrap
from swise_deploy.checkpoints.foreign import name_of, open_foreign, torchvision_for
from swise_deploy.errors import BackendMissingError, InputError

MODULE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.head, self.act = nn.Conv2d(channels, 8, 3, 1, 1), nn.PReLU(8)
        self.tail, self.shuffle = nn.Conv2d(8, 4 * channels, 3, 1, 1), nn.PixelShuffle(2)

    def forward(self, x):
        return self.shuffle(self.tail(self.act(self.head(x)))) + F.interpolate(x, scale_factor=2.0)


class Old(nn.Module):
    """All keys start with `model.`, the network's own name, as in ESRGAN's first code."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x):
        return self.model(x)


class Outputs(Plain):
    kind = staticmethod(lambda sr, small: (small, sr))

    def forward(self, x):
        sr = super().forward(x)
        return self.kind(sr, F.avg_pool2d(sr, 2))


class Keys(Outputs):
    kind = staticmethod(lambda sr, small: {"sr": sr, "features": small.mean(1)})


class Twice(Outputs):
    kind = staticmethod(lambda sr, small: {"first": sr, "second": sr})


class Restore(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x):
        return x + self.conv(x)


def plain():
    torch.manual_seed(0)
    return Plain()


def half():
    return plain().half()


def bfloat16():
    return plain().to(torch.bfloat16)


def double():
    return plain().double()


def parallel():
    return nn.DataParallel(plain())


def compiled():
    return torch.compile(plain())


def both():
    return torch.compile(nn.DataParallel(plain().half()))


def scripted():
    return torch.jit.trace(plain(), torch.zeros(1, 3, 4, 4))


def four():
    torch.manual_seed(0)
    return Plain(4)


def fails():
    raise ValueError("no configuration")
'''


@pytest.fixture
def forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "somebodys_forms.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "somebodys_forms"
    sys.modules.pop("somebodys_forms", None)


def same_picture(first: nn.Module, second: nn.Module, *, atol: float) -> None:
    lr = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(first(lr), second(lr), atol=atol, rtol=0)


# The weights themselves are rounded: by 2^-11 in half precision, 2^-9 in bfloat16, of at most 1.
@pytest.mark.parametrize(
    ("factory", "atol", "note"),
    [
        ("half", 2e-3, "float16"),
        ("bfloat16", 1e-2, "bfloat16"),
        ("double", 1e-6, "float64"),
        ("parallel", 0, "the Plain in it"),
        ("compiled", 0, "the Plain in it"),
        ("both", 2e-3, "the Plain in it"),
    ],
)
def test_a_wrapped_or_converted_network_is_the_one_inside(
    forms: str, factory: str, atol: float, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = open_foreign(f"{forms}:plain")
    with caplog.at_level(logging.WARNING):
        found = open_foreign(f"{forms}:{factory}")
    assert note in caplog.text
    assert (found.name, found.scale) == ("plain", 2)
    same_picture(found.module, plain.module, atol=atol)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_a_scripted_network_is_refused_with_the_way_out(forms: str) -> None:
    with pytest.raises(InputError, match=r"scripted.*Give the module before"):
        open_foreign(f"{forms}:scripted")


def test_what_a_factory_raises_is_one_message(forms: str) -> None:
    with pytest.raises(InputError, match="fails with ValueError: no configuration"):
        open_foreign(f"{forms}:fails")


@pytest.mark.parametrize(("kind", "taken"), [("Outputs", "1"), ("Keys", "'sr'")])
def test_the_picture_is_found_among_several_outputs(
    forms: str, kind: str, taken: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING):
        found = open_foreign(f"{forms}:{kind}")
    assert f"{taken} is taken" in caplog.text
    assert found.scale == 2
    same_picture(found.module, open_foreign(f"{forms}:plain").module, atol=0)


def test_several_pictures_by_name_are_refused(forms: str) -> None:
    with pytest.raises(InputError, match="several pictures of one size: first, second"):
        open_foreign(f"{forms}:Twice")


def test_four_channels_get_an_opaque_picture(forms: str) -> None:
    found = open_foreign(f"{forms}:four")
    inner = unwrap(found.module)
    lr = torch.rand(2, 3, 5, 7)
    with torch.inference_mode():
        expected = inner(torch.cat([lr, torch.ones(2, 1, 5, 7)], dim=1))[:, :3]
        assert torch.equal(found.module(lr), expected)


def test_a_restoration_network_has_scale_1(forms: str) -> None:
    found = open_foreign(f"{forms}:Restore")
    assert (found.name, found.scale) == ("restore", 1)
    assert found.module(torch.zeros(1, 3, 5, 7)).shape == (1, 3, 5, 7)


Wrap = Callable[[dict[str, Tensor]], dict[str, object]]


@pytest.mark.parametrize("factory", ["Plain", "Old"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {f"net_g.{k}": v for k, v in s.items()},
        lambda s: {"epoch": 1, "model_g": s, "model_d": {"x": torch.rand(3)}},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"weights": s, "optimizer": {"state": {0: {"exp_avg": torch.rand(3)}}}},
        lambda s: {**s, "total_ops": torch.zeros(1), "head.total_params": torch.zeros(1)},
        lambda s: {"state_dict": {f"generator.{k}": v for k, v in s.items()} | {"d.x": s}},
        lambda s: {k.removeprefix("model."): v for k, v in s.items()},
        lambda s: {k: v.half() for k, v in s.items()},
        lambda s: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in s.items()}},
    ],
)
def test_the_state_dict_that_fits_is_found_in_any_checkpoint(
    forms: str, tmp_path: Path, factory: str, wrap: Wrap
) -> None:
    torch.manual_seed(3)
    trained = unwrap(open_foreign(f"{forms}:{factory}").module)
    torch.save(wrap(trained.state_dict()), tmp_path / "any.pth")
    found = open_foreign(f"{forms}:{factory}", tmp_path / "any.pth")
    same_picture(found.module, trained, atol=2e-3 if "half" in str(wrap) else 1e-3)


@pytest.mark.parametrize(("average", "plain"), [("ema", "model"), ("ema_model", "online_model")])
def test_averages_come_first_whether_nested_or_by_prefix(
    forms: str, tmp_path: Path, average: str, plain: str, caplog: pytest.LogCaptureFixture
) -> None:
    states = [unwrap(open_foreign(f"{forms}:Plain").module).state_dict() for _ in range(2)]
    nested = {plain: states[0], average: states[1]}
    flat = {f"{name}.{k}": v for name, state in nested.items() for k, v in state.items()}
    for content in (nested, flat, {**flat, "initted": torch.tensor(1), "step": torch.tensor(9)}):
        caplog.clear()
        torch.save(content, tmp_path / "both.pth")
        with caplog.at_level(logging.WARNING):
            found = open_foreign(f"{forms}:Plain", tmp_path / "both.pth")
        kept = unwrap(found.module).state_dict()
        assert torch.equal(kept["head.weight"], states[1]["head.weight"])
        assert f"{average}; {plain} would fit too" in caplog.text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.pop("head.weight"), r"missing: head\.weight"),
        (lambda s: s.update({"head.weight": torch.zeros(8, 3, 5, 5)}), r"\(8, 3, 5, 5\), expected"),
        (lambda s: s.update({"body.9.weight": torch.zeros(8, 8)}), r"unexpected: body\.9\.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    forms: str, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], complaint: str
) -> None:
    state = dict(unwrap(open_foreign(f"{forms}:Plain").module).state_dict())
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth does not fit.*{complaint}"):
        open_foreign(f"{forms}:Plain", tmp_path / "other.pth")


def test_a_network_of_torchs_own_classes_is_named_by_its_code() -> None:
    assert name_of(nn.Sequential(), "pkg.nets:make_x2") == "pkg_nets_make_x2"


def test_spandrel_beside_another_torchvision_names_the_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swise_deploy.checkpoints.foreign import open_any

    broken = tmp_path / "packages" / "spandrel"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(broken.parent))
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    expected = torchvision_for(torch.__version__).replace(".", r"\.").replace("*", r"\*")
    with pytest.raises(BackendMissingError, match=rf"nms does not exist.*torchvision=={expected}"):
        open_any("spandrel", scale=None, weights=tmp_path / "a.pth")


# From the releases' own tables: torch 2.0 came with torchvision 0.15, 2.6 with 0.21, 2.9 with 0.24.
@pytest.mark.parametrize(
    ("torch_version", "wanted"),
    [("2.0.1", "0.15.*"), ("2.6.0+cu124", "0.21.*"), ("2.9.0", "0.24.*")],
)
def test_torchvision_goes_in_step_with_torch(torch_version: str, wanted: str) -> None:
    assert torchvision_for(torch_version) == wanted


def test_unwrapping_gives_the_module_that_was_wrapped(forms: str) -> None:
    module = unwrap(open_foreign(f"{forms}:four").module)
    assert type(module).__name__ == "Plain"
