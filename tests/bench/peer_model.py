"""SmolLM2-135M of transformers, as the peers run it: dense weights of one type, nothing packed."""

import os

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load(dtype):
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    options = {}
    if hasattr(transformers, "GgufConfig"):  # may else keep the GGUF blocks and compute in fp32
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        os.environ["QUIPU_REAL"], gguf_file=FILE, dtype=dtype, attn_implementation="sdpa", **options
    )
    q_proj = model.model.layers[0].self_attn.q_proj
    assert type(q_proj) is torch.nn.Linear and q_proj.weight.dtype is dtype, q_proj
    return model
