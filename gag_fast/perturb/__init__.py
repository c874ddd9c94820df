"""Which pictures the metrics need: sorted maps, sources, and the plan of distinct ones.

blur.py    Gaussian blur of images
impute.py  missing pixels filled in from their neighbours
noise.py   random numbers that belong to an image
plan.py    rank(), make_bank(), make_plan()
"""

from gag_fast.perturb.noise import generator_of, image_numbers, noise_of
from gag_fast.perturb.plan import (
    FILL,
    Bank,
    Made,
    Masked,
    Picture,
    Plan,
    Ranked,
    Wanted,
    curve_counts,
    make_bank,
    make_plan,
    percentile_counts,
    rank,
    recover_counts,
    set_numbers,
)

__all__ = [
    "FILL",
    "Bank",
    "Made",
    "Masked",
    "Picture",
    "Plan",
    "Ranked",
    "Wanted",
    "curve_counts",
    "generator_of",
    "image_numbers",
    "make_bank",
    "make_plan",
    "noise_of",
    "percentile_counts",
    "rank",
    "recover_counts",
    "set_numbers",
]
