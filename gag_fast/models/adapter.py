"""Modules whose output is one tensor of scores [B, K], whatever the module inside returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gag_fast._errors import first_line
from gag_fast.models.spec import ModelError
from gag_fast.scores import Reading, scores_of


class Scores(nn.Module):
    """A module that returns objects, dicts or tuples, giving the scores in them alone.

    Args:
        model: the module.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Scores [B, K] of images [B, C, H, W]."""
        # Looking at the number of images would fix it in an export.
        return scores_of(self.model(images), None)


class Logits(nn.Module):
    """A module of any kind of scores, giving the logits that are differentiated of all its classes.

    Args:
        model: the module.
        reading: what its scores are.
    """

    def __init__(self, model: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.model, self.reading = model, reading

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of images [B, C, H, W]."""
        return self.reading.logits(self.reading.wide(scores_of(self.model(images), None)))


class Exported(nn.Module):
    """A program of torch.export, which has no train() and eval() and says little when it fails.

    Args:
        program: the exported program.
        name: for messages.
    """

    def __init__(self, program: Any, name: str) -> None:
        super().__init__()
        self.model, self._name = program.module(), name
        self.training = False

    def train(self, mode: bool = True) -> Exported:
        """Does nothing: the program is as it was exported."""
        return self

    def forward(self, images: Tensor) -> Any:
        """What the program returns."""
        try:
            return self.model(images)
        except (AssertionError, RuntimeError) as error:
            raise ModelError(
                f"{self._name} refuses images of shape {tuple(images.shape)}: {first_line(error)}; "
                "export it in eval mode with a dynamic batch, dynamic_shapes="
                "({0: torch.export.Dim('batch')},)"
            ) from None


def adapted(module: nn.Module, output: Any) -> nn.Module:
    """The module itself where its output is one tensor [B, K], else one that makes it so."""
    return module if isinstance(output, Tensor) and output.dim() == 2 else Scores(module)
