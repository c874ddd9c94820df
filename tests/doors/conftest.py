"""Small images for the doors."""

import pytest
import torch


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
