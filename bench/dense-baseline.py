#!/usr/bin/env python3
"""Times PyTorch's dense attention, as lines of JSON for bench/baseline-rows.mjs.

    python3 bench/dense-baseline.py [--shapes BxHxLxD ...] > baseline.jsonl

One line for each shape and backend, bfloat16, no mask:

    {"name": "cudnn", "shape": [B, H, L, D], "device": ..., "forward_ms": ..., "backward_ms": ...}

or with "error" where the backend does not take the shape. Times are medians of triton.testing.do_bench, which empties
the L2 before every call. Needs PyTorch with CUDA, and Triton, which comes with it.
"""

import argparse
import json
import math
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from triton.testing import do_bench

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}
# Those of the presets dense-32k and dense-16k-d64, and a length between.
SHAPES = ["1x12x32768x128", "1x12x16384x64", "1x12x29120x128"]
WARMUP_MS, MEASURED_MS = 1500, 1000  # the first lets the power limiter settle


def shape_of(text):
    sizes = [int(part) for part in text.split("x")]
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError("a shape is BxHxLxD, as 1x12x32768x128")
    return sizes


def median_ms(call, leaves=None):
    """With leaves, their gradients are dropped before every call instead of being added to."""
    return do_bench(call, warmup=WARMUP_MS, rep=MEASURED_MS, grad_to_none=leaves, return_mode="median")


def measure(name, shape):
    generator = torch.Generator(device="cuda").manual_seed(1)
    q, k, v, gradient = (
        torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16) for _ in range(4)
    )
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]
    with sdpa_kernel(BACKENDS[name]):
        with torch.no_grad():
            forward = median_ms(lambda: scaled_dot_product_attention(q, k, v))
        output = scaled_dot_product_attention(q, k, v)
        backward = median_ms(lambda: output.backward(gradient, retain_graph=True), leaves)
    if not math.isfinite(forward) or not math.isfinite(backward):
        raise RuntimeError("no time was measured")
    return {"forward_ms": forward, "backward_ms": backward}


def main():
    parser = argparse.ArgumentParser(description="Times PyTorch's dense attention.")
    parser.add_argument("--shapes", nargs="+", type=shape_of, default=[shape_of(text) for text in SHAPES])
    shapes = parser.parse_args().shapes
    if not torch.cuda.is_available():
        sys.exit("No GPU that PyTorch can use.")
    device = torch.cuda.get_device_name()
    for shape in shapes:
        for name in BACKENDS:
            line = {"name": name, "shape": shape, "device": device}
            try:
                line |= measure(name, shape)
            except RuntimeError as error:  # out of memory among them
                line["error"] = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
