#include "model/engine.h"
#include "model/model.h"

/* base.file may move between restarts: a checkpoint knows the base by its identity. */
#define FIELD(member) offsetof(qp_base_config_t, member)
static const qp_deck_key_t base_keys[] = {
    {"base.file", QP_DECK_STRING, FIELD(file), NULL, 0, 0, NULL, "",
     "The base model, a file made by quipu-import.",
     QP_DECK_REQUIRED | QP_DECK_PATH | QP_DECK_RESTART_OK},
    {"base.activation", QP_DECK_CHOICE, FIELD(activation), "\"int8\"", 0, 0, "int8|bf16", "",
     "How an int8 base multiplies: int8 quantises the activations too, bf16 is weight-only.", 0},
    {"base.gradient", QP_DECK_CHOICE, FIELD(gradient), "\"int8\"", 0, 0, "int8|bf16", "",
     "How the gradient passes back through an int8 base (llm_int8 always uses bf16).", 0},
    {"base.outlier_threshold", QP_DECK_FLOAT, FIELD(outlier_threshold), "6.0", 0, 1e6, NULL, "",
     "llm_int8 base: features with |x| of at least this stay out of the int8 product.", 0},
};
#undef FIELD

const qp_deck_group_t qp_base_deck = {"base", "The frozen base model.", NULL, base_keys,
                                      sizeof base_keys / sizeof *base_keys};

#define FIELD(member) offsetof(qp_lora_config_t, member)
static const qp_deck_key_t lora_keys[] = {
    {"lora.r", QP_DECK_INT, FIELD(r), "16", 1, 4096, NULL, "", "Rank of the adapter.", 0},
    {"lora.alpha", QP_DECK_FLOAT, FIELD(alpha), "32.0", 1e-6, 1e6, NULL, "",
     "The adapter's output is scaled by alpha / r, or alpha / sqrt(r) with rsLoRA.", 0},
    {"lora.dropout", QP_DECK_FLOAT, FIELD(dropout), "0.05", 0, 0.99, NULL, "",
     "Probability that an input feature of the adapter is dropped in training.", 0},
    {"lora.use_rslora", QP_DECK_BOOL, FIELD(use_rslora), "false", 0, 0, NULL, "",
     "Scale by alpha / sqrt(r) (rank-stabilised LoRA).", 0},
    {"lora.targets", QP_DECK_STRINGS, FIELD(targets), "[ \"q_proj\", \"v_proj\" ]", 0, 0, NULL, "",
     "Linears with an adapter: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or "
     "all-linear.",
     0},
    {"lora.init", QP_DECK_STRING, FIELD(init), NULL, 0, 0, NULL, "",
     "PEFT adapter folder to start from: its r, alpha, use_rslora and targets are taken.",
     QP_DECK_OPTIONAL | QP_DECK_PATH | QP_DECK_FOLDER},
};
#undef FIELD

const qp_deck_group_t qp_lora_deck = {"lora", "The LoRA adapter.", NULL, lora_keys,
                                      sizeof lora_keys / sizeof *lora_keys};

#define FIELD(member) offsetof(qp_generate_config_t, member)
static const qp_deck_key_t generate_keys[] = {
    {"generate.max_new_tokens", QP_DECK_INT, FIELD(max_new_tokens), "128", 1, 1 << 20, NULL,
     "tokens", "Longest answer.", QP_DECK_RESTART_OK},
    {"generate.min_new_tokens", QP_DECK_INT, FIELD(min_new_tokens), "0", 0, 1 << 20, NULL, "tokens",
     "Shortest answer: EOS is not drawn before.", QP_DECK_RESTART_OK},
    {"generate.do_sample", QP_DECK_BOOL, FIELD(do_sample), "false", 0, 0, NULL, "",
     "Draw tokens; false: always the most probable one.", QP_DECK_RESTART_OK},
    {"generate.temperature", QP_DECK_FLOAT, FIELD(temperature), "1.0", 1e-4, 1e4, NULL, "",
     "Divides the logits before sampling.", QP_DECK_RESTART_OK},
    {"generate.top_k", QP_DECK_INT, FIELD(top_k), "0", 0, 1 << 20, NULL, "tokens",
     "Sample among this many most probable tokens; 0: all.", QP_DECK_RESTART_OK},
    {"generate.top_p", QP_DECK_FLOAT, FIELD(top_p), "1.0", 1e-6, 1, NULL, "",
     "Sample among the most probable tokens that reach this probability together.",
     QP_DECK_RESTART_OK},
    {"generate.max_active", QP_DECK_INT, FIELD(max_active), "16", 1, 65536, NULL, "sequences",
     "Sequences decoded together.", QP_DECK_RESTART_OK},
    {"generate.max_prefill", QP_DECK_INT, FIELD(max_prefill), "2048", 1, 1 << 24, NULL, "tokens",
     "Prompt tokens computed together.", QP_DECK_RESTART_OK},
    {"generate.kv_cache_dtype", QP_DECK_CHOICE, FIELD(kv_cache_dtype), "\"auto\"", 0, 0,
     "auto|int8", "",
     "Keys and values in the type of device.compute, or in int8 with a scale per "
     "token and head.",
     QP_DECK_RESTART_OK},
    {"generate.num_return_sequences", QP_DECK_INT, FIELD(num_return_sequences), "1", 1, 65536, NULL,
     "", "Answers to each prompt; needs do_sample.", QP_DECK_RESTART_OK},
};
#undef FIELD

const qp_deck_group_t qp_generate_deck = {"generate", "Answers to prompts.", NULL, generate_keys,
                                          sizeof generate_keys / sizeof *generate_keys};
