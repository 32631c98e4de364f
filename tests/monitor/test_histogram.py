"""Counts by sign and power of two, against numpy's over the same edges."""

import math

import numpy as np
import torch
from monitor_helpers import L, layered, read, small_model

from redline.monitor import ActivationHistogram, WeightHistogram
from redline.monitor.histogram import Octaves


def test_counts_are_numpys_between_the_stated_edges():
    octaves = Octaves(low=-6, high=2, values=10_000)
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0)).reshape(50, 100)
    edges = octaves.edges()
    assert edges.tolist() == [-4, -2, -1, *(-(2.0**k) for k in range(-1, -6, -1)), 0,
                              *(2.0**k for k in range(-5, 3))]  # fmt: skip
    assert octaves.counts(x).tolist() == np.histogram(x.numpy().clip(-4, 4), edges)[0].tolist()


def test_what_falls_beside_the_bins():
    octaves = Octaves(low=-2, high=1, values=100)
    x = torch.tensor([1e-9, -1e-9, 1e30, -1e30, math.inf, -math.inf, math.nan, 0.0, 0.6, -0.6])
    assert octaves.counts(x).tolist() == [2, 1, 1, 2, 1, 2]
    assert len(octaves.edges()) == 7


def test_of_a_large_tensor_some_elements_are_counted_evenly():
    octaves = Octaves(low=-2, high=1, values=100)
    x = torch.cat([torch.full((500,), 0.6), torch.full((511,), -0.6)])
    counts = octaves.counts(x).tolist()
    assert counts == [0, 46, 0, 0, 46, 0]


def test_arrays_of_weights_and_activations():
    model = small_model()
    weight = model.blocks[1].attention.proj.weight.detach().clone()
    arrays = read(model, WeightHistogram(["proj", "fc1"], -24, 24, 10_000))
    assert set(arrays) == layered("weight", ["proj", "fc1"]) | {"weight/edges"}
    expected = np.histogram(weight.numpy(), arrays["weight/edges"])[0]
    assert arrays["weight/proj/layer_01"].tolist() == expected.tolist()
    assert expected.sum() == weight.numel()

    arrays = read(small_model(), ActivationHistogram(["q", "residual"], -24, 24, 10_000))
    assert set(arrays) == layered("activation", ["q", "residual"]) | {"activation/edges"}
    assert [arrays[f"activation/q/layer_{layer:02d}"].sum().item() for layer in range(L)] == [3 * 8 * 16] * L
