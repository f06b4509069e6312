#!/usr/bin/env python3
"""Makes tests/golden/adapters.json: changes to the adapter of make_formats.py, and what PEFT makes of each.

A case is a name, a change of adapter_config.json (keys to set, with the texts of their values; keys
to drop), changes of the tensors
(each for all tensors whose names hold a text), what a refusal must name, and whether Quipu must read
it. PEFT's verdict is "refused", or the number of an entry of "deltas": for each linear, layer by
layer, norm and product with a probe of what the adapter adds to its weight (changes of the base's
weights included), and the same of the score head.

Needs torch, transformers, peft, safetensors.
"""
import json
import math
import os
import pathlib
import random
import shutil
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
here = pathlib.Path(__file__).parent
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.up_proj", "mlp.down_proj"]
N_LAYER, N_IN = 2, {"o_proj": 64, "down_proj": 48}
N_OUT = {"q_proj": 64, "k_proj": 32, "v_proj": 32, "o_proj": 32, "gate_proj": 48, "up_proj": 48, "down_proj": 32}
NAN = float("nan")


def tensor_name(layer, linear, matrix):
    return f"base_model.model.model.layers.{layer}.{linear}.lora_{matrix}.weight"


def added(*linears, r=4, layers=range(N_LAYER)):
    """Tensors of linears that the adapter of make_formats.py does not have."""
    changes = []
    for layer in layers:
        for linear in linears:
            short = linear.split(".")[1]
            changes += [["add", tensor_name(layer, linear, "A"), r, N_IN.get(short, 32)],
                        ["add", tensor_name(layer, linear, "B"), N_OUT[short], r]]
    return changes


SCORE = ["add", "base_model.model.score.weight", 1, 32]
OTHERS = added("self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
OURS = ["q_proj", "k_proj", "o_proj", "down_proj"]
FULL = [f"model.layers.{layer}.{linear}" for layer in range(N_LAYER) for linear in LINEARS
        if linear.split(".")[1] in OURS]

cases = []


def case(name, set=None, drop=(), tensors=(), names=(), read=None):
    cases.append({"name": name, "set": set or {}, "drop": list(drop), "tensors": list(tensors),
                  "names": list(names), "read": read})


def read(name, set=None, **more):
    case(name, set, read=True, **more)


def refused(name, set=None, names=None, **more):
    case(name, set, names=names or list(set), read=False, **more)


def values():
    read("as it is")
    read("defaults written out", {"bias": "none", "use_dora": False, "lora_bias": False, "rank_pattern": {},
                                  "alpha_pattern": {}, "modules_to_save": None, "exclude_modules": None})
    read("keys without effect", {"auto_mapping": {"base_model_class": "LlamaForCausalLM"}, "revision": "main",
                                 "peft_version": "0.99.0", "runtime_config": {"ephemeral_gpu_offload": True},
                                 "megatron_core": "megatron.core", "qalora_group_size": 32,
                                 "inference_mode": False})
    read("no name of a base", {"base_model_name_or_path": None})
    for alpha in (1, 16, 6.5, 0, -4, 1e30, 2**70):
        read(f"alpha {alpha}", {"lora_alpha": alpha})
    read("alpha by default", drop=["lora_alpha"])
    read("r and alpha and rslora by default", drop=["r", "lora_alpha", "use_rslora"],
         tensors=[["drop", ""], *added(*(n for n in LINEARS if n.split(".")[1] in OURS), r=8)])
    read("no rslora", {"use_rslora": False})
    read("rslora null", {"use_rslora": None})
    for init in (True, False, None, "gaussian", "eva", "orthogonal"):
        read(f"init {init}", {"init_lora_weights": init})
    read("dropout", {"lora_dropout": 0.5})
    read("task null", {"task_type": None})
    for key, value in (("lora_alpha", "16"), ("lora_alpha", None), ("lora_alpha", NAN), ("lora_alpha", [8]),
                       ("r", "4"), ("r", None), ("r", 4.0), ("r", 0), ("r", -4), ("r", [4]), ("use_rslora", "true"),
                       ("use_rslora", "false"), ("use_rslora", 1), ("lora_dropout", "0.1"), ("lora_dropout", None),
                       ("lora_dropout", 1.5), ("lora_dropout", True), ("base_model_name_or_path", 5),
                       ("task_type", "TOKEN_CLS"), ("task_type", "QUESTION_ANS"), ("task_type", "FEATURE_EXTRACTION"),
                       ("task_type", "causal_lm"), ("peft_type", "IA3"), ("peft_type", "ADALORA"),
                       ("peft_type", "lora"), ("peft_type", None), ("bias", "all"), ("bias", "lora_only"),
                       ("bias", None), ("bias", True), ("init_lora_weights", "pissa"),
                       ("init_lora_weights", "pissa_niter_4"), ("init_lora_weights", "olora"),
                       ("init_lora_weights", "loftq"), ("init_lora_weights", "corda"),
                       ("init_lora_weights", "lora_ga"), ("init_lora_weights", "mica"), ("init_lora_weights", "Gaussian"),
                       ("init_lora_weights", 1), ("init_lora_weights", [])):
        refused(f"{key} {value!r}", {key: value})
    refused("no peft_type", drop=["peft_type"], names=["peft_type"])


def options():
    for key, value in (("use_dora", True), ("lora_bias", True), ("fan_in_fan_out", True), ("use_qalora", True),
                       ("ensure_weight_tying", True), ("rank_pattern", {"q_proj": 2}), ("rank_pattern", {"x": 4}),
                       ("alpha_pattern", {"down_proj": 1}), ("alpha_pattern", {"^model.layers.1.*": 99}),
                       ("layers_to_transform", [1]), ("layers_to_transform", 0), ("layers_to_transform", [0, 1]),
                       ("layers_pattern", "layers"), ("trainable_token_indices", [1, 2]),
                       ("trainable_token_indices", {"embed_tokens": [3]}), ("target_parameters", ["q_proj.weight"]),
                       ("layer_replication", [[0, 2], [0, 2]]), ("loftq_config", {"loftq_bits": 4}),
                       ("megatron_config", {"hidden_size": 32}), ("eva_config", {"rho": 2.0}), ("eva_config", {}),
                       ("corda_config", {}), ("lora_ga_config", {}), ("monteclora_config", {}), ("velora_config", {}),
                       ("kasa_config", {}), ("arrow_config", {}), ("use_bdlora", {"nblocks": 2}),
                       ("alora_invocation_tokens", [1, 2]), ("use_rosa", True), ("lora_something", {"a": 1}),
                       ("lora_scale", 2.0), ("variant", "other"), ("use_dora", "yes"), ("rank_pattern", "q_proj")):
        refused(f"{key} {value!r}", {key: value})
    read("unknown keys that are unused", {"use_rosa": False, "rosa_config": None, "rosa_list": [], "x_version": "3"})
    refused("layers and pattern", {"layers_to_transform": [1], "layers_pattern": "layers"}, names=["layers_"],
            tensors=[["drop", "layers.0."]])
    refused("magnitudes of DoRA", {"use_dora": True},
            tensors=[["add", tensor_name(0, "self_attn.q_proj", "A").replace("lora_A.weight", "lora_magnitude_vector"), 64]])


def targets():
    one_layer = [["drop", "layers.0."]]
    read("full names", {"target_modules": FULL})
    read("longer ends of names", {"target_modules": ["self_attn." + n for n in OURS[:3]] + ["mlp.down_proj"]})
    read("names of other models too", {"target_modules": OURS + ["query_key_value", "c_attn"]})
    read("a pattern", {"target_modules": r".*\.(q_proj|k_proj|o_proj|down_proj)"})
    read("a pattern with layers", {"target_modules": r"model\.layers\.\d+\.(self_attn\.[qko]|mlp\.down)_proj"})
    read("a pattern with look-ahead", {"target_modules": r"(?!.*(v|gate|up)_proj).*_proj"})
    read("a pattern with classes", {"target_modules": r".*[.][qko]_proj|.*[^]v-z.]_proj(?<!gate_proj)(?<!up_proj)(?<!v_proj)"})
    read("all-linear", {"target_modules": "all-linear"}, tensors=OTHERS)
    read("ALL-LINEAR", {"target_modules": "ALL-LINEAR"}, tensors=OTHERS)
    read("the default of LLaMA", drop=["target_modules"],
         tensors=[["drop", ""], *added("self_attn.q_proj", "self_attn.v_proj")])
    read("null is the default too", {"target_modules": None},
         tensors=[["drop", ""], *added("self_attn.q_proj", "self_attn.v_proj")])
    read("excluded by name", {"target_modules": OURS + ["v_proj"], "exclude_modules": ["v_proj"]})
    read("excluded by pattern", {"target_modules": "all-linear", "exclude_modules": r".*(v|gate|up)_proj"})
    read("nothing excluded", {"exclude_modules": []})
    read("excluded where there is nothing", {"exclude_modules": ["lm_head", "x"]})
    refused("layer 1 by pattern", {"target_modules": r".*layers\.1\..*(q_proj|k_proj|o_proj|down_proj)"},
            tensors=one_layer)
    refused("layer 1 by names", {"target_modules": [n for n in FULL if ".1." in n]}, tensors=one_layer)
    refused("layer 0 excluded", {"exclude_modules": r".*layers\.0\..*"}, tensors=one_layer)
    refused("one linear in one layer", {"target_modules": [n for n in FULL if n != "model.layers.1.self_attn.q_proj"]},
            tensors=[["drop", "layers.1.self_attn.q_proj"]], names=["q_proj", "target_modules"])
    for module in ("embed_tokens", "lm_head", "norm", "mlp", "self_attn", "input_layernorm", "model", "0", "act_fn"):
        refused(f"target {module}", {"target_modules": OURS + [module]}, names=["target_modules", module])
    for pattern in (".*", ".*proj|.*lm_head", "(", "*", "[a", r".*\p{L}", "(?i).*Q_PROJ", "", "q_proj", r".*[[:alpha:]]_proj"):
        refused(f"pattern {pattern}", {"target_modules": pattern})
    for value in ([], {}, 5, True, [1], [["q_proj"]], [None], ["x"], "no-linear"):
        refused(f"targets {value!r}", {"target_modules": value})
    for value in (5, {"a": 1}, [1], "["):
        refused(f"excluded {value!r}", {"exclude_modules": value})
    refused("a target without tensors", {"target_modules": OURS + ["v_proj"]}, names=["v_proj"])
    refused("tensors without a target", {"target_modules": OURS[1:]}, names=["self_attn.q_proj"])
    refused("all excluded", {"exclude_modules": OURS}, names=["target_modules"])


def heads():
    score = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
    read("a classifier", score, tensors=[SCORE])
    read("a classifier of three labels", score, tensors=[["add", "base_model.model.score.weight", 3, 32]])
    read("the task alone", {"task_type": "SEQ_CLS"}, tensors=[SCORE])
    read("score alone", {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}, tensors=[SCORE])
    read("a classifier with all-linear", score | {"target_modules": "all-linear"}, tensors=[SCORE, *OTHERS])
    read("a classifier has no lm_head", score | {"target_modules": OURS + ["lm_head"]}, tensors=[SCORE])
    refused("no head in the file", score, names=["score"])
    refused("a head that is not named", tensors=[SCORE], names=["score.weight"])
    refused("a head of the wrong width", score, tensors=[["add", "base_model.model.score.weight", 1, 31]],
            names=["score.weight"])
    for modules in (["lm_head"], ["embed_tokens", "lm_head"], ["norm"], ["score", "norm"], "score", [1], {"score": 1}):
        refused(f"saved {modules!r}", {"modules_to_save": modules})
    read("nothing saved", {"modules_to_save": []})


def tensors():
    q0, k1 = tensor_name(0, "self_attn.q_proj", "A"), tensor_name(1, "self_attn.k_proj", "B")
    for dtype in ("F16", "BF16"):
        read(f"tensors of {dtype}", tensors=[["cast", "", dtype]])
    read("mixed types", tensors=[["cast", "lora_A", "BF16"]])
    read("a raw state dict", tensors=[["replace", ".weight", ".default.weight"]])
    read("zeros", tensors=[["fill", "lora_B", 0.0]])
    refused("NaN", tensors=[["fill", q0, NAN]], names=[q0, "nan"])
    refused("infinity", tensors=[["fill", k1, math.inf]], names=[k1, "inf"])
    refused("other adapter name", tensors=[["replace", ".weight", ".mine.weight"]], names=["missing"])
    refused("no prefix", tensors=[["replace", "base_model.model.", ""]], names=["missing"])
    refused("half a prefix", tensors=[["replace", "base_model.model.model.", "base_model.model."]], names=["missing"])
    refused("one prefix more", tensors=[["replace", "base_model.", "base_model.model.base_model."]], names=["missing"])
    refused("A missing", tensors=[["drop", q0]], names=[q0])
    refused("B missing", tensors=[["drop", k1]], names=[k1])
    refused("a layer missing", tensors=[["drop", "layers.1."]], names=["layers.1."])
    refused("a linear missing", tensors=[["drop", "o_proj"]], names=["o_proj"])
    refused("all missing", tensors=[["drop", ""]], names=["q_proj"])
    refused("a layer too many", tensors=added("self_attn.q_proj", layers=[2]), names=["layers.2.self_attn.q_proj"])
    refused("a linear too many", tensors=added("mlp.up_proj"), names=["mlp.up_proj"])
    refused("embedding", tensors=[["add", "base_model.model.model.embed_tokens.weight", 320, 32]], names=["embed_tokens"])
    refused("a bias", tensors=[["add", q0.replace("lora_A.weight", "base_layer.bias"), 64]], names=["base_layer.bias"])
    refused("a bias of B", tensors=[["add", q0.replace("lora_A.weight", "lora_B.bias"), 64]], names=["lora_B.bias"])
    refused("both names", tensors=[["add", q0.replace(".weight", ".default.weight"), 4, 32]], names=["q_proj.lora_A.default"])
    refused("r of the config too small", {"r": 2}, names=["q_proj.lora_A", "[2, 32]"])
    refused("r of the config too large", {"r": 8}, names=["q_proj.lora_A", "[8, 32]"])
    refused("r of one tensor", tensors=[["rows", q0, 3]], names=[q0, "[3, 32]"])
    refused("rows of B", tensors=[["rows", k1, 31]], names=[k1, "[31, 4]"])
    refused("a vector", tensors=[["drop", q0], ["add", q0, 128]], names=[q0])
    refused("fp64", tensors=[["cast", q0, "F64"]], names=[q0, "fp64"])
    refused("integers", tensors=[["cast", q0, "I8"]], names=[q0, "int8"])


def sampled(n):
    """Single keys with values of every kind, from a seed: either verdict will do, but no other delta.

    Three keys may be right and not fit the tensors; then the message names a tensor.
    """
    rng = random.Random(15)
    keys = sorted(f for f in peft.LoraConfig.__dataclass_fields__) + ["surprise"]
    pool = [None, True, False, 0, 1, -1, 3, 4, 4.0, 0.25, 1e30, 10**30, NAN, math.inf, "", "4", "true", "none", "all",
            "LORA", "q_proj", ".*", [], ["q_proj"], [0], [[]], {}, {"q_proj": 2}, {"a": {"b": []}}]
    for i in range(n):
        key, value = rng.choice(keys), rng.choice(pool)
        names = [] if key in ("r", "target_modules", "exclude_modules") else [key]
        case(f"sample {i}: {key} {value!r}", {key: value}, names=names)


# --- PEFT's verdict ------------------------------------------------------------------------------

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I8": torch.int8}


def ramp(shape):
    n = math.prod(shape)
    return ((torch.arange(n, dtype=torch.float64) * 37 % 101 - 50) / 500).float().reshape(shape)


def changed(tensors, changes):
    for op, text, *rest in changes:
        if op == "add":
            tensors[text] = ramp(rest)
            continue
        for name in [n for n in tensors if text in n]:
            tensor = tensors.pop(name)
            if op == "replace":
                tensors[name.replace(text, rest[0], 1)] = tensor
            elif op == "cast":
                tensors[name] = tensor.to(DTYPES[rest[0]])
            elif op == "rows":
                tensors[name] = tensor[:rest[0]].clone()
            elif op == "fill":
                tensors[name] = torch.full_like(tensor, rest[0])
            elif op != "drop":
                raise ValueError(op)
    return tensors


def print_of(matrix):
    """Norm, and the product with a probe, over the square root of half the size."""
    x = matrix.double()
    row = torch.arange(x.shape[0], dtype=torch.float64)[:, None]
    column = torch.arange(x.shape[1], dtype=torch.float64)[None, :]
    probe = torch.cos(0.7 * row + 1.3 * column) / math.sqrt(x.numel() / 2)
    return [float(x.norm()), float((x * probe).sum())]


def load(folder, config, n_label):
    kind = transformers.LlamaForCausalLM
    if config.get("task_type") == "SEQ_CLS":
        kind = transformers.LlamaForSequenceClassification
    more = {} if kind is transformers.LlamaForCausalLM else {"num_labels": n_label}
    base = kind.from_pretrained(here / "formats" / "hf", dtype=torch.float32, **more)
    before = {n: p.detach().clone() for n, p in base.named_parameters()}
    return peft.PeftModel.from_pretrained(base, folder), before


def measured(model, before):
    prints = []
    for layer in range(N_LAYER):
        for linear in LINEARS:
            name = f"model.layers.{layer}.{linear}"
            module = model.base_model.model.get_submodule(name)
            delta = torch.zeros_like(before[name + ".weight"])
            if hasattr(module, "lora_A"):
                delta = module.get_delta_weight("default") + (module.base_layer.weight - before[name + ".weight"])
            prints.append(print_of(delta.detach()))
    score = getattr(model.base_model.model, "score", None)
    if score is not None:
        prints.append(print_of(score.weight.detach()))
    return prints


def verdict(case, folder):
    config = json.loads((here / "formats" / "adapter" / "adapter_config.json").read_text())
    config = {k: v for k, v in config.items() if k not in case["drop"]} | case["set"]
    tensors = changed(load_file(here / "formats" / "adapter" / "adapter_model.safetensors"), case["tensors"])
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    score = tensors.get("base_model.model.score.weight")
    try:
        torch.manual_seed(1)
        return measured(*load(folder, config, 1 if score is None else len(score)))
    except Exception as problem:  # whatever it is, PEFT does not load this
        return f"{type(problem).__name__}: {problem}"


def main():
    for make in (values, options, targets, heads, tensors):
        make()
    sampled(160)
    deltas = []
    for one in cases:
        folder = pathlib.Path(tempfile.mkdtemp())
        found = verdict(one, folder)
        shutil.rmtree(folder)
        if isinstance(found, str):
            one["peft"] = "refused"
            if one["read"]:
                raise SystemExit(f"{one['name']}: PEFT refuses it: {found}")
        else:
            if not all(math.isfinite(x) for pair in found for x in pair):
                found = None  # NaN in the tensors
            if found not in deltas:
                deltas.append(found)
            one["peft"] = deltas.index(found)
    for one in cases:  # values as texts: a reader of the cases shall not judge them
        one["set"] = {key: json.dumps(value) for key, value in one["set"].items()}
    lines = ",\n".join(json.dumps(c) for c in cases)
    rows = ",\n".join(json.dumps(d) for d in deltas)
    (here / "adapters.json").write_text(f'{{"cases": [\n{lines}\n],\n"deltas": [\n{rows}\n]}}\n')
    n = sum(c["peft"] == "refused" for c in cases)
    print(f"{len(cases)} cases, {n} refused by PEFT, {len(deltas)} deltas")


main()
