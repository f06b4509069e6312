#include <string.h>

#include "base/mem.h"
#include "model/engine/engine_state.h"

static qp_error_t check_requests(const qp_engine_run_t *run)
{
    const qp_engine_t *engine = run->engine;
    for (int64_t i = 0; i < run->n_request; i++) {
        const qp_request_t *request = &run->request[i];
        int64_t n_new = qp_engine_longest_answer(engine, request);
        if (request->n_prompt < 1)
            return QP_ERROR(QP_INPUT, "prompt %lld is empty", (long long)i);
        if (request->n_prompt + n_new > engine->max_length)
            return QP_ERROR(
                QP_INPUT,
                "prompt %lld has %lld tokens and may get %lld more, the longest sequence "
                "allowed is %lld",
                (long long)i, (long long)request->n_prompt, (long long)n_new,
                (long long)engine->max_length);
        for (int64_t t = 0; t < request->n_prompt; t++)
            if (request->prompt[t] < 0 || request->prompt[t] >= engine->base->config.n_vocab)
                return QP_ERROR(QP_INPUT, "prompt %lld: token %d, the model has %lld", (long long)i,
                                request->prompt[t], (long long)engine->base->config.n_vocab);
    }
    return NULL;
}

/* --- building a batch ------------------------------------------------------------------------- */

/* With the one that is drawn but not read. */
static int64_t n_answered(const qp_slot_t *slot)
{
    return slot->request->n_token + (slot->unread != NULL);
}

static int64_t n_known(const qp_slot_t *slot)
{
    return slot->request->n_prompt + n_answered(slot);
}

/* Of one that is not read anything: it is put there on the device. */
static int32_t token_at(const qp_request_t *request, int64_t t)
{
    const int64_t n = t - request->n_prompt;
    if (n < 0)
        return request->prompt[t];
    return n < request->n_token ? request->token[n] : 0;
}

/* Tokens [from, end) of the slot as a sequence of the batch. */
static void add_tokens(qp_engine_t *engine, const qp_slot_t *slot, int64_t from, int64_t end)
{
    int64_t seq = engine->n_seq++;
    for (int64_t t = from, i = engine->n_token; t < end; t++, i++) {
        engine->host_token[i] = token_at(slot->request, t);
        engine->host_position[i] = (int32_t)t;
        engine->host_sample[i] = slot->request->sample;
    }
    engine->n_token += end - from;
    engine->host_past[seq] = (int32_t)from;
    engine->host_cu_seqlens[seq + 1] = (int32_t)engine->n_token;
    memcpy(engine->host_table + seq * engine->table_ld, slot->block,
           qp_bytes(slot->n_block, sizeof *slot->block));
}

/* The last token of a slot, which a draw follows from. */
static void add_draw(qp_engine_t *engine, qp_draws_t *draws, qp_slot_t *slot)
{
    const int64_t n = n_known(slot), draw = engine->n_draw++;
    qp_engine_take_blocks(engine, slot, n);
    draws->slot[draw] = slot;
    draws->request[draw] = slot->request;
    engine->draw_sample[draw] = slot->request->sample;
    engine->draw_position[draw] = (uint32_t)n;
    engine->draw_forbid[draw] = n_answered(slot) < engine->config.min_new_tokens;
    if (slot->unread != NULL)
        engine->host_unread[engine->n_unread++] = (int32_t)slot->at;
    add_tokens(engine, slot, n - 1, n);
}

static void end_answer(qp_engine_run_t *run, qp_slot_t *slot)
{
    slot->active = false;
    run->n_active--;
}

/* The draw is the slot's next token; nothing follows from one that ends its answer by length. */
static void expect_draw(qp_engine_run_t *run, const qp_draws_t *draws, int64_t at)
{
    qp_slot_t *slot = draws->slot[at];
    const int64_t n = n_answered(slot) + 1;
    slot->unread = draws;
    slot->at = at;
    if (n >= qp_engine_longest_answer(run->engine, slot->request))
        end_answer(run, slot);
}

/*
 * The last tokens, which the draws follow from, stand together in front, those that are not read
 * yet before all. The last one of a prompt is among them too: so it is computed in one way, whether
 * the rest of the prompt is in the cache or comes along.
 */
static void build_batch(qp_engine_run_t *run, qp_draws_t *draws)
{
    qp_engine_t *engine = run->engine;
    qp_slot_t *end = engine->slot + engine->config.max_active;
    engine->n_token = engine->n_seq = engine->n_draw = engine->n_unread = engine->n_copy = 0;
    engine->host_cu_seqlens[0] = 0;
    for (int is_read = 0; is_read < 2; is_read++)
        for (qp_slot_t *slot = engine->slot; slot < end; slot++)
            if (slot->active && (slot->unread == NULL) == is_read)
                add_draw(engine, draws, slot);
    for (qp_slot_t *slot = engine->slot; slot < end; slot++)
        if (slot->active) {
            int64_t n = n_known(slot);
            if (slot->n_past < n - 1)
                add_tokens(engine, slot, slot->n_past, n - 1);
            slot->n_past = n;
        }
    draws->n = engine->n_draw;
    for (int64_t i = 0; i < draws->n; i++)
        expect_draw(run, draws, i);
    engine->map.n_seq = engine->n_seq;
    engine->map.n_decode = engine->n_draw;
}

/* --- one batch through the model -------------------------------------------------------------- */

enum { ROW_INTS = sizeof(qp_kv_rows_t) / sizeof(int32_t) };

static qp_error_t upload_batch(qp_engine_t *engine)
{
    qp_descriptor_t *d = &engine->descriptor;
    const int64_t n_token = engine->n_token, n_seq = engine->n_seq, n_draw = engine->n_draw;
    qp_descriptor_clear(d);
    engine->token = qp_descriptor_put(d, engine->host_token, n_token);
    engine->flow.batch =
        (qp_ragged_t){.n_token = n_token,
                      .n_seq = n_seq,
                      .cu_seqlens_host = engine->host_cu_seqlens,
                      .cu_seqlens = qp_descriptor_put(d, engine->host_cu_seqlens, n_seq + 1),
                      .position = qp_descriptor_put(d, engine->host_position, n_token),
                      .sample = qp_descriptor_put(d, engine->host_sample, n_token)};
    engine->map.n_past_device = qp_descriptor_put(d, engine->host_past, n_seq);
    engine->map.block_table_device =
        qp_descriptor_put(d, engine->host_table, n_seq * engine->table_ld);
    engine->draw_sample_at = qp_descriptor_put(d, engine->draw_sample, n_draw);
    engine->draw_position_at = qp_descriptor_put(d, engine->draw_position, n_draw);
    engine->draw_forbid_at = qp_descriptor_put(d, engine->draw_forbid, n_draw);
    engine->unread = qp_descriptor_put(d, engine->host_unread, engine->n_unread);
    engine->rows = qp_descriptor_put(d, engine->host_rows, ROW_INTS * engine->n_copy);
    return qp_descriptor_send(d, engine->flow.q);
}

/* Gives slots that go on in a shared block one of their own. */
static qp_error_t copy_rows(const qp_engine_t *engine)
{
    const qp_kv_copy_t copies = {.layer = engine->kv,
                                 .n_layer = engine->base->config.n_layer,
                                 .n_copy = engine->n_copy,
                                 .rows = engine->host_rows,
                                 .rows_device = engine->rows};
    return engine->n_copy > 0 ? engine->flow.ops->kv_copy(engine->flow.q, &copies) : NULL;
}

/* Tokens that were drawn from the batch before, of which the host knows nothing yet. */
static qp_error_t take_unread(const qp_engine_t *engine)
{
    const int64_t n = engine->n_unread;
    if (n == 0)
        return NULL;
    return engine->flow.ops->gather_rows(
        engine->flow.q, qp_mat(engine->token, QP_F32, n, 1),
        qp_mat(engine->result, QP_F32, engine->config.max_active, 1), engine->unread);
}

/* Logits of the last token of every active sequence. */
static qp_error_t forward(qp_engine_t *engine)
{
    const qp_flow_t *flow = &engine->flow;
    const qp_ops_t *ops = flow->ops;
    const qp_base_t *base = engine->base;
    QP_TRY(upload_batch(engine));
    QP_TRY(copy_rows(engine));
    QP_TRY(take_unread(engine));
    qp_mat_t residual = qp_flow_mat(flow, engine->residual, base->config.d_model);
    QP_TRY(ops->embed(flow->q, residual, base->embedding, engine->token));
    for (int64_t l = 0; l < base->config.n_layer; l++)
        QP_TRY(qp_layer_forward(flow, l, &engine->state, residual, residual));
    qp_mat_t last = qp_mat_rows(residual, 0, engine->n_draw);
    qp_mat_t hidden = qp_mat_rows(engine->hidden, 0, engine->n_draw);
    qp_input_t norm = qp_layer_norm(flow, last, base->norm, engine->rstd);
    norm.copy = hidden;
    QP_TRY(ops->input(flow->q, &norm));
    return ops->lm_logits(flow->q, qp_mat_rows(engine->logits, 0, engine->n_draw), hidden,
                          &base->lm_head);
}

static qp_error_t draw(qp_engine_run_t *run, const qp_draws_t *draws)
{
    qp_engine_t *engine = run->engine;
    const qp_ops_t *ops = engine->flow.ops;
    qp_queue_t *q = engine->flow.q;
    const qp_generate_config_t *config = &engine->config;
    qp_sampling_t sampling = {.temperature = config->do_sample ? (float)config->temperature : 0.0f,
                              .top_k = config->do_sample ? config->top_k : 0,
                              .top_p = config->do_sample ? (float)config->top_p : 1.0f,
                              .forbidden = run->eos};
    const size_t bytes = qp_bytes(engine->n_draw, sizeof(int32_t));
    QP_TRY(ops->sample(q, engine->result, qp_dptr_at(engine->result, bytes),
                       qp_mat_rows(engine->logits, 0, engine->n_draw), &sampling, &run->key,
                       engine->draw_sample_at, engine->draw_position_at, engine->draw_forbid_at));
    QP_TRY(ops->download_async(q, draws->result, engine->result, 2 * bytes));
    return ops->event_record(q, draws->read);
}

static qp_error_t accept_draw(qp_engine_run_t *run, const qp_draws_t *draws, int64_t at)
{
    qp_request_t *request = draws->request[at];
    qp_slot_t *slot = draws->slot[at];
    const int32_t drawn = draws->result[at];
    const bool goes_on = slot->request == request; /* else the slot has another one by now */
    if (request->stopped) /* by the draw before, which was read too late to leave this one out */
        return NULL;
    if (drawn < 0)
        return QP_ERROR(QP_INPUT,
                        "answer %u, position %lld: the model gives a logit that is NaN or "
                        "infinite (weights that are broken, or training that has diverged: a "
                        "smaller optim.lr may help)",
                        request->sample, (long long)(request->n_prompt + request->n_token));
    request->token[request->n_token] = drawn;
    memcpy(&request->logprob[request->n_token], &draws->result[draws->n + at], sizeof(float));
    request->n_token++;
    request->stopped = qp_eos_has(run->eos, drawn);
    if (goes_on && slot->unread == draws)
        slot->unread = NULL;
    if (goes_on && slot->active && request->stopped)
        end_answer(run, slot);
    return NULL;
}

/* Hands the drawn tokens to their requests. */
static qp_error_t accept(qp_engine_run_t *run, const qp_draws_t *draws)
{
    QP_TRY(run->engine->flow.ops->event_synchronize(draws->read));
    for (int64_t i = 0; i < draws->n; i++)
        QP_TRY(accept_draw(run, draws, i));
    return NULL;
}

/* Where work is queued, a batch is read when the next one is in the queue. */
static qp_error_t answer_all(qp_engine_run_t *run)
{
    qp_engine_t *engine = run->engine;
    const bool queued = engine->base->device->queued;
    const qp_draws_t *before = NULL;
    do {
        qp_draws_t *draws = NULL;
        qp_engine_admit(run);
        if (run->n_active > 0) {
            draws = &engine->draws[before == &engine->draws[0]];
            build_batch(run, draws);
            QP_TRY(forward(engine));
            QP_TRY(draw(run, draws));
        }
        const qp_draws_t *ready = queued ? before : draws;
        if (ready != NULL)
            QP_TRY(accept(run, ready));
        before = queued ? draws : NULL;
    } while (run->next < run->n_request || run->n_active > 0 || before != NULL);
    return NULL;
}

static qp_error_t discard_storage(const qp_engine_t *engine)
{
    return engine->flow.ops->discard(engine->flow.q, engine->storage, engine->storage_bytes);
}

qp_error_t qp_engine_run(qp_engine_t *engine, const qp_role_t *role, qp_request_t *request,
                         int64_t n_request, const qp_eos_t *eos, const qp_philox_key_t *key)
{
    qp_engine_run_t run = {
        .engine = engine, .request = request, .n_request = n_request, .eos = eos, .key = *key};
    run.key.site = QP_SITE_SAMPLING;
    QP_ASSERT(role->base == engine->base);
    engine->flow.adapter = role->adapter;
    engine->flow.kv = engine->kv;
    engine->flow.map = &engine->map;
    for (int64_t i = 0; i < n_request; i++) {
        request[i].token = NULL;
        request[i].logprob = NULL;
        request[i].n_token = request[i].n_shared = 0;
        request[i].stopped = false;
    }
    QP_TRY(check_requests(&run));
    qp_engine_clear(engine); /* another role's rows are of no use, nor is what a pass left there */
    if (engine->borrowed)
        QP_TRY(discard_storage(engine));
    run.turn = qp_engine_turns(request, n_request);
    qp_error_t error = answer_all(&run);
    qp_free(run.turn);
    if (error != NULL) /* draws may be on their way */
        error = qp_error_first(error, engine->flow.ops->synchronize(engine->flow.q));
    if (error == NULL && engine->borrowed)
        error = discard_storage(engine);
    return error;
}
