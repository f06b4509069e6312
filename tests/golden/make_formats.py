#!/usr/bin/env python3
"""Makes tests/golden/formats/: small files of other programs, and what they hold.

    split/               blocks.gguf in three parts, as gguf-py writes them
    blocks.gguf          random blocks of every type Quipu reads, metadata of every kind
    blocks.safetensors   the same tensors dequantised by gguf-py; F16 and BF16 samples
    hf/                  a tiny LlamaForCausalLM of transformers (bf16, attention biases, tied)
    tiny.gguf            the same model as llama.cpp names, orders and stores it
    adapter/             a LoRA of that model, saved by PEFT
    merged.safetensors   two of its linears as PEFT merges them in fp32

Needs gguf, numpy, torch, transformers, peft, safetensors.
"""
import pathlib

import gguf
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent / "formats"
folder.mkdir(exist_ok=True)
random = np.random.default_rng(7)
Q = gguf.GGMLQuantizationType


def random_blocks(kind, n_row, n_col):
    """Rows of random bytes whose fp16 scales are small finite numbers."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = random.integers(0, 256, (n_row, n_col // block, size), dtype=np.uint8)
    halves = {Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2],
              Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}[kind]
    for at in halves:
        scale = random.normal(0.0, 0.05, rows.shape[:2] + (1,)).astype(np.float16)
        rows[:, :, at:at + 2] = scale.view(np.uint8)
    return rows.reshape(n_row, -1)


def add_metadata(writer):
    for key, value in (("u8", 200), ("u16", 60000), ("u32", 4000000000), ("u64", 2**62)):
        getattr(writer, "add_uint" + key[1:])("test." + key, value)
    for key, value in (("i8", -100), ("i16", -30000), ("i32", -2000000000), ("i64", -(2**62))):
        getattr(writer, "add_int" + key[1:])("test." + key, value)
    writer.add_float32("test.f32", 0.25)
    writer.add_float64("test.f64", 1e-300)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "naïve \"quoted\"\n")
    writer.add_array("test.array_i", [1, -2, 3])
    writer.add_array("test.array_s", ["a", "ß", ""])


def make_blocks():
    expected, tensors = {}, []
    for kind in (Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q5_K, Q.Q6_K):
        rows = random_blocks(kind, 2, 512)
        tensors.append((kind.name, rows, kind))
        expected[kind.name] = torch.from_numpy(gguf.dequantize(rows, kind).astype(np.float32))
    x = torch.from_numpy(random.normal(0.0, 1.0, (3, 20)).astype(np.float32))
    x[0, :4] = torch.tensor([0.0, -0.0, 6e-8, 65504.0])
    tensors += [("F32", x.numpy(), None), ("F16", x.half().numpy(), None),
                ("BF16", x.bfloat16().view(torch.uint16).numpy().view(np.uint8), Q.BF16)]
    expected |= {"F32": x, "F16": x.half(), "BF16": x.bfloat16()}
    (folder / "split").mkdir(exist_ok=True)
    for path, limit in ((folder / "blocks.gguf", 0), (folder / "split" / "blocks.gguf", 4)):
        writer = gguf.GGUFWriter(path, "llama", split_max_tensors=limit)
        add_metadata(writer)
        for name, data, kind in tensors:
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    save_file(expected, folder / "blocks.safetensors")


def permute(weights, n_head):
    """llama.cpp's order of the rows of q_proj and k_proj: halves become pairs."""
    shape = weights.shape
    return weights.reshape(n_head, 2, shape[0] // n_head // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def make_model():
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, vocab_size=320, max_position_embeddings=256,
        attention_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 50000.0})
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = model.to(torch.bfloat16)
    model.save_pretrained(folder / "hf")
    (folder / "hf" / "generation_config.json").unlink()
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
             "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down"}
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(16)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(2.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tokens += [f"t{i}" for i in range(len(tokens), 320)]
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(320)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (320 - 259))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        data = value.float().numpy()
        if ".q_proj." in name or ".k_proj." in name:
            data = permute(data, 4 if ".q_proj." in name else 2)
        if name == "model.embed_tokens.weight":
            name = "token_embd.weight"
        elif name == "model.norm.weight":
            name = "output_norm.weight"
        else:
            layer, rest = name.removeprefix("model.layers.").split(".", 1)
            stem, kind = rest.rsplit(".", 1)
            name = f"blk.{layer}.{names[stem]}.{kind}"
        if data.ndim == 2:
            half = torch.from_numpy(data.copy()).bfloat16().view(torch.uint16).numpy().view(np.uint8)
            writer.add_tensor(name, half, raw_dtype=Q.BF16)
        else:
            writer.add_tensor(name, data.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_adapter():
    torch.manual_seed(4)
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=0.1, use_rslora=True, task_type="CAUSAL_LM",
                             target_modules=["q_proj", "k_proj", "o_proj", "down_proj"])
    model = peft.get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    state = model.merge_and_unload().state_dict()
    save_file({name: state[name].contiguous() for name in ("model.layers.0.self_attn.q_proj.weight",
                                                           "model.layers.1.mlp.down_proj.weight")},
              folder / "merged.safetensors")


make_blocks()
make_model()
make_adapter()
for path in folder.rglob("*.safetensors"):
    path.chmod(0o644)
