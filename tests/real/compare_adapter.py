"""An adapter written by a run, loaded by PEFT as it is: the same loss? (bar: 1e-3 relative)

Usage: compare_adapter.py GGUF_FOLDER ADAPTER SHARD.h5 LOSS
LOSS is what `quipu` with job.method = "eval", an fp32 base, device.compute = "fp32",
data.packing = "none", a long data.seq_length and lora.init = ADAPTER says of SHARD.
"""

import sys

import h5py
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main():
    folder, adapter, shard, expected = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32
    )
    model = PeftModel.from_pretrained(model, adapter).eval()
    with h5py.File(shard) as f:
        tokens, offsets = f["tokens"][:], f["offsets"][:]
    total, count = 0.0, 0
    with torch.inference_mode():
        for first, end in zip(offsets[:-1], offsets[1:]):
            ids = torch.tensor(tokens[first:end], dtype=torch.long)[None]
            if ids.shape[1] < 2:
                continue
            loss = model(input_ids=ids, labels=ids).loss.item()
            total += loss * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    loss = total / count
    difference = abs(float(expected) / loss - 1)
    print(f"PEFT {loss:.6f}, quipu {float(expected):.6f}: relative difference {difference:.2e}"
          f" over {count} targets: {'ok' if difference <= 1e-3 else 'MISSED'}")


if __name__ == "__main__":
    main()
