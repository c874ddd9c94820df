"""Attribution methods: input modification -> gradients -> processing -> aggregation (Section 3.1).

source.py       what is needed of whatever computes gradients; gradients.py: of a torch module
noise.py, integrated_gradients.py, guided_ig.py, blur_ig.py    modify the input
guided_backprop.py  changes the backward pass; fusion.py makes it faster
processing.py   turns the gradients of all modifications into one map
grad_cam.py, legrad.py, xrai.py    make their maps by themselves, with gradients
forward.py      scores of pictures, by a Classifier or a module: all that these need
rise.py, occlusion.py, kernel_shap.py
reverse.py      the reversed maps of Section 4.3
own.py          methods of the user's own, by name
registry.py     names what can be combined
settings.py     the authors' settings by name; explanation.py: how to explain, as one value
inputs.py       checks what users hand in; explaining.py: all of it, for several methods at once
"""
