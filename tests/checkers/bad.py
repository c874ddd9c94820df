"""A user's script in which every line that is marked is a mistake a type checker finds."""

import numpy as np
from torch import Tensor, nn

import gag_fast


def mistakes(model: nn.Module, images: Tensor, maps: Tensor, clf: gag_fast.Classifier) -> None:
    print(gag_fast.nothing)  # BAD
    gag_fast.explain(model, images, noize=3)  # BAD
    gag_fast.explain(model, images, noise="loud")  # BAD
    gag_fast.explain_many(model, images, methods=3)  # BAD
    gag_fast.guided_absgrad(images, q=85)  # BAD
    gag_fast.guided_absgrad(images, channels="some")  # BAD
    gag_fast.guided_absgrad(np.zeros((2, 3, 4, 4))).cpu()  # BAD
    gag_fast.guided_absgrad(images).astype(float)  # BAD
    gag_fast.evaluate(clf, images, maps, [0], metrics=("rcpa",))  # BAD
    gag_fast.evaluate(clf, images, maps, [0], preset="papers")  # BAD
    print(gag_fast.evaluate(clf, images, maps, [0]).rcpa)  # BAD
    gag_fast.preset("papers")  # BAD
    gag_fast.mae(maps, maps, form="median")  # BAD
    gag_fast.run("val", "resnet50", "vanilla", "out", engine="spark")  # BAD
    gag_fast.run("val", "resnet50", "vanilla", "out", noize=3)  # BAD
