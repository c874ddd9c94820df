"""What a classifier's output is: the tensor in it, and how its numbers become probabilities.

kind            values                                          probability of class k
logits          any                                             softmax over the classes
probabilities   in [0, 1], a row sums to 1                      the value
sigmoid         classes independent of one another: each in     the value, or its sigmoid where
                [0, 1], or the logits of such values            values leave [0, 1]

One output is the binary case of the last: class 1 is what it speaks for, class 0 the rest. The kind
is declared or found on the first images; a declaration that the numbers contradict is an error. One
case nothing shows: the logits of classes that are independent of one another look like any logits,
so those must be declared (`score="sigmoid"`), or softmax makes them compete.

What is differentiated is a logit, whatever the model gives. Of values that are probabilities it is
the class's log odds, log p - log(1 - p): the very logit that a sigmoid was given, and with softmax
inside the class's logit against all others. The gradient of p itself is p (1 - p) times that, and
vanishes as p nears 0 or 1, as that of log p does near 1: the noisy copies of which the model is
surest would count least in a mean. The map of a single gradient is the same for all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gag_fast._errors import ClassifierError
from gag_fast._inputs import describe

SCORES = ("logits", "probabilities", "sigmoid")
_SUM = 2e-3
"""How far the sum of a row of probabilities may be from 1, with room for half precision."""


def scores_of(output: Any, count: int | None) -> Tensor:
    """The scores `[count, K]` in whatever a model returned for `count` images (None: not checked).

    Taken are a tensor `[count, K]` or `[count]` (one output), an object with `.logits`, a mapping
    with "logits", and a tuple or list whose first member is one of these: auxiliary heads, features
    and losses that stand beside it are passed over.

    Raises:
        ClassifierError: naming what was returned and what to write instead.
    """
    found = _tensor_in(output)
    if found is not None and (count is None or len(found) == count):
        if found.dim() == 1:
            return found[:, None]
        if found.dim() == 2 and found.shape[1]:
            return found
    got = describe(output) if found is None else list(found.shape)
    raise ClassifierError(
        f"the classifier must give [B, K], got {got} for a batch of {count}; wrap it in a module "
        "whose forward returns one tensor of scores, one row an image"
    )


def _tensor_in(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else None
    if logits is None:
        logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, (tuple, list)) and output:
        return _tensor_in(output[0])
    if hasattr(output, "__array__") or isinstance(output, list):
        return torch.as_tensor(output)
    return None


@dataclass(frozen=True)
class Reading:
    """How raw scores are read.

    Attributes:
        kind: one of SCORES.
        applied: the values are probabilities already.
        single: the model has one output, which makes two classes.
    """

    kind: str
    applied: bool
    single: bool = False

    def wide(self, raw: Tensor) -> Tensor:
        """One column a class: raw scores `[N, K]` as they are, a single one with its complement."""
        if not self.single:
            return raw
        return torch.cat([1 - raw if self.applied else -raw, raw], dim=1)

    def probabilities(self, raw: Tensor) -> Tensor:
        """Class probabilities `[N, K]` of raw scores; two columns for a single output."""
        return self.of_wide(self.wide(raw))

    def of_wide(self, scores: Tensor) -> Tensor:
        """Class probabilities `[N, K]` of what `wide` gives."""
        if self.applied:
            return scores
        return scores.softmax(dim=1) if self.kind == "logits" else scores.sigmoid()

    def logits(self, wide: Tensor) -> Tensor:
        """What is differentiated `[N, K]`, from what `wide` gives: log odds of probabilities.

        Finite wherever the probabilities are; flat where all that is not a class is 0 to the last
        bit, or the class itself.
        """
        if not self.applied:
            return wide
        if self.kind == "sigmoid" and not self.single:
            rest = 1 - wide
        else:
            # No 1 - p for a large p, which would cancel: only one class can be above one half, and
            # then the others are all that are not.
            large = wide > 0.5
            others = wide.masked_fill(large, 0).sum(1, keepdim=True)
            rest = torch.where(large, others, wide.sum(1, keepdim=True) - wide)
        tiny = torch.finfo(wide.dtype).tiny
        return wide.clamp_min(tiny).log() - rest.clamp_min(tiny).log()

    def negative_log(self, wide: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log of the targets' probabilities, from what `wide` gives."""
        if self.applied:
            chosen = wide.gather(1, targets[:, None])
            return -chosen.clamp_min(torch.finfo(wide.dtype).tiny).log().sum()
        if self.kind == "logits":
            return F.cross_entropy(wide, targets, reduction="sum")
        return -F.logsigmoid(wide.gather(1, targets[:, None])).sum()

    def __str__(self) -> str:
        """For a person."""
        what = self.kind if self.applied or self.kind != "sigmoid" else "logits of sigmoids"
        return f"{what}, one output for two classes" if self.single else what


LOGITS = Reading("logits", False)
"""How most classifiers' scores are read."""


def check_score(score: str | None) -> None:
    """Refuses a kind that there is not."""
    if score not in (None, *SCORES):
        raise ClassifierError(f"score must be one of {', '.join(SCORES)}, got {score!r}")


def read(
    raw: Tensor, declared: str | None = None, again: Callable[[], Tensor] | None = None
) -> Reading:
    """How a model's scores are to be read, from those of some images.

    Args:
        raw: scores `[N, K]`.
        declared: one of SCORES, or None.
        again: scores of other images, far away from the first, where these leave it open whether
            values in [0, 1] are so by nature or by chance.

    Raises:
        ClassifierError: the numbers contradict the declaration; with both, and what to write.
    """
    check_score(declared)
    raw = raw.detach().float()
    raw = raw[raw.isfinite().all(dim=1)]
    single = raw.shape[1] == 1
    within = _within(raw)
    if single:
        if declared == "probabilities" and not within:
            raise ClassifierError(_contradiction(declared, raw, "score='sigmoid'"))
        if declared == "logits":
            return Reading("sigmoid", False, True)
        applied = declared == "probabilities" or (within and _stays(raw, again))
        return Reading("sigmoid", applied, True)
    sums = len(raw) > 0 and within and bool((raw.sum(dim=1) - 1).abs().max() <= _SUM)
    if declared is None:
        if sums:
            return Reading("probabilities", True)
        independent = within and again is not None and _stays(raw, again, moving=True)
        return Reading("sigmoid", True) if independent else Reading("logits", False)
    if declared == "sigmoid":
        return Reading("sigmoid", within and _stays(raw, again))
    if declared == "probabilities" and len(raw) and not sums:
        remedy = "score='sigmoid' for independent classes" if within else "score='logits'"
        raise ClassifierError(_contradiction(declared, raw, remedy))
    if declared == "logits" and sums and bool(raw.std(dim=1).max() > 0):
        raise ClassifierError(_contradiction(declared, raw, "score='probabilities'"))
    return Reading(declared, declared == "probabilities")


def _within(raw: Tensor) -> bool:
    return len(raw) > 0 and bool((raw >= 0).all()) and bool((raw <= 1 + _SUM).all())


def _stays(raw: Tensor, again: Callable[[], Tensor] | None, moving: bool = False) -> bool:
    """Whether values in [0, 1] are also there for images far away; `moving`: and others there."""
    if again is None:
        return True
    other = again().detach().float()
    other = other[other.isfinite().all(dim=1)]
    if moving and torch.equal(other, raw[:1].expand_as(other)):
        return False  # a constant says nothing
    return _within(other) if len(other) else True


def _contradiction(declared: str, raw: Tensor, remedy: str) -> str:
    row = raw[0]
    return (
        f"the scores are declared as {declared}, but those of the first image lie in "
        f"[{float(row.min()):.4g}, {float(row.max()):.4g}] and sum to {float(row.sum()):.4g}; "
        f"write {remedy}"
    )
