"""FID and KID against direct numpy computations on the same features, and against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from gift.errors import GiftError, NonFiniteError
from gift.metrics import fidelity
from gift.metrics.fidelity import Features, fid, kid
from gift.metrics.recogniser import Recogniser, RecogniserConfig


class Net(nn.Module):
    """A small fixed random convolutional network."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, width, 3, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.body(images.float() / 127.5 - 1).mean((2, 3))
        return features


class Corner(nn.Module):
    """Reads the first pixel: three features with known values."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0].float()


def pictures(count: int, seed: int, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, (count, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def embed(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return network.eval()(images).double().numpy()


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """The Fréchet distance without a matrix root: tr (S T)^½ is the nuclear norm of the centred sets' product."""
    a, b = x - x.mean(0), y - y.mean(0)
    cross = np.linalg.svd(a @ b.T / np.sqrt((len(x) - 1) * (len(y) - 1)), compute_uv=False).sum()
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(mean + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * cross)


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD with the cubic kernel, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    within = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within += sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


REAL, FAKE = pictures(60, 1), pictures(45, 2, high=200)


def test_fid_against_numpy() -> None:
    net = Net()
    expected = frechet(embed(net, REAL), embed(net, FAKE))
    assert expected > 0.001
    assert fid(REAL, FAKE, net) == pytest.approx(expected, rel=1e-9)


def test_fid_with_fewer_pictures_than_features() -> None:
    net = Net(width=96)
    expected = frechet(embed(net, REAL[:20]), embed(net, FAKE[:10]))
    assert fid(REAL[:20], FAKE[:10], net) == pytest.approx(expected, rel=1e-3)


def test_fid_of_a_shift_is_its_square() -> None:
    real = pictures(50, 3, high=200)
    shift = torch.tensor([3, 4, 12], dtype=torch.uint8)[None, :, None, None]
    assert fid(real, real + shift, Corner()) == pytest.approx(9 + 16 + 144)


def test_fid_of_a_set_with_itself_is_nought_and_symmetric_otherwise() -> None:
    net = Net()
    assert 0 <= fid(REAL, REAL.flip(0), net) < 1e-6
    assert fid(REAL, FAKE, net) == pytest.approx(fid(FAKE, REAL, net))


def test_kid_against_numpy() -> None:
    net = Net()
    count = 40
    mean, deviation = kid(REAL[:count], FAKE[:count], net, subsets=2, subset_size=count)
    assert mean == pytest.approx(mmd(embed(net, REAL[:count]), embed(net, FAKE[:count])), rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-12), "a full subset leaves nothing to chance"


def test_kid_over_subsets_estimates_the_full_value() -> None:
    net = Net()
    full, _ = kid(REAL[:45], FAKE, net, subsets=1, subset_size=45)
    mean, deviation = kid(REAL[:45], FAKE, net, subsets=400)
    assert deviation > 0
    assert mean == pytest.approx(full, abs=4 * deviation / 20)


def test_kid_of_like_sets_is_small_and_grows_with_difference() -> None:
    net = Net()
    alike = kid(REAL, pictures(60, 7), net)[0]
    near, far = kid(REAL, pictures(60, 8, high=230), net)[0], kid(REAL, pictures(60, 8, high=120), net)[0]
    assert abs(alike) < near < far


@pytest.mark.filterwarnings("error")
def test_kid_is_seeded_silent_and_leaves_the_global_generator() -> None:
    net = Net()
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = kid(REAL, FAKE, net, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(12)
    assert kid(REAL, FAKE, net, seed=3) == first
    assert kid(REAL, FAKE, net, seed=4) != first


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    whole = fid(REAL, FAKE, net), kid(REAL, FAKE, net)[0]
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(fidelity, "BATCH", 16)
    assert (fid(REAL, FAKE, net), kid(REAL, FAKE, net)[0]) == pytest.approx(whole, rel=1e-4)
    assert max(sizes) == 16


def test_the_network_is_used_in_evaluation_mode_and_left_as_it_was() -> None:
    net, reference = Net().train(), Net()
    statistics = net.body[1].running_mean.clone()  # type: ignore[operator]
    assert fid(REAL, FAKE, net) == pytest.approx(fid(REAL, FAKE, reference.eval()))
    assert all(module.training for module in net.modules())
    assert torch.equal(statistics, net.body[1].running_mean)  # type: ignore[arg-type]
    net.body[1].eval()
    fid(REAL, FAKE, net)
    assert not net.body[1].training, "a frozen part stays frozen"


def small_recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(RecogniserConfig(("cat", "dog"), ("noto",), ("cat", "dog"), widths=(8, 16), embedding=4)).eval()


def test_features_adapter() -> None:
    recogniser = small_recogniser()
    features = Features(recogniser)
    images = pictures(5, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert images.shape[-1] == 64
    with torch.no_grad():
        out = features(images)
        assert out.shape == (5, features.num_features) == (5, 16)
        assert torch.allclose(out, recogniser(images.float() * 2 / 255 - 1).features, atol=1e-6)
        larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert features(larger).shape == out.shape
        assert torch.allclose(features(larger), out, atol=0.05), "a larger copy of a picture reads nearly alike"


def test_features_adapter_works_in_torchmetrics_itself() -> None:
    features = Features(small_recogniser())
    metric = FrechetInceptionDistance(feature=features)
    with torch.no_grad():
        metric.update(REAL, real=True)
        metric.update(FAKE, real=False)
    assert fid(REAL, FAKE, features) == pytest.approx(float(metric.compute()), rel=1e-4)


@pytest.mark.parametrize("measure", [fid, kid])
def test_bad_input(measure) -> None:  # type: ignore[no-untyped-def]
    net = Net()
    for real, fake in ((REAL[:1], FAKE), (REAL, FAKE[:1]), (REAL[:0], FAKE)):
        with pytest.raises(GiftError, match="at least 2"):
            measure(real, fake, net)
    with pytest.raises(GiftError, match="fake pictures are torch"):
        measure(REAL, FAKE.float(), net)
    with pytest.raises(GiftError, match="must return"):
        measure(REAL, FAKE, nn.Identity())
    with torch.no_grad():
        net.body[0].weight.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(NonFiniteError, match="feature network's weights"):
        measure(REAL, FAKE, net)


def test_kid_subset_bounds() -> None:
    for size in (1, 46):
        with pytest.raises(GiftError, match="between 2 and 45"):
            kid(REAL, FAKE, Net(), subset_size=size)
    with pytest.raises(GiftError, match="at least 1"):
        kid(REAL, FAKE, Net(), subsets=0)
    assert np.isfinite(kid(REAL[:2], FAKE[:2], Net())).all(), "two pictures are enough by default"
