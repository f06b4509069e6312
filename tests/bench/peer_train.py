"""Tokens per second and peak memory of PEFT training LoRA on SmolLM2, on the CPU.

A line per mode: name, tokens/s of the best step, peak MB, separated by tabs. Each mode runs in a
process of its own, so that the peak is its own; "not measured" lines on stderr say which failed.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

from peer_model import load

# mode: (name, bf16 with autocast, torch.compile)
MODES = {
    "fp32": ("PEFT fp32", False, False),
    "bf16": ("PEFT bf16", True, False),
    "compile": ("PEFT bf16, torch.compile", True, True),
    "compile32": ("PEFT fp32, torch.compile", False, True),
    "bnb": ("PEFT, bitsandbytes int8", True, False),
}
# Makes an AVX2 machine of this one: oneDNN, ATen and TorchInductor's vectors, MKL.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def use_bitsandbytes(model):
    import bitsandbytes
    from torch import nn

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                new = bitsandbytes.nn.Linear8bitLt(
                    child.in_features, child.out_features, bias=False,
                    has_fp16_weights=False, threshold=6.0,
                )
                new.weight = bitsandbytes.nn.Int8Params(
                    child.weight.data, requires_grad=False, has_fp16_weights=False
                )
                setattr(module, name, new)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()


def run_mode(mode, n_row, n_col, steps, avx2):
    import torch
    from peft import LoraConfig, get_peft_model

    name, half, compiled = MODES[mode]
    torch.manual_seed(0)
    if avx2 and compiled:
        import torch._inductor.config

        torch._inductor.config.cpp.march = "x86-64-v3"
    model = load(torch.bfloat16 if half else torch.float32)
    if mode == "bnb":
        use_bitsandbytes(model)
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(model, config)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, model.config.vocab_size, (n_row, n_col))
    if compiled:
        model = torch.compile(model)

    def step():
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return time.perf_counter() - start

    step()  # compiles and warms up
    best = min(step() for _ in range(steps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(name, round(n_row * n_col / best, 1), round(peak), sep="\t")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", default="fp32,bf16,compile,bnb", help=",".join(MODES))
    parser.add_argument("--tokens", default="4x1024", help="rows x tokens")
    parser.add_argument("--steps", type=int, default=3, help="that are timed")
    parser.add_argument("--limit", type=float, default=900, help="seconds a mode may take")
    parser.add_argument("--avx2", action="store_true", help="as on an AVX2 machine")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        n_row, n_col = map(int, args.tokens.split("x"))
        run_mode(args.one, n_row, n_col, args.steps, args.avx2)
        return
    environment = os.environ | (AVX2 if args.avx2 else {})
    for mode in args.modes.split(","):
        try:
            subprocess.run([sys.executable, __file__, "--one", mode, *sys.argv[1:]], check=True,
                           timeout=args.limit, env=environment)
        except subprocess.SubprocessError as error:
            reason = "too slow" if isinstance(error, subprocess.TimeoutExpired) else "it failed"
            print(f"not measured: {MODES[mode][0]}: {reason} (limit {args.limit:.0f} s)",
                  file=sys.stderr)


if __name__ == "__main__":
    main()
