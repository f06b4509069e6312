#include <stdlib.h>

#include "base/mem.h"
#include "base/minmax.h"
#include "model/engine/engine_state.h"

/* Tokens that two prompts start with together. */
static int64_t common_prefix(const qp_request_t *a, const qp_request_t *b)
{
    int64_t n = 0, most = qp_min_i64(a->n_prompt, b->n_prompt);
    while (n < most && a->prompt[n] == b->prompt[n])
        n++;
    return n;
}

static int compare_prompts(const void *left, const void *right)
{
    const qp_request_t *a = *(qp_request_t *const *)left, *b = *(qp_request_t *const *)right;
    int64_t n = common_prefix(a, b);
    if (n < a->n_prompt && n < b->n_prompt)
        return a->prompt[n] < b->prompt[n] ? -1 : 1;
    if (a->n_prompt != b->n_prompt)
        return a->n_prompt < b->n_prompt ? -1 : 1;
    return (a > b) - (a < b);
}

int64_t qp_engine_longest_answer(const qp_engine_t *engine, const qp_request_t *request)
{
    return request->max_new_tokens > 0 ? request->max_new_tokens : engine->config.max_new_tokens;
}

qp_turn_t *qp_engine_turns(qp_request_t *request, int64_t n_request)
{
    qp_request_t **sorted = QP_NEW("engine", qp_request_t *, n_request);
    qp_turn_t *turn = QP_NEW("engine", qp_turn_t, n_request);
    for (int64_t i = 0; i < n_request; i++)
        sorted[i] = &request[i];
    qsort(sorted, (size_t)n_request, sizeof(qp_request_t *), compare_prompts);
    for (int64_t i = 0; i < n_request; i++)
        turn[i] = (qp_turn_t){.request = sorted[i],
                              .n_common = i > 0 ? common_prefix(sorted[i - 1], sorted[i]) : 0};
    qp_free(sorted);
    return turn;
}

/* Prompts that come have the less in common with a slot's the earlier its turn was: the earliest is
 * used again. */
static qp_slot_t *free_slot(qp_engine_t *engine)
{
    qp_slot_t *slot = NULL;
    for (int64_t s = 0; s < engine->config.max_active; s++)
        if (!engine->slot[s].active && (slot == NULL || engine->slot[s].turn < slot->turn))
            slot = &engine->slot[s];
    return slot;
}

/* What a prompt has in common with those in the slots. */
typedef struct {
    const qp_slot_t *from; /* the slot that has most of it in the cache */
    int64_t n;             /* tokens that it has there now */
    int64_t n_soon;        /* tokens that any slot has there after the batch being built */
} prefix_t;

/* A slot whose prompt starts with the same n_common tokens. */
static void consider(prefix_t *prefix, const qp_request_t *request, const qp_slot_t *slot,
                     int64_t n_common)
{
    /* The last token's logits are wanted, so it is computed in any case. And that of the other
     * prompt was computed as one that is drawn from: its rows have not the bits of one inside. */
    const int64_t most = qp_min_i64(request->n_prompt, slot->request->n_prompt) - 1;
    const int64_t n = qp_min_i64(n_common, most), n_now = qp_min_i64(n, slot->n_past);
    if (n_now > prefix->n) {
        prefix->from = slot;
        prefix->n = n_now;
    }
    prefix->n_soon = qp_max_i64(prefix->n_soon, n);
}

/*
 * What a prompt has in common with another is the least of what those between them have with their
 * neighbours. So the search goes from neighbour to neighbour, until no more can be found.
 */
static void search(const qp_engine_run_t *run, int64_t turn, int step, prefix_t *prefix)
{
    int64_t n_common = run->turn[turn].request->n_prompt;
    const int64_t end = step < 0 ? -1 : run->end;
    for (int64_t t = turn + step; t * step < end * step && n_common > prefix->n; t += step) {
        n_common = qp_min_i64(n_common, run->turn[step < 0 ? t + 1 : t].n_common);
        if (run->turn[t].slot != NULL)
            consider(prefix, run->turn[turn].request, run->turn[t].slot, n_common);
    }
}

/* If the slot that the request will have holds as much as any, nothing needs copying. */
static bool holds_as_much(const qp_engine_run_t *run, int64_t turn, const qp_slot_t *slot,
                          int64_t n)
{
    prefix_t own = {0};
    int64_t n_common = n;
    if (slot->request == NULL)
        return false;
    for (int64_t t = qp_min_i64(turn, slot->turn) + 1; t <= qp_max_i64(turn, slot->turn); t++)
        n_common = qp_min_i64(n_common, run->turn[t].n_common);
    consider(&own, run->turn[turn].request, slot, n_common);
    return own.n == n;
}

static prefix_t find_prefix(const qp_engine_run_t *run, int64_t turn, const qp_slot_t *slot)
{
    prefix_t prefix = {.from = slot};
    search(run, turn, -1, &prefix);
    search(run, turn, 1, &prefix);
    if (holds_as_much(run, turn, slot, prefix.n))
        prefix.from = slot;
    return prefix;
}

static void begin(qp_engine_run_t *run, int64_t turn, qp_slot_t *slot, const prefix_t *prefix)
{
    qp_engine_t *engine = run->engine;
    qp_request_t *request = run->turn[turn].request;
    int64_t n_new = qp_engine_longest_answer(engine, request);
    if (slot->request != NULL)
        run->turn[slot->turn].slot = NULL;
    run->turn[turn].request = NULL;
    run->turn[turn].slot = slot;
    run->end = qp_max_i64(run->end, turn + 1);
    run->n_active++;
    request->token = QP_NEW("answers", int32_t, n_new);
    request->logprob = QP_NEW("answers", float, n_new);
    request->n_shared = prefix->n;
    qp_engine_share(engine, slot, prefix->from, prefix->n);
    slot->request = request;
    slot->turn = turn;
    slot->unread = NULL;
    slot->active = true;
}

/*
 * A prompt waits for the next batch if this one computes a block or more of its prefix; as many as
 * there are slots are passed over so.
 */
void qp_engine_admit(qp_engine_run_t *run)
{
    qp_engine_t *engine = run->engine;
    int64_t n_wait = 0, n_prefill = 0;
    for (int64_t i = run->next; i < run->n_request && n_wait < engine->config.max_active; i++) {
        qp_slot_t *slot = free_slot(engine);
        if (slot == NULL)
            break;
        if (run->turn[i].request == NULL)
            continue;
        prefix_t prefix = find_prefix(run, i, slot);
        if (prefix.n_soon >= prefix.n + QP_KV_BLOCK_LEN) {
            n_wait++;
            continue;
        }
        int64_t n_new = run->turn[i].request->n_prompt - prefix.n;
        if (n_prefill > 0 && n_prefill + n_new > engine->config.max_prefill)
            break;
        n_prefill += n_new;
        begin(run, i, slot, &prefix);
    }
    while (run->next < run->n_request && run->turn[run->next].request == NULL)
        run->next++;
}
