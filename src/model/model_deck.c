#include "model/engine/engine.h"
#include "model/adapter/adapter.h"

/* base.file may move between restarts: a checkpoint knows the base by its identity. */
#define FIELD(type, member) QP_DECK_FIELD(type, qp_base_config_t, member)
static const qp_deck_key_t base_keys[] = {
    {"base.file", FIELD(QP_DECK_STRING, file), NULL, 0, 0, NULL, "",
     "The base model, a file made by quipu-import.",
     QP_DECK_REQUIRED | QP_DECK_PATH | QP_DECK_RESTART_OK},
    {"base.activation", FIELD(QP_DECK_CHOICE, activation), "\"int8\"", 0, 0, "int8|bf16", "",
     "How an int8 base multiplies: int8 quantises the activations too, bf16 is weight-only.", 0},
    {"base.gradient", FIELD(QP_DECK_CHOICE, gradient), "\"int8\"", 0, 0, "int8|bf16", "",
     "How the gradient passes back through an int8 base (the linears of llm_int8 always use bf16).",
     0},
    {"base.outlier_threshold", FIELD(QP_DECK_FLOAT, outlier_threshold), "6.0", 0, 1e6, NULL, "",
     "llm_int8 base: features with |x| of at least this stay out of the int8 product.", 0},
};
#undef FIELD

const qp_deck_group_t qp_base_deck = {"base", "The frozen base model.", NULL, base_keys,
                                      sizeof base_keys / sizeof *base_keys};

#define FIELD(type, member) QP_DECK_FIELD(type, qp_lora_config_t, member)
static const qp_deck_key_t lora_keys[] = {
    {"lora.r", FIELD(QP_DECK_INT, r), "16", 1, QP_LORA_MAX_R, NULL, "", "Rank of the adapter.", 0},
    {"lora.alpha", FIELD(QP_DECK_FLOAT, alpha), "32.0", QP_LORA_MIN_ALPHA, QP_LORA_MAX_ALPHA, NULL,
     "", "The adapter's output is scaled by alpha / r, or alpha / sqrt(r) with rsLoRA.", 0},
    {"lora.dropout", FIELD(QP_DECK_FLOAT, dropout), "0.05", 0, 0.99, NULL, "",
     "Probability that an input feature of the adapter is dropped in training.", 0},
    {"lora.use_rslora", FIELD(QP_DECK_BOOL, use_rslora), "false", 0, 0, NULL, "",
     "Scale by alpha / sqrt(r) (rank-stabilised LoRA).", 0},
    {"lora.targets", FIELD(QP_DECK_STRINGS, targets), "[ \"q_proj\", \"v_proj\" ]", 0, 0, NULL, "",
     "Linears with an adapter: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or "
     "all-linear.",
     0},
    {"lora.init", FIELD(QP_DECK_STRING, init), NULL, 0, 0, NULL, "",
     "PEFT adapter folder to start from: its r, alpha, use_rslora and targets are taken.",
     QP_DECK_OPTIONAL | QP_DECK_PATH | QP_DECK_FOLDER},
};
#undef FIELD

const qp_deck_group_t qp_lora_deck = {"lora", "The LoRA adapter.", NULL, lora_keys,
                                      sizeof lora_keys / sizeof *lora_keys};

#define FIELD(type, member) QP_DECK_FIELD(type, qp_generate_config_t, member)
static const qp_deck_key_t generate_keys[] = {
    {"generate.max_new_tokens", FIELD(QP_DECK_INT, max_new_tokens), "128", 1, 1 << 20, NULL,
     "tokens", "Longest answer.", QP_DECK_RESTART_OK},
    {"generate.min_new_tokens", FIELD(QP_DECK_INT, min_new_tokens), "0", 0, 1 << 20, NULL, "tokens",
     "Shortest answer: EOS is not drawn before.", QP_DECK_RESTART_OK},
    {"generate.do_sample", FIELD(QP_DECK_BOOL, do_sample), "false", 0, 0, NULL, "",
     "Draw tokens; false: always the most probable one.", QP_DECK_RESTART_OK},
    {"generate.temperature", FIELD(QP_DECK_FLOAT, temperature), "1.0", 1e-4, 1e4, NULL, "",
     "Divides the logits before sampling.", QP_DECK_RESTART_OK},
    {"generate.top_k", FIELD(QP_DECK_INT, top_k), "0", 0, 1 << 20, NULL, "tokens",
     "Sample among this many most probable tokens; 0: all.", QP_DECK_RESTART_OK},
    {"generate.top_p", FIELD(QP_DECK_FLOAT, top_p), "1.0", 1e-6, 1, NULL, "",
     "Sample among the most probable tokens that reach this probability together.",
     QP_DECK_RESTART_OK},
    {"generate.max_active", FIELD(QP_DECK_INT, max_active), "16", 1, 65536, NULL, "sequences",
     "Sequences decoded together.", QP_DECK_RESTART_OK},
    {"generate.max_prefill", FIELD(QP_DECK_INT, max_prefill), "2048", 1, 1 << 24, NULL, "tokens",
     "Prompt tokens computed together.", QP_DECK_RESTART_OK},
    {"generate.kv_cache_dtype", FIELD(QP_DECK_CHOICE, kv_cache_dtype), "\"auto\"", 0, 0,
     "auto|int8", "",
     "Keys and values in the type of device.compute, or in int8 with a scale per "
     "token and head.",
     QP_DECK_RESTART_OK},
    {"generate.num_return_sequences", FIELD(QP_DECK_INT, num_return_sequences), "1", 1, 65536, NULL,
     "", "Answers to each prompt; needs do_sample.", QP_DECK_RESTART_OK},
};
#undef FIELD

const qp_deck_group_t qp_generate_deck = {"generate", "Answers to prompts.", NULL, generate_keys,
                                          sizeof generate_keys / sizeof *generate_keys};
