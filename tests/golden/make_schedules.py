"""Prints the golden values of tests/optim/test_schedule.c: transformers' learning-rate schedules.

    python tests/golden/make_schedules.py
"""
import torch
from transformers import get_scheduler

CASES = [("constant_with_warmup", 3, 10), ("linear", 3, 10), ("cosine", 3, 10), ("linear", 0, 7),
         ("cosine", 0, 7), ("cosine", 7, 7)]

for name, warmup, steps in CASES:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0e-4)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    text = ", ".join(f"{value:.17g}" for value in values)
    print(f"    {{QP_SCHEDULE_{name.split('_')[0].upper()}, {warmup}, {steps}, {{{text}}}}},")
