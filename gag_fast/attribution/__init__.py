"""Attribution methods: input modification -> gradients -> processing -> aggregation (Section 3.1).

`gradients` runs the model; `noise`, `integrated_gradients`, `guided_ig` and `blur_ig` modify the
input; `guided_backprop` changes the backward pass; `processing` turns the gradients of all
modifications into one map; `grad_cam` stands apart; `reverse` makes the reversed maps of
Section 4.3; `registry` names what can be combined.
"""
