/* Deck groups of the methods that learn from preferences and rewards. */
#include "train/settings.h"

#define N_KEYS(table) ((int)(sizeof(table) / sizeof((table)[0])))

#define FIELD(field) offsetof(qp_reward_config_t, field)
static const qp_deck_key_t reward_keys[] = {
    {"reward.margin", QP_DECK_BOOL, FIELD(margin), "false", 0, 0, NULL, "",
     "Subtract the pair's margin (difference of its scores) from the difference of its rewards.",
     0},
    {"reward.center_rewards_coefficient", QP_DECK_FLOAT, FIELD(center_rewards_coefficient), "0.0",
     0, 1e6, NULL, "",
     "Weight of the squared sum of a pair's rewards in the loss: keeps them near 0.", 0},
    {"reward.score_init_std", QP_DECK_FLOAT, FIELD(score_init_std), "0.02", 1e-9, 10, NULL, "",
     "Standard deviation of the score head's first weights: 0.02 as transformers; TRL's later "
     "scripts take 1 / sqrt(d_model + 1).",
     0},
};
const qp_deck_group_t qp_reward_deck = {"reward", "The loss of a reward model.", "reward",
                                        reward_keys, N_KEYS(reward_keys)};
#undef FIELD

#define FIELD(field) offsetof(qp_reward_model_config_t, field)
static const qp_deck_key_t reward_model_keys[] = {
    {"reward_model.adapter", QP_DECK_STRING, FIELD(adapter), NULL, 0, 0, NULL, "",
     "PEFT folder of a reward adapter with its score head; it works on base.file, or on "
     "reward_model.base.",
     QP_DECK_OPTIONAL | QP_DECK_PATH | QP_DECK_FOLDER},
    {"reward_model.base", QP_DECK_STRING, FIELD(base), NULL, 0, 0, NULL, "",
     "Another base file for rewards, with the same tokenizer; without an adapter, one that a "
     "reward adapter was merged into.",
     QP_DECK_OPTIONAL | QP_DECK_PATH},
    {"reward_model.command", QP_DECK_STRINGS, FIELD(command), NULL, 0, 0, NULL, "",
     "A program and its arguments, started once per rank: reads lines {\"prompt\", \"response\"}, "
     "writes lines {\"reward\"}.",
     QP_DECK_OPTIONAL},
    {"reward_model.timeout", QP_DECK_FLOAT, FIELD(timeout), "60.0", 0.001, 1e6, NULL, "s",
     "Time that the command may take for one answer.", QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_reward_model_deck = {"reward_model",
                                              "Where the rewards of answers come from.", "ppo|eval",
                                              reward_model_keys, N_KEYS(reward_model_keys)};
#undef FIELD

#define FIELD(field) offsetof(qp_dpo_config_t, field)
static const qp_deck_key_t dpo_keys[] = {
    {"dpo.beta", QP_DECK_FLOAT, FIELD(beta), "0.1", 1e-6, 1e3, NULL, "",
     "How closely the policy is held to the reference.", 0},
    {"dpo.loss_type", QP_DECK_CHOICE, FIELD(loss_type), "\"sigmoid\"", 0, 0, "sigmoid|hinge|ipo",
     "",
     "DPO (Rafailov et al. 2023), SLiC's hinge (Zhao et al. 2023), or IPO (Azar et al. 2023; on "
     "log-probabilities per token).",
     0},
    {"dpo.label_smoothing", QP_DECK_FLOAT, FIELD(label_smoothing), "0.0", 0, 0.4999, NULL, "",
     "Share of pairs taken to be the wrong way round (sigmoid only).", 0},
};
const qp_deck_group_t qp_dpo_deck = {"dpo", "Direct preference optimisation.", "dpo", dpo_keys,
                                     N_KEYS(dpo_keys)};
#undef FIELD

#define FIELD(field) offsetof(qp_compare_config_t, field)
static const qp_deck_key_t compare_keys[] = {
    {"compare.against", QP_DECK_STRING, FIELD(against), NULL, 0, 0, NULL, "",
     "PEFT folder of another policy that answers the queries of data.eval too, or \"base\"; its "
     "answers are compared with those of lora.init.",
     QP_DECK_OPTIONAL | QP_DECK_NAME},
};
const qp_deck_group_t qp_compare_deck = {
    "compare", "Two policies under one reward, on the queries of data.eval.", "eval", compare_keys,
    N_KEYS(compare_keys)};
#undef FIELD

#define FIELD(field) offsetof(qp_ppo_config_t, field)
static const qp_deck_key_t ppo_keys[] = {
    {"ppo.preset", QP_DECK_CHOICE, FIELD(preset), "\"standard\"", 0, 0, "standard|trl-0.4.2", "",
     "Defaults of the keys below: as they should be, or as StackLLaMA's scripts had them, quirks "
     "included (doc/rlhf.md).",
     0},
    {"ppo.ppo_epochs", QP_DECK_INT, FIELD(ppo_epochs), "4", 1, 1000, NULL, "",
     "Passes over the answers of a step.", 0},
    {"ppo.mini_batch_sequences", QP_DECK_INT, FIELD(mini_batch_sequences), "0", 0, 16384, NULL,
     "rows", "Answers of one optimiser update over all ranks; 0: batch.global_sequences.", 0},
    {"ppo.output_min_length", QP_DECK_INT, FIELD(output_min_length), "1", 1, 1 << 20, NULL,
     "tokens", "Shortest length that the length sampler draws.", 0},
    {"ppo.output_max_length", QP_DECK_INT, FIELD(output_max_length), "0", 0, 1 << 20, NULL,
     "tokens",
     "Longest one, each as probable; 0: no sampler, answers go up to generate.max_new_tokens.", 0},
    {"ppo.stop_at_eos", QP_DECK_BOOL, FIELD(stop_at_eos), "true", 0, 0, NULL, "",
     "An answer ends with EOS; false: only its length ends it.", 0},
    {"ppo.missing_eos_penalty", QP_DECK_FLOAT, FIELD(missing_eos_penalty), "0.0", 0, 1e6, NULL, "",
     "Taken from the score of an answer that does not end with EOS.", 0},
    {"ppo.reward_baseline", QP_DECK_FLOAT, FIELD(reward_baseline), "0.0", -1e6, 1e6, NULL, "",
     "Taken from every score.", 0},
    {"ppo.gamma", QP_DECK_FLOAT, FIELD(gamma), "1.0", 0, 1, NULL, "", "Discount of later rewards.",
     0},
    {"ppo.lam", QP_DECK_FLOAT, FIELD(lam), "0.95", 0, 1, NULL, "",
     "Lambda of generalised advantage estimation.", 0},
    {"ppo.value_head_init", QP_DECK_CHOICE, FIELD(value_head_init), "\"zeros\"", 0, 0,
     "zeros|linear", "",
     "First weights of the value head: 0, so that it is no noise in the advantages before it has "
     "learned; or as torch's nn.Linear, as TRL.",
     0},
    {"ppo.vf_coef", QP_DECK_FLOAT, FIELD(vf_coef), "0.1", 0, 1e3, NULL, "",
     "Weight of the value loss.", 0},
    {"ppo.cliprange", QP_DECK_FLOAT, FIELD(cliprange), "0.2", 0, 1e3, NULL, "",
     "The policy's ratio is clipped to 1 -+ this.", 0},
    {"ppo.cliprange_value", QP_DECK_FLOAT, FIELD(cliprange_value), "0.2", 0, 1e6, NULL, "",
     "Values are clipped to the old ones -+ this.", 0},
    {"ppo.kl_penalty", QP_DECK_CHOICE, FIELD(kl_penalty), "\"kl\"", 0, 0, "kl|abs|mse|k3|full", "",
     "Estimator of the KL per token, d = logprob - ref_logprob: d, |d|, d^2 / 2, "
     "exp(-d) - 1 + d, or the KL itself over the whole vocabulary.",
     0},
    {"ppo.kl_control", QP_DECK_CHOICE, FIELD(kl_control), "\"adaptive\"", 0, 0,
     "adaptive|linear|fixed", "",
     "The KL's coefficient follows ppo.target, goes linearly to ppo.final_kl_coef, or stays.", 0},
    {"ppo.init_kl_coef", QP_DECK_FLOAT, FIELD(init_kl_coef), "0.2", 0, 1e6, NULL, "",
     "First coefficient of the KL in the rewards.", 0},
    {"ppo.final_kl_coef", QP_DECK_FLOAT, FIELD(final_kl_coef), "0.0", 0, 1e6, NULL, "",
     "Coefficient at the last step of linear control.", 0},
    {"ppo.target", QP_DECK_FLOAT, FIELD(target), "6.0", 1e-6, 1e6, NULL, "nats",
     "KL of an answer that adaptive control aims at.", 0},
    {"ppo.horizon", QP_DECK_FLOAT, FIELD(horizon), "10000.0", 1, 1e12, NULL, "answers",
     "How slowly adaptive control acts.", 0},
    {"ppo.early_stopping", QP_DECK_BOOL, FIELD(early_stopping), "false", 0, 0, NULL, "",
     "End a step's updates once the policy has moved by more than 1.5 target_kl.", 0},
    {"ppo.target_kl", QP_DECK_FLOAT, FIELD(target_kl), "1.0", 1e-9, 1e6, NULL, "nats",
     "See early_stopping: mean of old minus new log-probability per token.", 0},
    {"ppo.ratio_threshold", QP_DECK_FLOAT, FIELD(ratio_threshold), "10.0", 0, 1e9, NULL, "",
     "An update whose mean ratio is above this is left out, with a warning; 0: none is.", 0},
    {"ppo.use_score_scaling", QP_DECK_BOOL, FIELD(use_score_scaling), "false", 0, 0, NULL, "",
     "Divide scores by their running standard deviation.", 0},
    {"ppo.use_score_norm", QP_DECK_BOOL, FIELD(use_score_norm), "false", 0, 0, NULL, "",
     "Also take their running mean from them (with use_score_scaling).", 0},
    {"ppo.score_clip", QP_DECK_FLOAT, FIELD(score_clip), "0.0", 0, 1e9, NULL, "",
     "Scores are clipped to -+ this; 0: they are not.", 0},
    {"ppo.whiten_rewards", QP_DECK_BOOL, FIELD(whiten_rewards), "false", 0, 0, NULL, "",
     "Scale the rewards of a step's tokens to variance 1.", 0},
    {"ppo.whiten_advantages", QP_DECK_CHOICE, FIELD(whiten_advantages), "\"batch\"", 0, 0,
     "batch|mini-batch|sequence", "",
     "Advantages get mean 0 and variance 1 over the whole step, each mini-batch, or each answer.",
     0},
    {"ppo.dropout", QP_DECK_BOOL, FIELD(dropout), "false", 0, 0, NULL, "",
     "Dropout of the adapter in the passes of PPO: the first ratio is then not 1.", 0},
    {"ppo.summary_dropout_prob", QP_DECK_FLOAT, FIELD(summary_dropout_prob), "0.0", 0, 0.99, NULL,
     "", "Dropout of what the value head reads, where ppo.dropout is on.", 0},
    {"ppo.dropped_accumulation", QP_DECK_INT, FIELD(dropped_accumulation), "1", 1, 16384, NULL, "",
     "A mini-batch has so many parts, of which only the last learns, by 1 / parts: the gradient "
     "accumulation of TRL 0.4; 1: all learn.",
     0},
};
const qp_deck_group_t qp_ppo_deck = {"ppo", "Proximal policy optimisation against a reward.", "ppo",
                                     ppo_keys, N_KEYS(ppo_keys)};
#undef FIELD
