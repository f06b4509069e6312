/** \file answerer.h  Who answers: what answers.c and rollout.c need of a run. */
#ifndef QP_TRAIN_ANSWERS_ANSWERER_H
#define QP_TRAIN_ANSWERS_ANSWERER_H

#include "comm/comm.h"
#include "model/engine/engine.h"

typedef struct {
    qp_comm_t *comm;
    qp_engine_t *engine;
    qp_role_t role;
    const qp_tokenizer_t *tokenizer;
    qp_eos_t eos;  /**< what ends an answer */
    uint32_t seed; /**< of the random numbers */
} qp_answerer_t;

#endif
