#include "data/data.h"

#define DATA(type, member) QP_DECK_FIELD(type, qp_data_config_t, member)
#define BATCH(type, member) QP_DECK_FIELD(type, qp_batch_config_t, member)

static const qp_deck_key_t data_keys[] = {
    {"data.train", DATA(QP_DECK_STRINGS, train), NULL, 0, 0, NULL, "",
     "Shards to train on: file names, or patterns like \"data/stack-sft-train*.h5\" where no file "
     "has that name.",
     QP_DECK_OPTIONAL | QP_DECK_NAME},
    {"data.eval", DATA(QP_DECK_STRINGS, eval), NULL, 0, 0, NULL, "",
     "Shards held out for evaluation; without them there is none.",
     QP_DECK_OPTIONAL | QP_DECK_NAME},
    {"data.seq_length", DATA(QP_DECK_INT, seq_length), "1024", 2, 131072, NULL, "tokens",
     "Longest row: samples are packed up to it, longer ones are split, cut or left out (see "
     "packing "
     "and overlong).",
     0},
    {"data.packing", DATA(QP_DECK_CHOICE, packing), "\"isolated\"", 0, 0,
     "isolated|contaminated|none", "",
     "How samples share a row: isolated (best fit, no attention between them), contaminated "
     "(joined "
     "and cut, as TRL) or none (one sample a row, cut at seq_length).",
     0},
    {"data.overlong", DATA(QP_DECK_CHOICE, overlong), "\"auto\"", 0, 0, "auto|cut|drop", "",
     "Samples with a sequence longer than seq_length: cut (packing none cuts them off, the other "
     "packings split them; not for prompts), drop (left out whole) or auto (drop for pairs and "
     "prompts, else cut).",
     0},
    {"data.completion_only", DATA(QP_DECK_BOOL, completion_only), "false", 0, 0, NULL, "",
     "Learn the completions only, not the prompts.", 0},
    {"data.shuffle", DATA(QP_DECK_BOOL, shuffle), "true", 0, 0, NULL, "",
     "A new order of the samples in every epoch.", 0},
    {"data.eval_rows", DATA(QP_DECK_INT, eval_rows), "0", 0, 1e12, NULL, "rows",
     "Rows of the held-out data that an evaluation takes; 0: all.", QP_DECK_RESTART_OK},
};

const qp_deck_group_t qp_data_deck = {"data", "What the model learns from, and how it is packed.",
                                      "sft|reward|dpo|ppo|eval", data_keys,
                                      (int)(sizeof data_keys / sizeof data_keys[0])};

/* global_sequences * seq_length stays within the 32 bits of a sequence's random-number identity. */
static const qp_deck_key_t batch_keys[] = {
    {"batch.global_sequences", BATCH(QP_DECK_INT, global_sequences), "32", 1, 16384, NULL, "rows",
     "Rows of one optimiser step over all ranks: the result does not depend on the rank count.", 0},
    {"batch.micro_sequences", BATCH(QP_DECK_INT, micro_sequences), "4", 1, 16384, NULL, "rows",
     "Rows of one forward and backward pass on one rank: less needs less memory.", 0},
};

const qp_deck_group_t qp_batch_deck = {"batch", "How many rows make a step.",
                                       "sft|reward|dpo|ppo|eval", batch_keys,
                                       (int)(sizeof batch_keys / sizeof batch_keys[0])};
