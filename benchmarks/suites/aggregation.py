"""Aggregation: gradient stacks to maps, by us and by what users have today."""

from __future__ import annotations

import torch

import gag_fast
from benchmarks import competitors
from benchmarks.material import SWEEP, Stack
from benchmarks.suites import Cases, Group


def one_percent(stack: Stack, device: str = "cpu", slow: bool = True) -> Group:
    """One map per image at p = 85. `slow` adds the competitors that take a good while."""

    def setup() -> Cases:
        grads = stack.make(device)
        plain = competitors.compiled(competitors.plain_torch)
        cases: Cases = {
            "gag_fast": lambda: gag_fast.guided_absgrad(grads, p=85),
            "one read (sum)": lambda: grads.sum(),
            "torch.compile": lambda: plain(grads),
            "plain torch": lambda: competitors.plain_torch(grads),
        }
        if slow:
            samples = list(grads.unbind(1))
            cases["authors' recipe"] = lambda: competitors.authors_recipe(samples)
            if device == "cpu":
                array = grads.float().numpy()
                cases["NumPy"] = lambda: competitors.numpy_percentile(array)
        return cases

    names = ("gag_fast", "one read (sum)", "torch.compile", "plain torch")
    if slow:
        names += ("authors' recipe",) + (("NumPy",) if device == "cpu" else ())
    return Group(
        str(stack),
        names,
        setup,
        floor="one read (sum)",
        bytes=stack.bytes,
        operations=stack.operations,
        units=stack.batch,
        unit="image",
    )


def sweep(stack: Stack, device: str = "cpu") -> Group:
    """Nine maps per image: every p of the paper's Table 1 and one more."""

    def setup() -> Cases:
        grads = stack.make(device)
        return {
            "gag_fast, nine p": lambda: gag_fast.guided_absgrad(grads, p=SWEEP),
            "gag_fast, one p": lambda: gag_fast.guided_absgrad(grads, p=85),
            "plain torch, nine p": lambda: [competitors.plain_torch(grads, p) for p in SWEEP],
        }

    names = ("gag_fast, nine p", "gag_fast, one p", "plain torch, nine p")
    return Group(f"sweep of nine p, {stack}", names, setup, floor=names[1], bytes=stack.bytes)


def streaming(stack: Stack, device: str = "cpu") -> Group:
    """GradientStats fed sample by sample, against the one-shot call."""

    def setup() -> Cases:
        grads = stack.make(device)
        samples = list(grads.unbind(1))

        def stream():
            stats = gag_fast.GradientStats()
            for sample in samples:
                stats.update(sample)
            return stats.guided_absgrad(p=85)

        return {
            "GradientStats": stream,
            "one-shot call": lambda: gag_fast.guided_absgrad(grads, p=85),
        }

    names = ("GradientStats", "one-shot call")
    return Group(f"streaming, {stack}", names, setup, floor=names[1], bytes=stack.bytes)


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite, cheapest first."""
    half = {"dtype": torch.float16}
    return [
        one_percent(Stack(side=96), device),
        one_percent(Stack(batch=1), device),
        one_percent(Stack(), device),
        one_percent(Stack(n=10), device, slow=False),
        one_percent(Stack(n=50), device, slow=False),
        one_percent(Stack(batch=32), device, slow=False),
        one_percent(Stack(batch=1, side=448), device),
        one_percent(Stack(batch=8, side=448), device, slow=False),
        one_percent(Stack(**half), device, slow=False),
        one_percent(Stack(dtype=torch.bfloat16), device, slow=False),
        one_percent(Stack(dtype=torch.float64), device, slow=False),
        one_percent(Stack(channels_last=True), device, slow=False),
        sweep(Stack(), device),
        streaming(Stack(), device),
    ]
