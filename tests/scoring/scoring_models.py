"""What is scored: classifiers small enough for milliseconds, and real photographs with maps."""

import torch
from torch import Tensor, nn

import gag_fast
from gag_fast.images import preprocess
from gag_fast.models import ModelSpec, Preprocessing


class SmallNet(nn.Module):
    """A real convolutional network with sharp probabilities, seeded."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(16 * 6 * 6, 5),
            )
            self.layers[-1].weight.data.mul_(4.0)

    def forward(self, x):
        return self.layers(x)


def small_spec() -> ModelSpec:
    return ModelSpec("small", Preprocessing(size=24, resize=24), 5, tuple("abcde"))


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 2)
        self.layer.weight.data = torch.stack([torch.zeros(16), torch.ones(16)])
        self.layer.bias.data = torch.tensor([0.0, -8.0])

    def forward(self, x):
        return self.layer(x.flatten(1))


def linear() -> nn.Module:
    return Linear().eval()


def batch(count=3, maps=None, size=24, seed=0):
    """Images, maps and targets for SmallNet."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=generator)
    shape = (count, size, size) if maps is None else (count, maps, size, size)
    saliency = torch.rand(shape, generator=generator)
    return images, saliency, torch.arange(count) % 5


def scikit_photographs(spec: ModelSpec) -> Tensor:
    """Three photographs that come with scikit-image, as a model takes them."""
    from PIL import Image
    from skimage import data

    pictures = [Image.fromarray(getattr(data, n)()) for n in ("coffee", "chelsea", "rocket")]
    return torch.stack([preprocess(p, spec.preprocessing) for p in pictures])


def two_maps(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted classes [B], and a smooth and a rough map of each image [B, 2, H, W]."""
    with torch.no_grad():
        targets = module(images).argmax(dim=1)
    rough = gag_fast.explain(module, images, targets, method="vanilla")
    smooth = nn.functional.avg_pool2d(rough[:, None], 31, 1, 15, count_include_pad=False)[:, 0]
    smooth = smooth - smooth.amin(dim=(1, 2), keepdim=True)
    smooth = smooth / smooth.amax(dim=(1, 2), keepdim=True)
    return targets, torch.stack([smooth, rough], dim=1)
