"""RCAP, deletion, insertion, log-cosh Dice and MAE of finished saliency maps.

inputs.py       what users hand in, checked
masks.py        log_cosh_dice(), mae()
evaluation.py   evaluate(), rcap(), plan()
"""

from gag_fast.metrics.evaluation import Scores, evaluate, plan, rcap
from gag_fast.metrics.masks import log_cosh_dice, mae

__all__ = ["Scores", "evaluate", "log_cosh_dice", "mae", "plan", "rcap"]
