"""The classifier that scores: ONNX Runtime, or any module or function behaving like one.

lanes.py            an input buffer and a forward pass over it; driving several side by side
providers.py        which of ONNX Runtime's providers can run here, and their options
sessions.py         lanes bound to ONNX Runtime sessions on the CPU and on CUDA
opening.py          an ONNX file as a session that is ready to run
batch_size.py       the fastest batch size, measured once and remembered
arguments.py        what a classifier is given, checked
openvino.py         OpenVINO as a provider
onnx_classifier.py  Classifier
graphs.py           lanes of graphs with several inputs and outputs
onnx_gradients.py   OnnxGradients
"""

from gag_fast._errors import ClassifierError
from gag_fast.classifier.onnx_classifier import Classifier
from gag_fast.classifier.onnx_gradients import OnnxGradients

__all__ = ["Classifier", "ClassifierError", "OnnxGradients"]
