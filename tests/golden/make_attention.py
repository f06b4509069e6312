"""Makes attention.f32: transformers' LLaMA rotary embedding and causal attention with gradient.

fp32, one after the other: rotary table [T, E] (cos of the first half, sin of the first half), q k v
before rotation [T, (H + 2G) E], attention output [T, H E], its gradient [T, H E], and the gradient of
q k v [T, (H + 2G) E]. Run: python tests/golden/make_attention.py (torch, transformers).
"""
import os

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaRotaryEmbedding, apply_rotary_pos_emb, repeat_kv)

T, H, G, E = 11, 4, 2, 8
torch.manual_seed(1)
config = LlamaConfig(hidden_size=H * E, num_attention_heads=H, num_key_value_heads=G, head_dim=E,
                     max_position_embeddings=64)
qkv = torch.randn(T, (H + 2 * G) * E, requires_grad=True)
cos, sin = LlamaRotaryEmbedding(config)(qkv, torch.arange(T)[None])
q, k, v = (x.reshape(T, -1, E).transpose(0, 1)[None]
           for x in qkv.split([H * E, G * E, G * E], dim=1))
q, k = apply_rotary_pos_emb(q, k, cos, sin)
k, v = repeat_kv(k, H // G), repeat_kv(v, H // G)
score = q @ k.transpose(2, 3) * E ** -0.5
mask = torch.full((T, T), float("-inf")).triu(1)
out = (torch.softmax(score + mask, dim=-1) @ v)[0].transpose(0, 1).reshape(T, H * E)
dout = torch.randn(T, H * E)
out.backward(dout)
table = torch.cat([cos[0, :, :E // 2], sin[0, :, :E // 2]], dim=1)
path = os.path.join(os.path.dirname(__file__), "attention.f32")
with open(path, "wb") as file:
    for x in (table, qkv.detach(), out.detach(), dout, qkv.grad):
        file.write(x.contiguous().numpy().astype("<f4").tobytes())
