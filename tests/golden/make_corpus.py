#!/usr/bin/env python3
"""Goldens of tests/model/test_corpus.c: model folders as others damage them, and what transformers says.

Usage: make_corpus.py [FILE]      (needs torch, transformers, safetensors, numpy)

A few tiny models are mutated: keys of their JSON files removed, given another type or value, or
made to contradict each other; tensors removed, renamed, reshaped or added. Half of the cases are
listed, the other half are pairs of them drawn with a fixed seed. corpus.json holds, per case, only what was changed and
the mean loss (fp32, CPU) that AutoModelForCausalLM gives for two sequences, or why there is none:
it refuses the folder, or fills in random weights, or the loss is no number. The weights are not
stored: both sides make them from the integer hash of make_model.py.
"""
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import warnings

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from make_model import uniform, words

SEED, N_DRAWN = 15, 160
N_VOCAB, LENGTHS = 64, [12, 48]
TOO_LONG, MEMORY = 15, 8 << 30  # of one folder: seconds, bytes

# --- the models: JSON files as raw texts per key, so that a case can hold what json.dumps cannot --

SHAPE = {"vocab_size": "64", "hidden_size": "16", "intermediate_size": "24",
         "num_hidden_layers": "2", "num_attention_heads": "2", "num_key_value_heads": "1",
         "head_dim": "8", "hidden_act": '"silu"', "max_position_embeddings": "64",
         "rms_norm_eps": "1e-05", "bos_token_id": "1", "eos_token_id": "2"}
LLAMA = {"architectures": '["LlamaForCausalLM"]', "model_type": '"llama"', **SHAPE,
         "tie_word_embeddings": "false", "attention_bias": "false", "mlp_bias": "false",
         "attention_dropout": "0.0", "initializer_range": "0.02", "pretraining_tp": "1",
         "use_cache": "true", "torch_dtype": '"float32"', "transformers_version": '"4.46.0"'}
MISTRAL = {"architectures": '["MistralForCausalLM"]', "model_type": '"mistral"', **SHAPE,
           "tie_word_embeddings": "false", "rope_theta": "500.0", "sliding_window": "16"}
LLAMA3 = ('{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, '
          '"original_max_position_embeddings": 32}')
LINEAR = '{"type": "linear", "factor": 2.0}'

BASES = {
    "llama": {**LLAMA, "rope_theta": "500.0", "rope_scaling": "null"},
    "tied": {**LLAMA, "rope_theta": "500.0", "tie_word_embeddings": "true"},
    "bias": {**LLAMA, "rope_theta": "500.0", "attention_bias": "true"},
    "llama3": {**LLAMA, "rope_theta": "500.0", "rope_scaling": LLAMA3},
    "linear": {**LLAMA, "rope_theta": "500.0", "rope_scaling": LINEAR},
    "new": {**LLAMA, "rope_parameters": '{"rope_type": "default", "rope_theta": 500.0}'},
    "mistral": MISTRAL,
}
TOKENIZER = json.dumps({
    "added_tokens": [{"id": 1, "content": "<s>", "special": True},
                     {"id": 2, "content": "</s>", "special": True}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "<s>": 1, "</s>": 2, "b": 3}, "merges": []}})
FILES = {
    "generation_config.json": {"bos_token_id": "1", "eos_token_id": "2",
                               "transformers_version": '"4.46.0"'},
    "tokenizer_config.json": {"bos_token": '"<s>"', "eos_token": '"</s>"',
                              "model_max_length": "64"},
}


def tensors_of(base):
    """Names and shapes of a model's tensors."""
    config = BASES[base]
    shapes = {"model.embed_tokens.weight": [64, 16], "model.norm.weight": [16]}
    if config["tie_word_embeddings"] == "false":
        shapes["lm_head.weight"] = [64, 16]
    for layer in range(2):
        at = f"model.layers.{layer}."
        for norm in ["input_layernorm", "post_attention_layernorm"]:
            shapes[at + norm + ".weight"] = [16]
        for name, n_out, n_in in [("self_attn.q_proj", 16, 16), ("self_attn.k_proj", 8, 16),
                                  ("self_attn.v_proj", 8, 16), ("self_attn.o_proj", 16, 16),
                                  ("mlp.gate_proj", 24, 16), ("mlp.up_proj", 24, 16),
                                  ("mlp.down_proj", 16, 24)]:
            shapes[at + name + ".weight"] = [n_out, n_in]
            if name.startswith("self_attn") and config.get("attention_bias") == "true":
                shapes[at + name + ".bias"] = [n_out]
    return shapes


def values(name, shape, like=None):
    """The weights of a tensor; of another one where a case says so."""
    source = like or name
    norm, embedding = source.endswith("norm.weight"), "embed_tokens" in source
    scale = 0.25 if norm else 4.0 if embedding else 1.0
    return uniform(source, shape, scale) + (1.0 if norm else 0.0)


# --- the cases ------------------------------------------------------------------------------------

C, G, T = "config.json", "generation_config.json", "tokenizer_config.json"
GONE = None
WRONG = ["null", '"x"', "true", "1.5", "-1", "0", "[]", "{}", "NaN", "1" + "0" * 30]
ROPE = {"theta": '"rope_theta": 500.0', "f": '"factor": 2.0', "t": '"rope_type": "linear"',
        "default": '"rope_type": "default"'}


def keys_of_config():
    """Each key of a config removed, and with values of other types."""
    for key in BASES["llama"]:
        yield "llama", {C: {key: GONE}}
        for value in WRONG:
            yield "llama", {C: {key: value}}
    for key in ["sliding_window", "num_key_value_heads", "head_dim", "rope_theta", "model_type"]:
        yield "mistral", {C: {key: GONE}}
        for value in WRONG:
            yield "mistral", {C: {key: value}}


def contradictions():
    """Keys that say something else than the weights, or than another key."""
    changes = [
        ("vocab_size", "63", "65", "128"), ("hidden_size", "8", "32", "17"),
        ("intermediate_size", "16", "32"), ("num_hidden_layers", "1", "3"),
        ("num_attention_heads", "1", "4", "3", "8"), ("num_key_value_heads", "2", "3"),
        ("head_dim", "4", "16", "7"), ("max_position_embeddings", "32", "47", "48"),
        ("rms_norm_eps", "1e-06", "0.1", "0.0", "-1e-05", "1"), ("rope_theta", "10000", "1", "0.5"),
        ("hidden_act", '"swish"', '"gelu"', '"SiLU"', '"relu"', '"silu "'),
        ("tie_word_embeddings", "true"), ("attention_bias", "true"), ("mlp_bias", "true"),
        ("attention_dropout", "0.5", "1"), ("pretraining_tp", "2", "4"),
        ("architectures", '["MistralForCausalLM"]', '["LlamaModel"]', '"LlamaForCausalLM"',
         '["LlamaForSequenceClassification"]', '["Qwen2ForCausalLM"]', "[1]",
         '["LlamaForCausalLM", "MistralForCausalLM"]'),
        ("model_type", '"mistral"', '"qwen2"', '"gemma"', '"Llama"', '""'),
        ("torch_dtype", '"bfloat16"', '"float16"', '"float99"', '"auto"'),
        ("dtype", '"float32"', '"float16"', '"int99"', "null", "1"),
        ("sliding_window", "16", "null", "4096", '"x"', "0", "-1", "true", "1.5", "11", "[]"), ("use_sliding_window", "true", "false"),
        ("quantization_config", "{}", "null", '{"quant_method": "gptq", "bits": 4}'),
        ("partial_rotary_factor", "0.5", "1.0", "1", "null", '"x"'),
        ("original_max_position_embeddings", "16", "32"), ("is_causal", "false", "true"),
        ("layer_types", '["full_attention", "full_attention"]', "null", '["full_attention"]',
         '["sliding_attention", "sliding_attention"]', '["none", "none"]'),
        ("attention_chunk_size", "8", "null"), ("per_layer_config", "null",
         '{"0": {"intermediate_size": 16}}'), ("hidden_activation", '"gelu"', "null"),
        ("logits_scaling", "2.0"), ("attention_multiplier", "0.5"), ("auto_map", '{"AutoModel": "x"}'),
        ("pad_token_id", "-1", "0", "63", "64", "null", '"0"', "[0]"),
        ("bos_token_id", "63", "64", "[1]"), ("eos_token_id", "[2, 3]", "[2, 64]", '["2"]', "64"),
        ("problem_type", '"regression"', '"x"'), ("id2label", '{"0": "a"}', '{"x": "a"}', "[]", "null", "{}", '{"0": 1}', '{" 1 ": "a"}', "1"),
        ("num_labels", "1", '"1"', "null", "1.5", "0", "-1", "true"), ("is_encoder_decoder", "true", '"x"'),
        ("output_hidden_states", "true", "1", "null", '"x"'), ("output_attentions", "true"),
        ("return_dict", "false", "1", "null", "0", '"x"'), ("chunk_size_feed_forward", "1", '"x"'),
        ("text_config", '{"vocab_size": 3}', "null"), ("decoder", '"x"'),
        ("temperature", "0.5", '"x"'), ("max_length", "-1", '"x"'), ("do_sample", "1"),
        ("label2id", "[]", "1"), ("name_or_path", "1"), ("transformers_weights", '"x"'),
        ("gradient_checkpointing", "true"), ("tie_encoder_decoder", "true"),
        ("attn_implementation", '"eager"'), ("_attn_implementation", '"eager"'),
        ("kv_sharing_modes", '["reuse", "reuse"]'), ("is_decoder", "false"), ("pruned_heads", '{"0": [0]}'),
        ("use_bidirectional_attention", "true"), ("num_kv_shared_layers", "1"),
        ("rope_interleaved", "true"), ("final_logit_softcapping", "30.0"), ("clip_qkv", "1.0"),
        ("embedding_multiplier", "2.0"), ("use_qk_norm", "true"), ("generator", '"x"'),
        ("text_encoder", '"x"'), ("fusion_config", '{"x": 1}'), ("distributed_config", '{"tp": 2}'),
        ("no_rope_layers", "[0, 1]"), ("attn_temperature_tuning", "true"), ("torch_dtype", "1", '"nn"', "null"), ("_name_or_path", "1"), ("unknown_key", "NaN", "{}"),
        ("num_local_experts", "8"), ("head_dim", '"8"'),
    ]
    for key, *texts in changes:
        for text in texts:
            yield "llama", {C: {key: text}}
    for text in ["12", "11", "47", "48", "16.0"]:
        yield "mistral", {C: {"sliding_window": text}}
    mistral = [{"attention_bias": "true"}, {"mlp_bias": "true"}, {"use_sliding_window": "false"},
               {"sliding_window": "null"}, {"sliding_window": GONE, "use_sliding_window": "false"},
               {"sliding_window": "8", "use_sliding_window": "false"}, {"head_dim": "null"},
               {"num_key_value_heads": "null"}, {"max_window_layers": "1"},
               {"architectures": '["LlamaForCausalLM"]'}, {"model_type": '"llama"'},
               {"architectures": GONE}, {"architectures": '["LlamaForCausalLM"]',
                                         "model_type": '"llama"'},
               {"layer_types": '["full_attention", "full_attention"]'}, {"rope_theta": "10000"},
               {"rope_scaling": LINEAR}, {"rope_scaling": LLAMA3}]
    for patch in mistral:
        yield "mistral", {C: patch}
    for base in ["tied", "bias", "new", "linear", "llama3"]:
        yield base, {}
    for patch in [{"architectures": GONE}, {"model_type": GONE},
                  {"architectures": GONE, "model_type": GONE}, {"head_dim": GONE},
                  {"hidden_size": '16, "hidden_size": 16'}, {"hidden_size": '8, "hidden_size": 16'},
                  {"rms_norm_eps": '1e-05, "rms_norm_eps": 0.1'}, {"x": '{"y": ' * 50 + "1" + "}" * 50},
                  {"model_max_length": "1000000000000000019884624838656"}, {"x": "-1e999"},
                  {"": "{"}, {"": "[]"}, {"": ""}, {"": "null"}, {"": "{} {}"}, {"": "\ufeff{}"}]:
        yield "llama", {C: patch}


def ropes():
    """Both spellings of rope, empty, without a type, and contradictory."""
    whole = ["{}", "null", '"x"', "[]", "false", "1", '{"rope_type": "default"}', '{"type": "default"}',
             '{"rope_theta": 500.0}', '{"rope_theta": 10000.0}', '{"rope_theta": null}',
             '{"rope_theta": "500"}', '{"rope_theta": 0}', '{"rope_theta": -500.0}',
             '{"rope_theta": true}', '{"factor": 2.0}', '{"rope_type": "linear"}',
             '{"rope_type": "linear", "factor": 1.0}', '{"rope_type": "linear", "factor": 4}',
             '{"rope_type": "linear", "factor": 0.5}', '{"rope_type": "linear", "factor": 0}',
             '{"rope_type": "linear", "factor": -2.0}', '{"rope_type": "linear", "factor": "2"}',
             '{"rope_type": "linear", "factor": null}', '{"rope_type": "linear", "factor": true}',
             '{"rope_type": null, "factor": 2.0}', '{"type": null}', '{"rope_type": 1}',
             '{"rope_type": "linear", "type": "default", "factor": 2.0}',
             '{"rope_type": "default", "type": "linear", "factor": 2.0}',
             '{"type": "linear", "rope_type": "linear", "factor": 2.0}',
             '{"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}',
             '{"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}',
             '{"rope_type": "linear", "factor": 2.0, "beta_fast": 32}',
             '{"rope_type": "default", "factor": 2.0}',
             '{"rope_type": "default", "partial_rotary_factor": 0.5}',
             '{"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}',
             '{"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 1.0}',
             '{"rope_type": "dynamic", "factor": 2.0}', '{"type": "dynamic", "factor": 2.0}',
             '{"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}',
             '{"type": "su", "factor": 2.0}', '{"rope_type": "proportional", "rope_theta": 500.0}',
             '{"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2], '
             '"original_max_position_embeddings": 32}', '{"rope_type": "Linear", "factor": 2.0}',
             '{"full_attention": {"rope_type": "linear", "factor": 2.0}}', '{"": 1}']
    for text in whole:
        yield "llama", {C: {"rope_scaling": text}}
        yield "new", {C: {"rope_parameters": text}}
        yield "new", {C: {"rope_parameters": text, "rope_theta": "500.0"}}
    llama3 = json.loads(LLAMA3)
    for key in llama3:
        for value in [GONE, None, "x", True, 0, -1, 1, 1.0, 2.0, 0.5, 4.0, 16.5, 16, 64, 128]:
            changed = {k: v for k, v in llama3.items() if k != key}
            if value is not GONE or key == "rope_type":
                changed[key] = value
            yield "llama3", {C: {"rope_scaling": json.dumps(changed)}}
    for patch in [{"original_max_position_embeddings": "16"}, {"rope_theta": GONE},
                  {"max_position_embeddings": "32"}, {"max_position_embeddings": "128"},
                  {"rope_parameters": LLAMA3}, {"rope_parameters": LINEAR}, {"rope_parameters": "{}"},
                  {"rope_parameters": '{"rope_theta": 500.0}'},
                  {"original_max_position_embeddings": "32"}]:
        yield "llama3", {C: patch}
        yield "linear", {C: patch}
    for patch in [{"rope_scaling": LINEAR}, {"rope_scaling": "{}"}, {"rope_scaling": "null"},
                  {"rope_theta": "500.0"}, {"rope_theta": "10000.0"}, {"rope_parameters": GONE},
                  {"rope_parameters": GONE, "rope_theta": "null"},
                  {"rope_scaling": '{"rope_type": "default", "rope_theta": 500.0}'}]:
        yield "new", {C: patch}


def beside():
    """The files beside config.json; they do not change the loss."""
    for key, *texts in [("eos_token_id", "[2, 3]", "null", '"2"', "[]", "64", "-1", "2.0", "[[2]]"),
                        ("bos_token_id", "64", "null", '"x"'), ("pad_token_id", "0", "64", "-1", "{}"),
                        ("", "{", "[]", ""), ("temperature", '"x"', "NaN")]:
        for text in texts:
            yield "llama", {G: {key: text}}
    for key, *texts in [("model_max_length", "1000000000000000019884624838656", "null", '"x"', "NaN"),
                        ("eos_token", "null", "1", '"nothing"', '{"content": "</s>"}', "[]"),
                        ("bos_token", "null", '"nothing"', "{}"), ("pad_token", "null", '"</s>"', "1"),
                        ("chat_template", "null", "1", '"{{ messages }}"'), ("", "{", "[]", "1")]:
        for text in texts:
            yield "llama", {T: {key: text}}


def tensors():
    """Tensors removed, renamed, reshaped, of another type, or added. Values: [shape, type, like]."""
    def changed(base, **patch):
        return base, {}, {k.replace("__", "."): v for k, v in patch.items()}
    for base in BASES:
        for name in list(tensors_of(base))[:: 5 if base not in ("bias", "tied") else 3]:
            yield base, {}, {name: None}
    q, embedding = "model.layers.0.self_attn.q_proj", "model.embed_tokens.weight"
    for name, shape in tensors_of("llama").items():
        turned = shape[::-1] if len(shape) == 2 else [1] + shape
        yield "llama", {}, {name: [turned, "F32", name]}
        yield "llama", {}, {name: [shape, "BF16", name]}
    for kind in ["F16", "F64", "I32", "U8"]:
        yield "llama", {}, {embedding: [[64, 16], kind, embedding]}
    yield "llama", {}, {embedding: [[65, 16], "F32", embedding]}
    yield "llama", {}, {embedding: [[63, 16], "F32", embedding]}
    yield "llama", {}, {embedding: [[64, 16, 1], "F32", embedding]}
    yield "llama", {}, {embedding: [[0, 16], "F32", embedding]}
    yield "llama", {}, {q + ".weight": [[8, 16], "F32", q]}
    for name, shape in [(q + ".bias", [16]), ("model.layers.0.mlp.up_proj.bias", [24]),
                        ("model.layers.0.self_attn.rotary_emb.inv_freq", [4]),
                        ("model.rotary_emb.inv_freq", [4]), ("model.layers.2.input_layernorm.weight", [16]),
                        ("model.layers.0.self_attn.q_norm.weight", [8]), ("model.extra.weight", [4]),
                        ("lm_head.bias", [64]), ("score.weight", [1, 16]), ("x", [1]),
                        ("model.layers.0.self_attn.q_proj.lora_A.weight", [2, 16]),
                        ("model.layers.0.self_attn.masked_bias", [1])]:
        yield "llama", {}, {name: [shape, "F32", name]}
    for old, new in [(embedding, "embed_tokens.weight"), (q + ".weight", q + ".weights"),
                     ("model.norm.weight", "model.Norm.weight"),
                     ("lm_head.weight", "output.weight"),
                     ("model.norm.weight", "transformer.norm.weight")]:
        yield "llama", {}, {old: None, new: [tensors_of("llama")[old], "F32", old]}
    bare = {}
    for name, shape in tensors_of("tied").items():
        bare[name] = None
        bare[name.removeprefix("model.")] = [shape, "F32", name]
    yield "tied", {}, bare
    yield "tied", {}, {"lm_head.weight": [[64, 16], "F32", "lm_head.weight"]}
    yield "tied", {}, {"lm_head.weight": [[64, 16], "F32", embedding]}
    yield "tied", {}, {"lm_head.weight": [[64, 16], "F32", embedding], embedding: None}
    yield "tied", {C: {"tie_word_embeddings": GONE}}, {}
    yield "llama", {C: {"tie_word_embeddings": "true"}}, {"lm_head.weight": None}
    yield "bias", {C: {"attention_bias": GONE}}, {}
    yield "bias", {C: {"attention_bias": "false"}}, {}


def merge(a, b):
    files = {name: {**a[1].get(name, {}), **b[1].get(name, {})} for name in {**a[1], **b[1]}}
    return a[0], files, {**(a[2] if len(a) > 2 else {}), **(b[2] if len(b) > 2 else {})}


def cases():
    listed = [*keys_of_config(), *contradictions(), *ropes(), *beside(), *tensors()]
    listed = [case if len(case) == 3 else (*case, {}) for case in listed]
    draw = random.Random(SEED)
    same = {base: [case for case in listed if case[0] == base] for base in BASES}
    for _ in range(N_DRAWN):
        base = draw.choice(["llama", "llama", "new", "llama3", "mistral", "tied"])
        listed.append(merge(draw.choice(same[base]), draw.choice(same[base])))
    seen = set()
    for case in listed:
        text = json.dumps(case)
        if text not in seen:
            seen.add(text)
            yield case


# --- what transformers says -----------------------------------------------------------------------

def text_of(keys, patch):
    """A JSON file with its patch; "" is the whole text."""
    if "" in patch:
        return patch[""]
    merged = {**keys, **patch}
    return "{" + ", ".join(f'"{k}": {v}' for k, v in merged.items() if v is not None) + "}"


def write(folder, base, files, tensor):
    torch_types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
                   "F64": torch.float64, "I32": torch.int32, "U8": torch.uint8}
    for name, keys in {C: BASES[base], **FILES}.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
            out.write(text_of(keys, files.get(name, {})))
    with open(os.path.join(folder, "tokenizer.json"), "w") as out:
        out.write(TOKENIZER)
    weights = {name: torch.from_numpy(values(name, shape)) for name, shape in tensors_of(base).items()}
    for name, new in tensor.items():
        weights.pop(name, None)
        if new is not None:
            shape, kind, like = new
            weights[name] = torch.from_numpy(values(name, shape, like)).to(torch_types[kind])
    save_file(weights, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def tokens():
    return [[int(w) % N_VOCAB for w in words(f"corpus.{i}", n)] for i, n in enumerate(LENGTHS)]


def losses(folder):
    """Mean losses of the two sequences, or why there are none."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                       output_loading_info=True)
    if info["missing_keys"]:
        return "random weights: " + sorted(info["missing_keys"])[0]
    found = []
    with torch.no_grad():
        for sequence in tokens():
            ids = torch.tensor([sequence])
            one, two = (float(model(input_ids=ids, labels=ids, use_cache=cache).loss)
                        for cache in (True, False))
            if one != two:
                return f"with a cache {one}, without {two}"
            if one != one:
                return "the loss is nan"
            found.append(one)
    return found


def judge(base, files, tensor):
    with tempfile.TemporaryDirectory(prefix="corpus_") as folder:
        write(folder, base, files, tensor)
        signal.alarm(TOO_LONG)
        try:
            return losses(folder)
        except Exception as error:
            lines = str(error).replace(folder, "").strip().splitlines() or [""]
            return f"{type(error).__name__}: {lines[0]}"[:100]
        finally:
            signal.alarm(0)


def too_long(number, frame):
    raise TimeoutError("loading takes for ever")


def main():
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, too_long)
    here = os.path.dirname(os.path.abspath(__file__))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "corpus.json")
    made = []
    for base, files, tensor in cases():
        print(base, files, list(tensor), file=sys.stderr)
        made.append({"base": base, **({"files": files} if files else {}),
                     **({"tensors": tensor} if tensor else {}), "transformers": judge(base, files, tensor)})
    with open(path, "w", encoding="utf-8") as out:
        out.write("{" + f'"n_vocab": {N_VOCAB}, "lengths": {LENGTHS},\n"tokenizer": {json.dumps(TOKENIZER)},\n')
        out.write(f'"files": {json.dumps(FILES)},\n"bases": {{\n')
        out.write(",\n".join(f'"{b}": {json.dumps({"config": BASES[b], "tensors": tensors_of(b)})}'
                             for b in BASES))
        out.write("},\n\"cases\": [\n" + ",\n".join(json.dumps(case) for case in made) + "]}\n")
    n = sum(isinstance(case["transformers"], list) for case in made)
    print(f"{len(made)} cases, {n} with a loss")


if __name__ == "__main__":
    main()
