/*
 * What ranks of this node have of its memory and say to each other, for a machine's file
 * (quipu --plan-for): mpirun -n 2 bench_link prints "key = value" lines, best of several.
 *     processor.bandwidth, node.bandwidth   GB/s that one rank reads alone, and all together
 *     node.latency                          us of a message, half of a word's all-reduce
 *     node.link                             GB/s from rank to rank
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/timer.h"
#include "comm/comm.h"

enum { REPEAT = 7, WORDS = 200 };
static const int64_t N = 16 << 20; /* numbers of four bytes: more than caches hold */

/* Bytes/s of reading all of them, best of several. */
static double read_speed(const float *data)
{
    double best = 0.0, sum = 0.0;
    for (int i = 0; i < REPEAT; i++) {
        const double start = qp_time();
        float part[16] = {0.0f};
        for (int64_t j = 0; j < N; j += 16)
            for (int64_t k = 0; k < 16; k++)
                part[k] += data[j + k];
        const double speed = (double)N * 4.0 / (qp_time() - start);
        best = speed > best ? speed : best;
        sum += (double)part[i];
    }
    return sum == 0.5 ? 0.0 : best; /* the sum is used */
}

static double word_seconds(qp_comm_t *comm)
{
    double best = 1e30;
    for (int i = 0; i < REPEAT; i++) {
        qp_comm_barrier(comm);
        const double start = qp_time();
        for (int j = 0; j < WORDS; j++)
            (void)qp_comm_agree_bits(comm, 1);
        const double seconds = (qp_time() - start) / WORDS;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static double move_speed(qp_comm_t *comm, float *data)
{
    double best = 1e30;
    for (int i = 0; i < REPEAT; i++) {
        qp_comm_barrier(comm);
        const double start = qp_time();
        qp_comm_move(comm, data, N, QP_F32, 0, 1);
        qp_comm_barrier(comm);
        const double seconds = qp_time() - start;
        best = seconds < best ? seconds : best;
    }
    return (double)N * 4.0 / best;
}

int main(void)
{
    qp_comm_t *comm = NULL;
    qp_error_t error = qp_comm_create(&comm);
    if (error != NULL || qp_comm_size(comm) < 2)
        return error != NULL ? qp_error_report(&error) : QP_INPUT;
    float *data = QP_NEW("bench", float, N);
    memset(data, 1, (size_t)N * sizeof *data);
    const bool first = qp_comm_rank(comm) == 0;
    const double alone = first ? read_speed(data) : 0.0;
    qp_comm_barrier(comm);
    const double together = read_speed(data) * (double)qp_comm_size(comm);
    const double word = word_seconds(comm), link = move_speed(comm, data);
    if (first)
        printf("processor.bandwidth = %.2f\nnode.bandwidth = %.2f\nnode.latency = %.2f\n"
               "node.link = %.2f\n",
               alone / 1e9, together / 1e9, word / 2.0 * 1e6, link / 1e9);
    qp_free(data);
    qp_comm_destroy(&comm);
    return 0;
}
