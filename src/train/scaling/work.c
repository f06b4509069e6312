#include "train/scaling/work.h"

/* Layers of a pass, group by group. */
typedef struct {
    const qp_work_model_t *model;
    double n_token;
    qp_work_t work;
} count_t;

qp_work_t qp_work_scaled(qp_work_t work, double times)
{
    for (int k = 0; k < QP_N_WORK; k++) {
        work.ops[k] *= times;
        work.bytes[k] *= times;
    }
    work.n_op *= times;
    return work;
}

void qp_work_add(qp_work_t *sum, qp_work_t work)
{
    for (int k = 0; k < QP_N_WORK; k++) {
        sum->ops[k] += work.ops[k];
        sum->bytes[k] += work.bytes[k];
    }
    sum->n_op += work.n_op;
}

double qp_work_ops(const qp_work_t *work)
{
    double ops = 0.0;
    for (int k = 0; k < QP_N_WORK; k++)
        ops += work->ops[k];
    return ops;
}

static void add(count_t *c, qp_work_class_t class, double ops, double bytes)
{
    c->work.ops[class] += ops;
    c->work.bytes[class] += bytes;
    c->work.n_op += 1.0;
}

/* Bytes of an operand of a frozen linear: what is quantised takes one. */
static double operand_bytes(const qp_work_model_t *m, qp_work_class_t class)
{
    return class == QP_WORK_INT8 ? 1.0 : m->real_bytes;
}

static double n_in(const qp_work_model_t *m, qp_group_t group)
{
    return (double)qp_group_n_in(m->config, group);
}

static double n_out(const qp_work_model_t *m, qp_group_t group)
{
    return (double)qp_group_n_out(m->config, group);
}

static bool has_target(const qp_work_model_t *m, qp_group_t group)
{
    const qp_group_linears_t l = qp_group_linears(group);
    for (int i = 0; m->lora != NULL && i < l.n; i++)
        if (m->lora->target[(int)l.first + i])
            return true;
    return false;
}

/* A product with a frozen weight; \a from and \a to: bytes of its rows. */
static void add_linear(count_t *c, qp_work_class_t class, qp_group_t group, double from, double to)
{
    const qp_work_model_t *m = c->model;
    const double product = n_in(m, group) * n_out(m, group);
    add(c, class, 2.0 * c->n_token * product, product * m->weight_bytes + c->n_token * (from + to));
}

/* Targets of a group: so many products with n_in and with n_out features each. */
static void add_adapter(count_t *c, qp_group_t group, double with_in, double with_out)
{
    const qp_work_model_t *m = c->model;
    const qp_group_linears_t l = qp_group_linears(group);
    if (!has_target(m, group))
        return;
    add(c, QP_WORK_ROWS, 0.0, c->n_token * m->real_bytes * n_in(m, group)); /* what they read */
    for (int i = 0; i < l.n; i++) {
        const qp_linear_t linear = (qp_linear_t)((int)l.first + i);
        if (!m->lora->target[linear])
            continue;
        const double in = (double)qp_linear_n_in(m->config, linear) * with_in;
        const double out = (double)qp_linear_n_out(m->config, linear) * with_out;
        add(c, QP_WORK_ADAPTER, 2.0 * c->n_token * (double)m->lora->r * (in + out),
            c->n_token * m->real_bytes * (in + out));
        c->work.n_op += with_in + with_out - 1.0;
    }
}

/* One layer of forward; without its last group: what recomputation does. */
static void forward_layer(count_t *c, double n_pair, bool complete)
{
    const qp_work_model_t *m = c->model;
    const double d = (double)m->config->d_model, f = (double)m->config->d_ff, t = c->n_token;
    const double q = n_in(m, QP_GROUP_O), qkv = n_out(m, QP_GROUP_QKV);
    const double real = m->real_bytes, operand = operand_bytes(m, m->forward);
    add(c, QP_WORK_ROWS, 0.0, t * d * (4.0 + operand)); /* norm */
    add_linear(c, m->forward, QP_GROUP_QKV, operand * d, real * qkv);
    add_adapter(c, QP_GROUP_QKV, 1.0, 1.0);
    add(c, QP_WORK_ROWS, 0.0, t * real * (q + qkv)); /* rotary positions of q and k */
    add(c, QP_WORK_ATTENTION, 4.0 * q * n_pair, t * real * (qkv + q));
    add(c, QP_WORK_ROWS, 0.0, t * (q * (real + operand) + 8.0 * d)); /* input of o, residual */
    add_linear(c, m->forward, QP_GROUP_O, operand * q, 0.0);
    add_adapter(c, QP_GROUP_O, 1.0, 1.0);
    add(c, QP_WORK_ROWS, 0.0, t * d * (4.0 + operand)); /* norm */
    add_linear(c, m->forward, QP_GROUP_GATE_UP, operand * d, real * 2.0 * f);
    add_adapter(c, QP_GROUP_GATE_UP, 1.0, 1.0);
    if (!complete)
        return;
    add(c, QP_WORK_ROWS, 0.0, t * (f * (2.0 * real + operand) + 8.0 * d)); /* SwiGLU, residual */
    add_linear(c, m->forward, QP_GROUP_DOWN, operand * f, 0.0);
    add_adapter(c, QP_GROUP_DOWN, 1.0, 1.0);
}

/* The gradients of a group; \a last: not that of its input. rows: bytes of its elementwise work for
 * each token. */
static void backward_group(count_t *c, qp_group_t group, double rows, bool last)
{
    const qp_work_model_t *m = c->model;
    add(c, QP_WORK_ROWS, 0.0, c->n_token * rows);
    if (!last)
        add_linear(c, m->backward, group, operand_bytes(m, m->backward) * n_out(m, group),
                   m->real_bytes * n_in(m, group));
    add_adapter(c, group, last ? 2.0 : 3.0, 2.0);
}

/* One layer of backward down to the group \a last, or all of it (QP_N_GROUP). */
static void backward_layer(count_t *c, double n_pair, qp_group_t last)
{
    const qp_work_model_t *m = c->model;
    const double d = (double)m->config->d_model, f = (double)m->config->d_ff;
    const double q = n_in(m, QP_GROUP_O), qkv = n_out(m, QP_GROUP_QKV);
    const double real = m->real_bytes, operand = operand_bytes(m, m->backward);
    const double norm = d * (real + 12.0); /* of a norm, with the residual it adds to */
    const double rows[QP_N_GROUP] = {
        [QP_GROUP_DOWN] = d * (4.0 + operand),
        [QP_GROUP_GATE_UP] = f * (3.0 * real + 2.0 * operand) + norm,
        [QP_GROUP_O] = d * (4.0 + operand),
        [QP_GROUP_QKV] = qkv * (3.0 * real + operand) + norm,
    };
    for (int group = QP_N_GROUP - 1; group >= 0; group--) {
        if (group == QP_GROUP_QKV)
            add(c, QP_WORK_ATTENTION, 2.0 * m->attention_backward * q * n_pair,
                c->n_token * real * 2.0 * (qkv + q));
        backward_group(c, (qp_group_t)group, rows[group], group == (int)last);
        if (group == (int)last)
            return;
    }
}

/* Where backward ends in layer 0, as in step.c. */
static qp_group_t lowest_group(const qp_work_model_t *m)
{
    for (int group = 0; group < QP_N_GROUP; group++)
        if (has_target(m, (qp_group_t)group))
            return (qp_group_t)group;
    return QP_GROUP_DOWN;
}

qp_work_t qp_work_forward(const qp_work_model_t *model, const qp_work_batch_t *batch)
{
    count_t c = {.model = model, .n_token = batch->n_token};
    forward_layer(&c, batch->n_pair, true);
    return qp_work_scaled(c.work, (double)model->config->n_layer);
}

qp_work_t qp_work_backward(const qp_work_model_t *model, const qp_work_batch_t *batch)
{
    const double above = (double)model->config->n_layer - 1.0;
    count_t layer = {.model = model, .n_token = batch->n_token}, first = layer, again = layer;
    backward_layer(&layer, batch->n_pair, QP_N_GROUP);
    backward_layer(&first, batch->n_pair, lowest_group(model));
    forward_layer(&again, batch->n_pair, false);
    qp_work_t work = qp_work_scaled(layer.work, above);
    qp_work_add(&work, first.work);
    if (model->recompute) /* the last layer's state is still there */
        qp_work_add(&work, qp_work_scaled(again.work, above));
    return work;
}

qp_work_t qp_work_head(const qp_work_model_t *m, double n_picked, bool gradient)
{
    const double product = (double)m->config->n_vocab * (double)m->config->d_model;
    count_t c = {.model = m, .n_token = n_picked};
    if (n_picked > 0.0)
        add(&c, m->head, (gradient ? 4.0 : 2.0) * n_picked * product,
            product * m->head_bytes +
                n_picked * (double)m->config->d_model * m->real_bytes * (gradient ? 2.0 : 1.0));
    return c.work;
}

qp_work_t qp_work_decode(const qp_work_model_t *m, double n_active, double n_past)
{
    const qp_work_batch_t batch = {.n_token = n_active, .n_pair = n_active * n_past};
    const double kv = n_out(m, QP_GROUP_QKV) - n_in(m, QP_GROUP_O); /* k and v of a token */
    qp_work_t work = qp_work_forward(m, &batch);
    work.bytes[QP_WORK_ATTENTION] +=
        n_active * n_past * kv * m->kv_bytes * (double)m->config->n_layer;
    qp_work_add(&work, qp_work_head(m, n_active, false));
    work.bytes[QP_WORK_ROWS] += 12.0 * n_active * (double)m->config->n_vocab; /* logits, drawn */
    work.n_op += 2.0;
    return work;
}

qp_work_t qp_work_leaf(double n_param)
{
    qp_work_t work = {.n_op = 3.0};
    work.bytes[QP_WORK_ROWS] = 24.0 * n_param;
    return work;
}

qp_work_t qp_work_update(double n_param)
{
    qp_work_t work = {.n_op = 2.0};
    work.bytes[QP_WORK_ROWS] = 38.0 * n_param;
    return work;
}
