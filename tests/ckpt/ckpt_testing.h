/** \file ckpt_testing.h  A pretended run, and its checkpoints. */
#ifndef QP_TEST_CKPT_TESTING_H
#define QP_TEST_CKPT_TESTING_H

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "ckpt/ckpt.h"
#include "testing.h"

/* The state of a pretended run. The table's slabs go to the ranks in reverse order; the last owns
 * none. */
typedef struct {
    int64_t n, counter, first, n_mine;
    double loss;
    float *weights;  /* [n], replicated */
    uint16_t *table; /* [n] bf16, each rank holds its slab of it; read whole */
} run_t;

static inline qp_error_t get_table(void *owner, void *slab)
{
    const run_t *run = owner;
    memcpy(slab, run->table + run->first, (size_t)run->n_mine * sizeof *run->table);
    return NULL;
}

static inline qp_error_t put_table(void *owner, const void *data)
{
    run_t *run = owner;
    memcpy(run->table, data, (size_t)run->n * sizeof *run->table);
    return NULL;
}

static inline void run_init(qp_comm_t *comm, run_t *run, int64_t n, bool filled)
{
    int size = qp_comm_size(comm), rank = qp_comm_rank(comm), n_owner = size > 1 ? size - 1 : 1;
    *run = (run_t){.n = n};
    run->weights = QP_NEW("test", float, n);
    run->table = QP_NEW("test", uint16_t, n);
    if (rank < n_owner) {
        int place = n_owner - 1 - rank;
        run->first = n * place / n_owner;
        run->n_mine = n * (place + 1) / n_owner - run->first;
    }
    if (!filled)
        return;
    run->counter = 42;
    run->loss = 1.0 / 3.0;
    for (int64_t i = 0; i < n; i++)
        run->weights[i] = (float)i * 0.37f;
    for (int64_t i = run->first; i < run->first + run->n_mine; i++)
        run->table[i] = (uint16_t)(i * 7);
    if (rank > 0)
        run->counter = 0; /* rank 0 writes scalars */
}

static inline void run_fini(run_t *run)
{
    qp_free(run->weights);
    qp_free(run->table);
}

static inline qp_state_t *register_run(qp_comm_t *comm, run_t *run)
{
    qp_state_t *state = qp_state_create();
    qp_state_register_f32(state, comm, "adapter/param", run->weights, run->n);
    qp_state_register_i64(state, "progress/counter", &run->counter);
    qp_state_register_f64(state, "progress/loss", &run->loss);
    const qp_state_entry_t table = {.name = "table",
                                    .dtype = QP_BF16,
                                    .n_global = run->n,
                                    .first = run->first,
                                    .n_mine = run->n_mine,
                                    .get = get_table,
                                    .put = put_table,
                                    .owner = run};
    qp_state_register(state, &table);
    return state;
}

static inline qp_ckpt_info_t info_at(int64_t step)
{
    return (qp_ckpt_info_t){.step = step,
                            .steps = 50,
                            .inputs = "data.train 00000000000000a1 data/x one.h5\n"
                                      "data.train 00000000000000a2 data/two.h5\n"
                                      "data.eval 00000000000000e1 data/eval.h5\n",
                            .by_content = " a.x ",
                            .method = "sft",
                            .base_id = 0xfedcba9876543210u,
                            .deck_hash = 77,
                            .build = "test 1",
                            .at_default = "",
                            .fingerprint = "a.x = 1\nb.gone = 2\nlora.r = 16\n"};
}

static inline qp_error_t write_at(qp_comm_t *comm, const char *folder, int64_t step, int64_t keep,
                                  int64_t n)
{
    run_t run;
    run_init(comm, &run, n, true);
    qp_state_t *state = register_run(comm, &run);
    char path[300];
    snprintf(path, sizeof path, "%s", folder);
    const qp_ckpt_config_t config = {.folder = path, .keep = keep};
    const qp_ckpt_info_t info = info_at(step);
    qp_error_t error = qp_ckpt_write(comm, &config, &info, state);
    qp_state_destroy(&state);
    run_fini(&run);
    return error;
}

/* Reads into an empty run of n elements; *right says whether everything came back. */
static inline qp_error_t read_from(qp_comm_t *comm, const char *path, const qp_ckpt_info_t *info,
                                   int64_t n, int64_t *step, bool *right)
{
    run_t run;
    run_init(comm, &run, n, false);
    qp_state_t *state = register_run(comm, &run);
    qp_ckpt_found_t found;
    qp_error_t error = qp_ckpt_check(comm, path, info, &found);
    if (error == NULL)
        error = qp_ckpt_read(comm, path, state, step);
    *right = run.counter == 42 && run.loss == 1.0 / 3.0;
    for (int64_t i = 0; i < n; i++)
        *right &= run.weights[i] == (float)i * 0.37f && run.table[i] == (uint16_t)(i * 7);
    qp_state_destroy(&state);
    run_fini(&run);
    return error;
}

static inline bool exists(const char *folder, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* A folder of rank 0's, under a name of its own, known to all. */
static inline const char *folder_for(qp_comm_t *comm, const char *name)
{
    static char folder[300];
    memset(folder, 0, sizeof folder);
    if (qp_comm_rank(comm) == 0)
        snprintf(folder, sizeof folder, "%s/%s", qp_test_folder(), name);
    qp_comm_bcast(comm, folder, sizeof folder, QP_U8, 0);
    return folder;
}

/* latest() must find this step (0: nothing). Also keeps the ranks together. */
static inline void check_latest(qp_comm_t *comm, const char *folder, int64_t expected)
{
    char *path = NULL;
    int64_t step = -1;
    if (CHECK_OK(qp_ckpt_latest(comm, folder, &path, &step)))
        CHECK_MSG(step == expected && (path != NULL) == (expected > 0), "latest is %lld, not %lld",
                  (long long)step, (long long)expected);
    qp_free(path);
    qp_comm_barrier(comm);
}

#endif
