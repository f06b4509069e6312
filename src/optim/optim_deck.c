#include "optim/optim.h"

#define FIELD(field) offsetof(qp_optim_config_t, field)

static const qp_deck_key_t keys[] = {
    {"optim.lr", QP_DECK_FLOAT, FIELD(lr), "1.0e-4", 0.0, 10.0, NULL, "",
     "Learning rate at the end of the warm-up.", 0},
    {"optim.schedule", QP_DECK_CHOICE, FIELD(schedule), "\"cosine\"", 0, 0,
     "constant|linear|cosine", "",
     "How the learning rate goes down from the warm-up to the last step.", 0},
    {"optim.warmup_steps", QP_DECK_INT, FIELD(warmup_steps), "0", 0, 1e12, NULL, "steps",
     "Steps over which the learning rate rises linearly from 0.", 0},
    {"optim.steps", QP_DECK_INT, FIELD(steps), NULL, 1, 1e12, NULL, "steps",
     "Optimiser steps of the whole run.", QP_DECK_REQUIRED | QP_DECK_RESTART_OK},
    {"optim.beta1", QP_DECK_FLOAT, FIELD(beta1), "0.9", 0.0, 1.0, NULL, "",
     "AdamW: decay of the first moment.", 0},
    {"optim.beta2", QP_DECK_FLOAT, FIELD(beta2), "0.999", 0.0, 1.0, NULL, "",
     "AdamW: decay of the second moment.", 0},
    {"optim.eps", QP_DECK_FLOAT, FIELD(eps), "1.0e-8", 0.0, 1.0, NULL, "",
     "AdamW: term added to the denominator.", 0},
    {"optim.weight_decay", QP_DECK_FLOAT, FIELD(weight_decay), "0.0", 0.0, 1.0, NULL, "",
     "AdamW: decoupled weight decay.", 0},
    {"optim.max_grad_norm", QP_DECK_FLOAT, FIELD(max_grad_norm), "1.0", 0.0, 1e9, NULL, "",
     "The gradient is scaled down to this norm; 0 switches clipping off.", 0},
};

const qp_deck_group_t qp_optim_deck = {"optim", "AdamW, clipping and the learning-rate schedule.",
                                       "sft|reward|dpo|ppo", keys,
                                       (int)(sizeof keys / sizeof keys[0])};
