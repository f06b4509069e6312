#include "optim/optim.h"

#define FIELD(type, member) QP_DECK_FIELD(type, qp_optim_config_t, member)

static const qp_deck_key_t keys[] = {
    {"optim.lr", FIELD(QP_DECK_FLOAT, lr), "1.0e-4", 0.0, 10.0, NULL, "",
     "Learning rate at the end of the warm-up.", 0},
    {"optim.schedule", FIELD(QP_DECK_CHOICE, schedule), "\"cosine\"", 0, 0,
     "constant|linear|cosine", "",
     "How the learning rate goes down from the warm-up to the last step.", 0},
    {"optim.warmup_steps", FIELD(QP_DECK_INT, warmup_steps), "0", 0, 1e12, NULL, "steps",
     "Steps over which the learning rate rises linearly from 0.", 0},
    {"optim.steps", FIELD(QP_DECK_INT, steps), NULL, 1, 1e12, NULL, "steps",
     "Optimiser steps of the whole run.", QP_DECK_REQUIRED | QP_DECK_RESTART_OK},
    {"optim.beta1", FIELD(QP_DECK_FLOAT, beta1), "0.9", 0.0, 1.0, NULL, "",
     "AdamW: decay of the first moment.", 0},
    {"optim.beta2", FIELD(QP_DECK_FLOAT, beta2), "0.999", 0.0, 1.0, NULL, "",
     "AdamW: decay of the second moment.", 0},
    {"optim.eps", FIELD(QP_DECK_FLOAT, eps), "1.0e-8", 0.0, 1.0, NULL, "",
     "AdamW: term added to the denominator.", 0},
    {"optim.weight_decay", FIELD(QP_DECK_FLOAT, weight_decay), "0.0", 0.0, 1.0, NULL, "",
     "AdamW: decoupled weight decay.", 0},
    {"optim.max_grad_norm", FIELD(QP_DECK_FLOAT, max_grad_norm), "1.0", 0.0, 1e9, NULL, "",
     "The gradient is scaled down to this norm; 0 switches clipping off.", 0},
};

const qp_deck_group_t qp_optim_deck = {"optim", "AdamW, clipping and the learning-rate schedule.",
                                       "sft|reward|dpo|ppo", keys,
                                       (int)(sizeof keys / sizeof keys[0])};
