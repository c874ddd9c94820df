import os

import pytest

from tests.cuda.cuda_emulation import COMPILER, Emulation, compile_harness


@pytest.fixture(scope="session")
def emulation(tmp_path_factory):
    """The kernels on the CPU; with the sanitizers that the native library was built with."""
    if COMPILER is None:
        pytest.skip("no g++ to build the emulation with")
    sanitizers = os.environ.get("GAG_FAST_SANITIZE")
    extra = (f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all") if sanitizers else ()
    return Emulation(compile_harness(tmp_path_factory.mktemp("emulation"), extra))
