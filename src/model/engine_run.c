#include <string.h>

#include "base/mem.h"
#include "model/engine_state.h"

/* One run: the requests and how far they are. */
typedef struct {
    qp_engine_t *engine;
    qp_request_t *request;
    int64_t n_request, next; /* next to be admitted */
    int64_t n_active;
    int32_t eos;
    qp_philox_key_t key;
} run_t;

static int64_t longest_answer(const qp_engine_t *engine, const qp_request_t *request)
{
    return request->max_new_tokens > 0 ? request->max_new_tokens : engine->config.max_new_tokens;
}

static qp_error_t check_requests(const run_t *run)
{
    const qp_engine_t *engine = run->engine;
    for (int64_t i = 0; i < run->n_request; i++) {
        const qp_request_t *request = &run->request[i];
        int64_t n_new = longest_answer(engine, request);
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

/* Adds the next n tokens of a slot's sequence to the batch. */
static void batch_add(qp_engine_t *engine, qp_slot_t *slot, uint32_t sample, const int32_t *token,
                      int64_t n)
{
    int64_t first = engine->n_token, seq = engine->n_seq;
    qp_engine_grow(engine, slot, slot->n_past + n);
    for (int64_t i = 0; i < n; i++) {
        engine->host_token[first + i] = token[i];
        engine->host_position[first + i] = (int32_t)(slot->n_past + i);
        engine->host_sample[first + i] = sample;
    }
    engine->batch_slot[seq] = slot;
    engine->host_past[seq] = (int32_t)slot->n_past;
    engine->host_cu_seqlens[seq + 1] = (int32_t)(first + n);
    engine->host_row[seq] = (int32_t)(first + n - 1);
    engine->draw_sample[seq] = sample;
    engine->draw_position[seq] = (uint32_t)(slot->n_past + n);
    memcpy(engine->host_table + seq * engine->table_ld, slot->block,
           qp_bytes(slot->n_block, sizeof *slot->block));
    engine->flow.has_past = engine->flow.has_past || slot->n_past > 0;
    slot->n_past += n;
    engine->n_token += n;
    engine->n_seq++;
}

static void batch_clear(qp_engine_t *engine)
{
    engine->n_token = engine->n_seq = 0;
    engine->host_cu_seqlens[0] = 0;
    engine->flow.has_past = false;
}

static qp_slot_t *free_slot(qp_engine_t *engine)
{
    for (int64_t s = 0; s < engine->config.max_active; s++)
        if (engine->slot[s].request < 0)
            return &engine->slot[s];
    return NULL;
}

/* Fills the batch with waiting prompts, as many as have a slot and fit. */
static void admit(run_t *run)
{
    qp_engine_t *engine = run->engine;
    qp_slot_t *slot;
    while (run->next < run->n_request && (slot = free_slot(engine)) != NULL) {
        qp_request_t *request = &run->request[run->next];
        if (engine->n_token > 0 && engine->n_token + request->n_prompt > engine->config.max_prefill)
            break;
        slot->request = run->next++;
        slot->max_new_tokens = longest_answer(engine, request);
        request->token = QP_NEW("answers", int32_t, slot->max_new_tokens);
        request->logprob = QP_NEW("answers", float, slot->max_new_tokens);
        batch_add(engine, slot, request->sample, request->prompt, request->n_prompt);
        run->n_active++;
    }
}

/* The last drawn token of every active sequence. */
static void continue_active(run_t *run)
{
    qp_engine_t *engine = run->engine;
    for (int64_t s = 0; s < engine->config.max_active; s++) {
        qp_slot_t *slot = &engine->slot[s];
        if (slot->request < 0)
            continue;
        const qp_request_t *request = &run->request[slot->request];
        batch_add(engine, slot, request->sample, &request->token[request->n_token - 1], 1);
    }
}

/* --- one batch through the model -------------------------------------------------------------- */

static qp_error_t upload_batch(qp_engine_t *engine)
{
    const qp_ops_t *ops = engine->flow.ops;
    qp_queue_t *q = engine->flow.q;
    int64_t n_token = engine->n_token, n_seq = engine->n_seq;
    const struct {
        qp_dptr_t to;
        const void *from;
        int64_t n;
    } array[] = {
        {engine->token, engine->host_token, n_token},
        {engine->position, engine->host_position, n_token},
        {engine->sample, engine->host_sample, n_token},
        {engine->cu_seqlens, engine->host_cu_seqlens, n_seq + 1},
        {engine->row, engine->host_row, n_seq},
        {engine->map.n_past_device, engine->host_past, n_seq},
        {engine->map.block_table_device, engine->host_table, n_seq * engine->table_ld},
    };
    for (size_t i = 0; i < sizeof array / sizeof *array; i++)
        QP_TRY(ops->upload(q, array[i].to, array[i].from, qp_bytes(array[i].n, sizeof(int32_t))));
    engine->flow.batch = (qp_ragged_t){.n_token = n_token,
                                       .n_seq = n_seq,
                                       .cu_seqlens_host = engine->host_cu_seqlens,
                                       .cu_seqlens = engine->cu_seqlens,
                                       .position = engine->position,
                                       .sample = engine->sample};
    return NULL;
}

/* Logits of the last token of every sequence of the batch. */
static qp_error_t forward(qp_engine_t *engine)
{
    const qp_flow_t *flow = &engine->flow;
    const qp_ops_t *ops = flow->ops;
    const qp_base_t *base = engine->base;
    int64_t n_seq = engine->n_seq, d_model = base->config.d_model;
    QP_TRY(upload_batch(engine));
    qp_mat_t residual = qp_flow_mat(flow, engine->residual, d_model);
    QP_TRY(ops->embed(flow->q, residual, base->embedding, engine->token));
    for (int64_t l = 0; l < base->config.n_layer; l++)
        QP_TRY(qp_layer_forward(flow, l, &engine->state, residual, residual));
    qp_mat_t last = qp_mat_rows(engine->last, 0, n_seq);
    qp_mat_t hidden = qp_mat_rows(engine->hidden, 0, n_seq);
    QP_TRY(ops->gather_rows(flow->q, last, residual, engine->row));
    qp_input_t norm = qp_layer_norm(flow, last, base->norm, engine->rstd);
    norm.copy = hidden;
    QP_TRY(ops->input(flow->q, &norm));
    return ops->lm_logits(flow->q, qp_mat_rows(engine->logits, 0, n_seq), hidden, base->lm_head);
}

static qp_error_t draw(run_t *run)
{
    qp_engine_t *engine = run->engine;
    const qp_ops_t *ops = engine->flow.ops;
    qp_queue_t *q = engine->flow.q;
    const qp_generate_config_t *config = &engine->config;
    qp_sampling_t sampling = {.temperature = config->do_sample ? (float)config->temperature : 0.0f,
                              .top_k = config->do_sample ? config->top_k : 0,
                              .top_p = config->do_sample ? (float)config->top_p : 1.0f};
    size_t bytes = qp_bytes(engine->n_seq, sizeof(int32_t));
    QP_TRY(ops->sample(q, engine->drawn, engine->logprob,
                       qp_mat_rows(engine->logits, 0, engine->n_seq), &sampling, &run->key,
                       engine->draw_sample, engine->draw_position));
    QP_TRY(ops->download(q, engine->host_drawn, engine->drawn, bytes));
    return ops->download(q, engine->host_logprob, engine->logprob, bytes);
}

/* Hands the drawn tokens to their requests; a finished sequence leaves its slot. */
static void accept(run_t *run)
{
    qp_engine_t *engine = run->engine;
    for (int64_t s = 0; s < engine->n_seq; s++) {
        qp_slot_t *slot = engine->batch_slot[s];
        qp_request_t *request = &run->request[slot->request];
        request->token[request->n_token] = engine->host_drawn[s];
        request->logprob[request->n_token] = engine->host_logprob[s];
        request->n_token++;
        request->stopped = run->eos >= 0 && engine->host_drawn[s] == run->eos;
        if (request->stopped || request->n_token == slot->max_new_tokens) {
            qp_engine_release(engine, slot);
            run->n_active--;
        }
    }
}

static void start(run_t *run)
{
    qp_engine_t *engine = run->engine;
    for (int64_t b = 0; b < engine->n_block; b++)
        engine->free_block[b] = (int32_t)(engine->n_block - 1 - b);
    engine->n_free_block = engine->n_block;
    for (int64_t s = 0; s < engine->config.max_active; s++) {
        engine->slot[s].n_block = 0;
        qp_engine_release(engine, &engine->slot[s]);
    }
    for (int64_t i = 0; i < run->n_request; i++) {
        run->request[i].token = NULL;
        run->request[i].logprob = NULL;
        run->request[i].n_token = 0;
        run->request[i].stopped = false;
    }
}

qp_error_t qp_engine_run(qp_engine_t *engine, const qp_role_t *role, qp_request_t *request,
                         int64_t n_request, int32_t eos, const qp_philox_key_t *key)
{
    run_t run = {
        .engine = engine, .request = request, .n_request = n_request, .eos = eos, .key = *key};
    run.key.site = QP_SITE_SAMPLING;
    QP_ASSERT(role->base == engine->base);
    engine->flow.adapter = role->adapter;
    engine->flow.kv = engine->kv;
    engine->flow.map = &engine->map;
    start(&run);
    QP_TRY(check_requests(&run));
    while (run.next < n_request || run.n_active > 0) {
        batch_clear(engine);
        admit(&run);
        if (engine->n_seq == 0)
            continue_active(&run);
        QP_TRY(forward(engine));
        QP_TRY(draw(&run));
        accept(&run);
    }
    return NULL;
}
