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

qp_request_t **qp_engine_turns(qp_request_t *request, int64_t n_request)
{
    qp_request_t **turn = QP_NEW("engine", qp_request_t *, n_request);
    for (int64_t i = 0; i < n_request; i++)
        turn[i] = &request[i];
    qsort(turn, (size_t)n_request, sizeof(qp_request_t *), compare_prompts);
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

/* The slot that the request will have comes first: nothing needs copying there. */
static prefix_t find_prefix(const qp_engine_t *engine, const qp_request_t *request,
                            const qp_slot_t *slot)
{
    prefix_t prefix = {.from = slot};
    for (int64_t s = 0; s < engine->config.max_active; s++) {
        const qp_slot_t *other = &engine->slot[s];
        if (other->request == NULL)
            continue;
        /* The last token's logits are wanted, so it is computed in any case. And that of the other
         * prompt was computed as one that is drawn from: its rows have not the bits of one inside.
         */
        int64_t n = qp_min_i64(common_prefix(request, other->request),
                               qp_min_i64(request->n_prompt, other->request->n_prompt) - 1);
        int64_t n_now = qp_min_i64(n, other->n_past);
        if (n_now > prefix.n || (n_now == prefix.n && other == slot)) {
            prefix.from = other;
            prefix.n = n_now;
        }
        if (n > prefix.n_soon)
            prefix.n_soon = n;
    }
    return prefix;
}

static void begin(qp_engine_run_t *run, int64_t turn, qp_slot_t *slot, const prefix_t *prefix)
{
    qp_engine_t *engine = run->engine;
    qp_request_t *request = run->turn[turn];
    int64_t n_new = qp_engine_longest_answer(engine, request);
    run->turn[turn] = NULL;
    run->n_active++;
    request->token = QP_NEW("answers", int32_t, n_new);
    request->logprob = QP_NEW("answers", float, n_new);
    request->n_shared = prefix->n;
    qp_engine_share(engine, slot, prefix->from, prefix->n);
    slot->request = request;
    slot->turn = turn;
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
        if (run->turn[i] == NULL)
            continue;
        prefix_t prefix = find_prefix(engine, run->turn[i], slot);
        if (prefix.n_soon >= prefix.n + QP_KV_BLOCK_LEN) {
            n_wait++;
            continue;
        }
        int64_t n_new = run->turn[i]->n_prompt - prefix.n;
        if (n_prefill > 0 && n_prefill + n_new > engine->config.max_prefill)
            break;
        n_prefill += n_new;
        begin(run, i, slot, &prefix);
    }
    while (run->next < run->n_request && run->turn[run->next] == NULL)
        run->next++;
}
