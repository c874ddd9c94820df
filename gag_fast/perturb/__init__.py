"""Which masked images the metrics need: sorted maps, sources, and the plan of distinct ones.

blur.py    Gaussian blur of images
plan.py    rank(), make_bank(), make_plan()
"""

from gag_fast.perturb.plan import (
    FILL,
    Bank,
    Masked,
    Plan,
    Ranked,
    curve_counts,
    make_bank,
    make_plan,
    rank,
    recover_counts,
)

__all__ = [
    "FILL",
    "Bank",
    "Masked",
    "Plan",
    "Ranked",
    "curve_counts",
    "make_bank",
    "make_plan",
    "rank",
    "recover_counts",
]
