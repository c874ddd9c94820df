"""Explaining again, of a changed image or by a changed model: max_sensitivity, mprt, emprt.

A method that takes image_ids meets the same noise as it did the first time, so that only the image
or only the weights differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gag_fast import perturb
from gag_fast.metrics.case import Case, WithIds
from gag_fast.metrics.correlation import spearman


def max_sensitivity(case: Case) -> Tensor:
    """Largest |M(x + d) - M(x)| / |M(x)| over random d, each value of d uniform in +- the radius.

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", 2019, as Captum's
    `sensitivity_max` with the 2-norm. A maximum over `sensitivity_samples` draws grows with their
    number. The radius is in normalised units. For a map of zeros the norm is taken as 1.
    """
    keys = perturb.image_numbers(case.images)
    norm = case.maps.double().flatten(2).norm(dim=2)
    norm = torch.where(norm == 0, 1.0, norm)
    worst = torch.zeros_like(norm)
    for m, method in enumerate(case.again):
        several = max(1, _AT_ONCE // len(keys)) if isinstance(method, WithIds) else 1
        for numbers in torch.arange(case.preset.sensitivity_samples).split(several):
            shifts = [torch.stack([_shift(case, key, n) for key in keys]) for n in numbers.tolist()]
            moved = torch.cat([case.images + shift for shift in shifts])
            change = case.explain(m, moved).unflatten(0, (len(shifts), -1)) - case.maps[:, m]
            size = change.double().flatten(2).norm(dim=2).amax(dim=0)
            worst[:, m] = torch.maximum(worst[:, m], size / norm[:, m])
    return worst


_AT_ONCE = 16  # changed images in one call, where the method takes any number


def mprt(case: Case) -> Tensor:
    """Mean Spearman's correlation of a map with the maps of ever more randomised weights.

    Model parameter randomisation test of Adebayo et al., "Sanity Checks for Saliency Maps", 2018,
    cascading as Quantus' MPRT: layers are drawn anew from the output on ("top_down") or from the
    input on ("bottom_up"), in `randomise_groups` groups (0: one by one), with a correlation after
    each. A method that reads the weights has a low one; so has one that gives noise. Maps are
    compared with their sign as given.
    """
    total = torch.zeros(case.given.shape[:2], dtype=torch.float64, device=case.images.device)
    count = 0
    for module in _randomised(case, case.preset.randomise_groups):
        count += 1
        for m in range(total.shape[1]):
            again = _explain(case, m, module)
            total[:, m] += spearman(case.maps[:, m].flatten(1), again.flatten(1))
    return total / count


def emprt(case: Case) -> Tensor:
    """(E' - E) / E, E the entropy of a map's histogram, E' that with all weights randomised.

    Efficient MPRT of Hedstrom et al., "Sanity Checks Revisited", 2023: a random model's map should
    be the more complex one. The histogram has `randomise_bins` equal bins from the smallest to the
    largest value. Not defined (NaN) for a map whose values all fall into one bin.
    """
    before = _histogram_entropy(case.maps.flatten(2), case.preset.randomise_bins)
    module = next(_randomised(case, 1))
    maps = [_explain(case, m, module) for m in range(case.given.shape[1])]
    after = _histogram_entropy(torch.stack(maps, dim=1).flatten(2), case.preset.randomise_bins)
    return torch.where(before > 0, (after - before) / before, torch.nan)


def resettable(module: nn.Module) -> list[nn.Module]:
    """The layers that can be drawn anew, from the input to the output."""
    return [m for m in module.modules() if hasattr(m, "reset_parameters")]


def _randomised(case: Case, groups: int) -> Iterator[nn.Module]:
    """One copy of the model, with another group of layers drawn anew at each turn."""
    assert isinstance(case.model, nn.Module), "checked where the model was given"
    module = copy.deepcopy(case.model)
    layers = resettable(module)
    if case.preset.randomise_order == "top_down":
        layers.reverse()
    groups = min(groups or len(layers), len(layers))
    for group in range(groups):
        for layer in layers[len(layers) * group // groups : len(layers) * (group + 1) // groups]:
            devices = [case.images.device] if case.images.is_cuda else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(case.preset.randomise_seed)
                layer.reset_parameters()  # type: ignore[operator]
        yield module


def _explain(case: Case, m: int, module: nn.Module) -> Tensor:
    return case.explain(m, case.images, module)


def _shift(case: Case, key: int, number: int) -> Tensor:
    generator = perturb.generator_of(key, case.preset.perturb_seed, 3 + number)
    drawn = torch.rand(case.images.shape[1:], generator=generator).to(case.images.device)
    return (2 * drawn - 1) * case.preset.sensitivity_radius


def _histogram_entropy(values: Tensor, bins: int) -> Tensor:
    """Entropy in nats of the histogram along the last axis: float64."""
    values = values.double()
    low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    place = ((values - low) / (high - low) * bins).floor().nan_to_num(0).clamp(0, bins - 1).long()
    counts = torch.zeros(*values.shape[:-1], bins, dtype=torch.float64, device=values.device)
    counts.scatter_add_(-1, place, torch.ones_like(values))
    share = counts / values.shape[-1]
    return -torch.special.xlogy(share, share).sum(dim=-1)
