"""Makes optim.f32: parameters under torch.optim.AdamW.

fp32: parameters [37]; then for each of four steps the gradient [37] and the parameters after it [37].
The hyperparameters stand in tests/compute/test_optim.c as well. Run: python tests/golden/make_optim.py
"""
import os

import torch

torch.manual_seed(2)
param = torch.nn.Parameter(torch.randn(37))
optim = torch.optim.AdamW([param], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05,
                          foreach=False)
path = os.path.join(os.path.dirname(__file__), "optim.f32")
with open(path, "wb") as file:
    file.write(param.detach().numpy().astype("<f4").tobytes())
    for step in range(4):
        param.grad = torch.randn(37) * 10.0 ** (step - 3)
        optim.step()
        for x in (param.grad, param.detach()):
            file.write(x.numpy().astype("<f4").tobytes())
