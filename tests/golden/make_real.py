#!/usr/bin/env python3
"""Makes tests/golden/real_gguf.txt: XXH3 of SmolLM2's weights as transformers reads them from its GGUF
file. One number: the hash of every tensor's fp32 bytes, those hashed again in the order of the names.

    make_real.py SmolLM2-135M-Instruct.Q4_1.gguf        (needs torch, transformers, gguf, xxhash)
"""
import pathlib
import sys

import torch
import transformers
import xxhash

path = pathlib.Path(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                          dtype=torch.float32)
whole = xxhash.xxh3_64()
state = model.state_dict()
for name in sorted(state, key=str.encode):
    if name == "lm_head.weight":  # tied
        continue
    digest = xxhash.xxh3_64_intdigest(state[name].contiguous().numpy().tobytes())
    whole.update(digest.to_bytes(8, "little"))
(pathlib.Path(__file__).parent / "real_gguf.txt").write_text(f"{whole.intdigest():016x}\n")
