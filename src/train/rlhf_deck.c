/* Deck groups of the methods that learn from preferences and rewards. */
#include "train/settings.h"

#define N_KEYS(table) ((int)(sizeof(table) / sizeof((table)[0])))

#define FIELD(type, member) QP_DECK_FIELD(type, qp_reward_config_t, member)
static const qp_deck_key_t reward_keys[] = {
    {"reward.margin", FIELD(QP_DECK_BOOL, margin), "false", 0, 0, NULL, "",
     "Subtract the pair's margin (difference of its scores) from the difference of its rewards.",
     0},
    {"reward.center_rewards_coefficient", FIELD(QP_DECK_FLOAT, center_rewards_coefficient), "0.0",
     0, 1e6, NULL, "",
     "Weight of the squared sum of a pair's rewards in the loss: keeps them near 0.", 0},
    {"reward.score_init_std", FIELD(QP_DECK_FLOAT, score_init_std), "0.02", 1e-9, 10, NULL, "",
     "Standard deviation of the score head's first weights: 0.02 as transformers; TRL's later "
     "scripts take 1 / sqrt(d_model + 1).",
     0},
};
const qp_deck_group_t qp_reward_deck = {"reward", "The loss of a reward model.", "reward",
                                        reward_keys, N_KEYS(reward_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_reward_model_config_t, member)
static const qp_deck_key_t reward_model_keys[] = {
    {"reward_model.adapter", FIELD(QP_DECK_STRING, adapter), NULL, 0, 0, NULL, "",
     "PEFT folder of a reward adapter with its score head; it works on base.file, or on "
     "reward_model.base.",
     QP_DECK_OPTIONAL | QP_DECK_PATH | QP_DECK_FOLDER},
    {"reward_model.base", FIELD(QP_DECK_STRING, base), NULL, 0, 0, NULL, "",
     "Another base file for rewards, with the same tokenizer; without an adapter, one that a "
     "reward adapter was merged into.",
     QP_DECK_OPTIONAL | QP_DECK_PATH},
    {"reward_model.command", FIELD(QP_DECK_STRINGS, command), NULL, 0, 0, NULL, "",
     "A program and its arguments, started once per rank: reads lines {\"prompt\", \"response\"}, "
     "writes lines {\"reward\"}.",
     QP_DECK_OPTIONAL},
    {"reward_model.timeout", FIELD(QP_DECK_FLOAT, timeout), "60.0", 0.001, 1e6, NULL, "s",
     "Time that the command may take for one answer.", QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_reward_model_deck = {"reward_model",
                                              "Where the rewards of answers come from.", "ppo|eval",
                                              reward_model_keys, N_KEYS(reward_model_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_dpo_config_t, member)
static const qp_deck_key_t dpo_keys[] = {
    {"dpo.beta", FIELD(QP_DECK_FLOAT, beta), "0.1", 1e-6, 1e3, NULL, "",
     "How closely the policy is held to the reference.", 0},
    {"dpo.loss_type", FIELD(QP_DECK_CHOICE, loss_type), "\"sigmoid\"", 0, 0, "sigmoid|hinge|ipo",
     "",
     "DPO (Rafailov et al. 2023), SLiC's hinge (Zhao et al. 2023), or IPO (Azar et al. 2023; on "
     "log-probabilities per token).",
     0},
    {"dpo.label_smoothing", FIELD(QP_DECK_FLOAT, label_smoothing), "0.0", 0, 0.4999, NULL, "",
     "Share of pairs taken to be the wrong way round (sigmoid only).", 0},
};
const qp_deck_group_t qp_dpo_deck = {"dpo", "Direct preference optimisation.", "dpo", dpo_keys,
                                     N_KEYS(dpo_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_compare_config_t, member)
static const qp_deck_key_t compare_keys[] = {
    {"compare.against", FIELD(QP_DECK_STRING, against), NULL, 0, 0, NULL, "",
     "PEFT folder of another policy that answers the queries of data.eval too, or \"base\"; its "
     "answers are compared with those of lora.init.",
     QP_DECK_OPTIONAL | QP_DECK_NAME},
};
const qp_deck_group_t qp_compare_deck = {
    "compare", "Two policies under one reward, on the queries of data.eval.", "eval", compare_keys,
    N_KEYS(compare_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_ppo_config_t, member)
static const qp_deck_key_t ppo_keys[] = {
    {"ppo.preset", FIELD(QP_DECK_CHOICE, preset), "\"standard\"", 0, 0, "standard|trl-0.4.2", "",
     "Defaults of the keys below: as they should be, or as StackLLaMA's scripts had them, quirks "
     "included (doc/rlhf.md).",
     0},
    {"ppo.ppo_epochs", FIELD(QP_DECK_INT, ppo_epochs), "4", 1, 1000, NULL, "",
     "Passes over the answers of a step.", 0},
    {"ppo.mini_batch_sequences", FIELD(QP_DECK_INT, mini_batch_sequences), "0", 0, 16384, NULL,
     "rows", "Answers of one optimiser update over all ranks; 0: batch.global_sequences.", 0},
    {"ppo.output_min_length", FIELD(QP_DECK_INT, output_min_length), "1", 1, 1 << 20, NULL,
     "tokens", "Shortest length that the length sampler draws.", 0},
    {"ppo.output_max_length", FIELD(QP_DECK_INT, output_max_length), "0", 0, 1 << 20, NULL,
     "tokens",
     "Longest one, each as probable; 0: no sampler, answers go up to generate.max_new_tokens.", 0},
    {"ppo.stop_at_eos", FIELD(QP_DECK_BOOL, stop_at_eos), "true", 0, 0, NULL, "",
     "An answer ends with EOS; false: only its length ends it.", 0},
    {"ppo.missing_eos_penalty", FIELD(QP_DECK_FLOAT, missing_eos_penalty), "0.0", 0, 1e6, NULL, "",
     "Taken from the score of an answer that does not end with EOS.", 0},
    {"ppo.reward_baseline", FIELD(QP_DECK_FLOAT, reward_baseline), "0.0", -1e6, 1e6, NULL, "",
     "Taken from every score.", 0},
    {"ppo.gamma", FIELD(QP_DECK_FLOAT, gamma), "1.0", 0, 1, NULL, "", "Discount of later rewards.",
     0},
    {"ppo.lam", FIELD(QP_DECK_FLOAT, lam), "0.95", 0, 1, NULL, "",
     "Lambda of generalised advantage estimation.", 0},
    {"ppo.value_head_init", FIELD(QP_DECK_CHOICE, value_head_init), "\"zeros\"", 0, 0,
     "zeros|linear", "",
     "First weights of the value head: 0, so that it is no noise in the advantages before it has "
     "learned; or as torch's nn.Linear, as TRL.",
     0},
    {"ppo.vf_coef", FIELD(QP_DECK_FLOAT, vf_coef), "0.1", 0, 1e3, NULL, "",
     "Weight of the value loss.", 0},
    {"ppo.cliprange", FIELD(QP_DECK_FLOAT, cliprange), "0.2", 0, 1e3, NULL, "",
     "The policy's ratio is clipped to 1 -+ this.", 0},
    {"ppo.cliprange_value", FIELD(QP_DECK_FLOAT, cliprange_value), "0.2", 0, 1e6, NULL, "",
     "Values are clipped to the old ones -+ this.", 0},
    {"ppo.kl_penalty", FIELD(QP_DECK_CHOICE, kl_penalty), "\"kl\"", 0, 0, "kl|abs|mse|k3|full", "",
     "Estimator of the KL per token, d = logprob - ref_logprob: d, |d|, d^2 / 2, "
     "exp(-d) - 1 + d, or the KL itself over the whole vocabulary.",
     0},
    {"ppo.kl_control", FIELD(QP_DECK_CHOICE, kl_control), "\"adaptive\"", 0, 0,
     "adaptive|linear|fixed", "",
     "The KL's coefficient follows ppo.target, goes linearly to ppo.final_kl_coef, or stays.", 0},
    {"ppo.init_kl_coef", FIELD(QP_DECK_FLOAT, init_kl_coef), "0.2", 0, 1e6, NULL, "",
     "First coefficient of the KL in the rewards.", 0},
    {"ppo.final_kl_coef", FIELD(QP_DECK_FLOAT, final_kl_coef), "0.0", 0, 1e6, NULL, "",
     "Coefficient at the last step of linear control.", 0},
    {"ppo.target", FIELD(QP_DECK_FLOAT, target), "6.0", 1e-6, 1e6, NULL, "nats",
     "KL of an answer that adaptive control aims at.", 0},
    {"ppo.horizon", FIELD(QP_DECK_FLOAT, horizon), "10000.0", 1, 1e12, NULL, "answers",
     "How slowly adaptive control acts.", 0},
    {"ppo.early_stopping", FIELD(QP_DECK_BOOL, early_stopping), "false", 0, 0, NULL, "",
     "End a step's updates once the policy has moved by more than 1.5 target_kl.", 0},
    {"ppo.target_kl", FIELD(QP_DECK_FLOAT, target_kl), "1.0", 1e-9, 1e6, NULL, "nats",
     "See early_stopping: mean of old minus new log-probability per token.", 0},
    {"ppo.ratio_threshold", FIELD(QP_DECK_FLOAT, ratio_threshold), "10.0", 0, 1e9, NULL, "",
     "An update whose mean ratio is above this is left out, with a warning; 0: none is.", 0},
    {"ppo.use_score_scaling", FIELD(QP_DECK_BOOL, use_score_scaling), "false", 0, 0, NULL, "",
     "Divide scores by their running standard deviation.", 0},
    {"ppo.use_score_norm", FIELD(QP_DECK_BOOL, use_score_norm), "false", 0, 0, NULL, "",
     "Also take their running mean from them (with use_score_scaling).", 0},
    {"ppo.score_clip", FIELD(QP_DECK_FLOAT, score_clip), "0.0", 0, 1e9, NULL, "",
     "Scores are clipped to -+ this; 0: they are not.", 0},
    {"ppo.whiten_rewards", FIELD(QP_DECK_BOOL, whiten_rewards), "false", 0, 0, NULL, "",
     "Scale the rewards of a step's tokens to variance 1.", 0},
    {"ppo.whiten_advantages", FIELD(QP_DECK_CHOICE, whiten_advantages), "\"batch\"", 0, 0,
     "batch|mini-batch|sequence", "",
     "Advantages get mean 0 and variance 1 over the whole step, each mini-batch, or each answer.",
     0},
    {"ppo.dropout", FIELD(QP_DECK_BOOL, dropout), "false", 0, 0, NULL, "",
     "Dropout of the adapter in the passes of PPO: the first ratio is then not 1.", 0},
    {"ppo.summary_dropout_prob", FIELD(QP_DECK_FLOAT, summary_dropout_prob), "0.0", 0, 0.99, NULL,
     "", "Dropout of what the value head reads, where ppo.dropout is on.", 0},
    {"ppo.dropped_accumulation", FIELD(QP_DECK_INT, dropped_accumulation), "1", 1, 16384, NULL, "",
     "A mini-batch has so many parts, of which only the last learns, by 1 / parts: the gradient "
     "accumulation of TRL 0.4; 1: all learn.",
     0},
};
const qp_deck_group_t qp_ppo_deck = {"ppo", "Proximal policy optimisation against a reward.", "ppo",
                                     ppo_keys, N_KEYS(ppo_keys)};
#undef FIELD
