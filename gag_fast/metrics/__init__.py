"""The measures of finished saliency maps. The table of them is gag_fast/measures.py.

inputs.py        what users hand in, checked
case.py          what a measure's function is given
masked.py        rcap, dauc, iauc, srg: pictures that show some pixels of the image
masks.py         log_cosh_dice, mae
spread.py        gini, entropy: the map alone
localisation.py  pointing_game, relevance_mass, relevance_rank: map and mask
road.py          road: pixels filled in from their neighbours
information.py   aic, sic: the image restored, over its file's size
product.py       average_drop, increase, adcc: the image dimmed by its map
agreement.py     infidelity, mufidelity, idsds: changes that are the same for every map
robustness.py    max_sensitivity, mprt, emprt: explaining again
correlation.py   Pearson's and Spearman's
evaluation.py    evaluate(), rcap(), plan()
scores.py        what evaluate() gives back
"""

from gag_fast.metrics.evaluation import evaluate, plan, rcap
from gag_fast.metrics.masks import log_cosh_dice, mae
from gag_fast.metrics.scores import Scores

__all__ = ["Scores", "evaluate", "log_cosh_dice", "mae", "plan", "rcap"]
