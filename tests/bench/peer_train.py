"""Tokens per second and peak memory of PEFT training one LoRA step, on the CPU.

One line of JSON per mode: {"peer", "tokens_per_second", "peak_mb"}. Each mode runs in a process of its
own, so that the peak is its own. Usage: peer_train.py [--modes fp32,bf16,compile,bnb] [--tokens 4x1024]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time


def run_mode(mode, n_row, n_col, steps):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    dtype = torch.float32 if mode == "fp32" else torch.bfloat16
    folder = os.environ["QUIPU_REAL"]
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=dtype
    )
    if mode == "bnb":
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
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(model, config)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, model.config.vocab_size, (n_row, n_col))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=mode != "fp32"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    if mode == "compile":
        model = torch.compile(model)
    step()
    best = float("inf")
    for _ in range(steps):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peer": f"PEFT {mode}", "tokens_per_second": round(n_row * n_col / best, 1),
                      "peak_mb": round(peak)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", default="fp32,bf16,compile,bnb")
    parser.add_argument("--tokens", default="4x1024", help="rows x tokens")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    n_row, n_col = map(int, args.tokens.split("x"))
    if args.one:
        run_mode(args.one, n_row, n_col, args.steps)
        return
    for mode in args.modes.split(","):
        subprocess.run([sys.executable, __file__, "--one", mode, "--tokens", args.tokens,
                        "--steps", str(args.steps)], check=False)


if __name__ == "__main__":
    main()
