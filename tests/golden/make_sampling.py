"""Makes sampling.f32: logits and the tokens that HF's temperature, top-k and top-p warpers keep.

Per case 40 logits, then 40 flags (1 kept). The settings stand in tests/compute/test_sample.c as well.
Run: python tests/golden/make_sampling.py (torch, transformers).
"""
import os

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

torch.manual_seed(3)
path = os.path.join(os.path.dirname(__file__), "sampling.f32")
with open(path, "wb") as file:
    for temperature, top_k, top_p in ((1.0, 0, 0.7), (0.8, 12, 1.0), (1.5, 15, 0.75), (0.7, 0, 0.3)):
        logits = torch.randn(1, 40)
        warped = TemperatureLogitsWarper(temperature)(None, logits)
        if top_k > 0:
            warped = TopKLogitsWarper(top_k)(None, warped)
        if top_p < 1.0:
            warped = TopPLogitsWarper(top_p)(None, warped)
        for x in (logits, (warped > float("-inf")).float()):
            file.write(x.numpy().astype("<f4").tobytes())
