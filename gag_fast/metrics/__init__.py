"""The measures of finished saliency maps. The table of them is gag_fast/measures.py.

inputs.py       what users hand in, checked
case.py         what a measure's function is given
masked.py       rcap, dauc, iauc: pictures that show some pixels of the image
masks.py        log_cosh_dice(), mae()
evaluation.py   evaluate(), rcap(), plan()
scores.py       what evaluate() gives back
"""

from gag_fast.metrics.evaluation import evaluate, plan, rcap
from gag_fast.metrics.masks import log_cosh_dice, mae
from gag_fast.metrics.scores import Scores

__all__ = ["Scores", "evaluate", "log_cosh_dice", "mae", "plan", "rcap"]
