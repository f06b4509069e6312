#include "compute/cpu/cpu.h"

#define QP_SLOT(name) .name = qp_cpu_##name

const qp_ops_t qp_ops_cpu = {
    .name = "cpu",

    QP_SLOT(scratch_bytes),
    QP_SLOT(alloc),
    QP_SLOT(release),
    QP_SLOT(upload),
    QP_SLOT(download),
    QP_SLOT(copy),
    QP_SLOT(zero),
    QP_SLOT(synchronize),

    QP_SLOT(weight_bytes),
    QP_SLOT(weight_bind),
    QP_SLOT(weight_pack),
    QP_SLOT(linear_forward),
    QP_SLOT(linear_backward),
    QP_SLOT(matmul),

    QP_SLOT(embed),
    QP_SLOT(gather_rows),
    QP_SLOT(combine_rows),
    QP_SLOT(input),
    QP_SLOT(rmsnorm_backward),
    QP_SLOT(rope),
    QP_SLOT(dropout),
    QP_SLOT(axpby),

    QP_SLOT(attention_forward),
    QP_SLOT(attention_backward),
    QP_SLOT(kv_append),
    QP_SLOT(attention_cached),

    QP_SLOT(lm_head),
    QP_SLOT(lm_kl),
    QP_SLOT(lm_logits),
    QP_SLOT(sample),

    QP_SLOT(sum_squares),
    QP_SLOT(adamw),
};
