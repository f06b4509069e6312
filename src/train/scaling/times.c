#include "train/scaling/times.h"

#include <math.h>

#include "base/minmax.h"

static const double GIGA = 1e9, TERA = 1e12, MICRO = 1e-6;

qp_layout_t qp_layout(const qp_machine_t *machine, int64_t n_rank)
{
    return (qp_layout_t){n_rank, qp_min_i64(n_rank, machine->node.ranks)};
}

int64_t qp_layout_nodes(const qp_layout_t *layout)
{
    return (layout->n_rank + layout->n_node_rank - 1) / layout->n_node_rank;
}

/* --- what a rank computes --------------------------------------------------------------------- */

qp_speed_t qp_speed_of_rank(const qp_machine_t *m, bool fp32, int64_t n_node_rank)
{
    const qp_machine_reached_t *r = &m->reached;
    const double share = fmin(1.0, (double)m->node.processors / (double)n_node_rank);
    const double real = (fp32 ? m->processor.fp32 : m->processor.bf16) * TERA * share;
    const double bandwidth =
        GIGA * fmin(m->processor.bandwidth * share, m->node.bandwidth / (double)n_node_rank);
    return (qp_speed_t){.rate = {[QP_WORK_INT8] = m->processor.int8 * TERA * share * r->int8,
                                 [QP_WORK_FLOAT] = real * r->float_,
                                 [QP_WORK_ADAPTER] = real * r->adapter,
                                 [QP_WORK_ATTENTION] = real * r->attention,
                                 [QP_WORK_HEAD] = real * r->head,
                                 [QP_WORK_ROWS] = real},
                        .rows = bandwidth * r->rows,
                        .weights = bandwidth * r->weights,
                        .op = r->op * MICRO};
}

double qp_speed_seconds(const qp_speed_t *speed, const qp_work_t *work)
{
    double seconds = work->n_op * speed->op;
    for (int k = 0; k < QP_N_WORK; k++) {
        const double bandwidth = k == QP_WORK_ROWS ? speed->rows : speed->weights;
        seconds += fmax(work->ops[k] / speed->rate[k], work->bytes[k] / bandwidth);
    }
    return seconds;
}

/* --- what ranks exchange ---------------------------------------------------------------------- */

static double latency(const qp_machine_t *m, const qp_layout_t *layout)
{
    const bool far = layout->n_rank > layout->n_node_rank;
    return (far ? m->network.latency : m->node.latency) * MICRO;
}

/* Seconds of the bytes alone. */
static double transfer(const qp_machine_t *m, const qp_layout_t *layout, double n_byte)
{
    const double n = (double)layout->n_rank, p = (double)layout->n_node_rank;
    const double near = n_byte * (p - 1.0) / n / (m->node.link * GIGA);
    if (layout->n_rank == layout->n_node_rank)
        return near;
    return fmax(near, p * n_byte * (n - p) / n / (m->network.bandwidth * GIGA));
}

/* Seconds of an exchange without bytes. */
static double messages(const qp_machine_t *m, const qp_layout_t *layout)
{
    return latency(m, layout) + (double)(layout->n_rank - 1) * m->network.message * MICRO +
           m->reached.wait * MICRO;
}

double qp_exchange_seconds(const qp_machine_t *m, const qp_layout_t *layout, double n_byte)
{
    return layout->n_rank == 1 ? 0.0 : messages(m, layout) + transfer(m, layout, n_byte);
}

double qp_agree_seconds(const qp_machine_t *m, const qp_layout_t *layout)
{
    return 2.0 * ceil(log2((double)layout->n_rank)) * latency(m, layout);
}

double qp_sum_seconds(const qp_machine_t *m, const qp_layout_t *layout, const qp_speed_t *speed,
                      double n, double chunk)
{
    const double others = (double)layout->n_rank - 1.0;
    if (layout->n_rank == 1 || n == 0.0)
        return 0.0;
    return 2.0 * (ceil(n / chunk) * messages(m, layout) + transfer(m, layout, 4.0 * n)) +
           12.0 * n * others / (double)layout->n_rank / speed->rows;
}

double qp_sums_exposed(const qp_machine_t *m, const qp_layout_t *layout, const qp_speed_t *speed,
                       const qp_sums_t *sums, double backward)
{
    const double one = qp_sum_seconds(m, layout, speed, sums->n_layer, sums->chunk);
    double done = qp_sum_seconds(m, layout, speed, sums->n_head, sums->chunk);
    for (int64_t i = 0; i < sums->n_segment; i++)
        done = fmax(done, backward * (double)(i + 1) / (double)sums->n_segment) + one;
    return fmax(0.0, done - backward);
}

/* --- a job ------------------------------------------------------------------------------------ */

int64_t qp_most_leaves(int64_t n_leaf, int64_t n_rank)
{
    int64_t most = 0;
    for (int rank = 0; rank < (int)n_rank; rank++) {
        int64_t first, end;
        qp_tree_range(n_leaf, (int)n_rank, rank, &first, &end);
        most = qp_max_i64(most, end - first);
    }
    return most;
}

/* Answers of the rank that has most queries, as many together as it may. */
static double generate(const qp_generation_t *g, const qp_speed_t *speed, int64_t n_rank)
{
    double seconds = 0.0;
    for (int64_t left = qp_most_leaves(g->n_query, n_rank); left > 0; left -= g->max_active) {
        const double active = (double)qp_min_i64(left, g->max_active);
        const qp_work_batch_t prompts = {.n_token = active * g->n_prompt,
                                         .n_pair =
                                             active * g->n_prompt * (g->n_prompt + 1.0) / 2.0};
        const qp_work_t prefill = qp_work_forward(&g->model, &prompts);
        const qp_work_t decode = qp_work_decode(&g->model, active, g->n_prompt + g->n_new / 2.0);
        seconds += qp_speed_seconds(speed, &prefill) + g->n_new * qp_speed_seconds(speed, &decode);
    }
    return seconds;
}

/* What ranks wait for each other in a step, beside the sums of gradients. */
static double agree(const qp_machine_t *m, const qp_layout_t *layout, const qp_job_t *job)
{
    const double word = qp_agree_seconds(m, layout);
    const double said = 8.0 * (double)(job->n_leaf * job->n_value);
    if (layout->n_rank == 1)
        return 0.0;
    return 3.0 * word + /* counts of the loader, its errors, the word of a step */
           (double)job->n_update * 2.0 * qp_exchange_seconds(m, layout, said) +
           qp_exchange_seconds(m, layout, 4.0 * job->n_gathered);
}

/* Of all nodes of the layout together, GB/s. */
static double storage(double of_node, double of_all, int64_t n_node)
{
    const double sum = of_node * (double)n_node;
    return GIGA * (of_all > 0.0 ? fmin(sum, of_all) : sum);
}

static int64_t n_checkpoint(const qp_job_t *job)
{
    const int64_t every = job->checkpoint_every;
    return every > 0 ? (job->n_step + every - 1) / every : 1;
}

qp_times_t qp_job_times(const qp_machine_t *m, const qp_layout_t *layout, const qp_job_t *job)
{
    const qp_speed_t speed = qp_speed_of_rank(m, job->fp32, layout->n_node_rank);
    const int64_t n_node = qp_layout_nodes(layout), n = layout->n_rank;
    const double n_update = (double)job->n_update;
    const double backward = qp_speed_seconds(&speed, &job->leaf_backward);
    qp_times_t t = {.generate = generate(&job->generation, &speed, n),
                    .experience = (double)qp_most_leaves(job->n_experience, n) *
                                  qp_speed_seconds(&speed, &job->experience),
                    .gradient = n_update * (double)qp_most_leaves(job->n_leaf, n) *
                                qp_speed_seconds(&speed, &job->leaf),
                    .update = n_update * qp_speed_seconds(&speed, &job->update),
                    .communication =
                        n_update * qp_sums_exposed(m, layout, &speed, &job->sums, backward) +
                        agree(m, layout, job),
                    .load = job->load_bytes * (double)n_node /
                            storage(m->storage.read, m->storage.read_all, n_node),
                    .checkpoint = job->checkpoint_bytes /
                                  storage(m->storage.write, m->storage.write_all, n_node)};
    t.step = t.generate + t.experience + t.gradient + t.update + t.communication;
    t.run = t.load + (double)job->n_step * t.step + (double)n_checkpoint(job) * t.checkpoint;
    return t;
}
