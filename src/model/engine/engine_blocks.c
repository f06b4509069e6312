#include "base/mem.h"
#include "model/engine/engine_state.h"

static int64_t blocks_of(int64_t n_token)
{
    return (n_token + QP_KV_BLOCK_LEN - 1) / QP_KV_BLOCK_LEN;
}

/* Slots hold no more blocks than there are, a shared one counted once. */
static int32_t take_block(qp_engine_t *engine)
{
    QP_ASSERT(engine->n_free_block > 0);
    int32_t block = engine->free_block[--engine->n_free_block];
    engine->n_holder[block] = 1;
    return block;
}

static void drop_block(qp_engine_t *engine, int32_t block)
{
    if (--engine->n_holder[block] == 0)
        engine->free_block[engine->n_free_block++] = block;
}

static void shrink(qp_engine_t *engine, qp_slot_t *slot, int64_t n_block)
{
    while (slot->n_block > n_block)
        drop_block(engine, slot->block[--slot->n_block]);
}

void qp_engine_clear(qp_engine_t *engine)
{
    for (int64_t b = 0; b < engine->n_block; b++)
        engine->free_block[b] = (int32_t)(engine->n_block - 1 - b);
    engine->n_free_block = engine->n_block;
    for (int64_t s = 0; s < engine->config.max_active; s++)
        engine->slot[s] = (qp_slot_t){.turn = -1, .block = engine->slot[s].block};
}

void qp_engine_share(qp_engine_t *engine, qp_slot_t *slot, const qp_slot_t *from, int64_t n)
{
    QP_ASSERT(n <= from->n_past && blocks_of(n) <= from->n_block);
    shrink(engine, slot, slot == from ? blocks_of(n) : 0);
    for (; slot->n_block < blocks_of(n); slot->n_block++) {
        slot->block[slot->n_block] = from->block[slot->n_block];
        engine->n_holder[slot->block[slot->n_block]]++;
    }
    slot->n_past = n;
}

void qp_engine_take_blocks(qp_engine_t *engine, qp_slot_t *slot, int64_t n_token)
{
    int64_t n_row = slot->n_past % QP_KV_BLOCK_LEN, last = slot->n_past / QP_KV_BLOCK_LEN;
    if (n_row > 0 && engine->n_holder[slot->block[last]] > 1) {
        const int32_t shared = slot->block[last];
        slot->block[last] = take_block(engine);
        drop_block(engine, shared);
        engine->host_rows[engine->n_copy++] =
            (qp_kv_rows_t){slot->block[last], shared, (int32_t)n_row};
    }
    while (slot->n_block < blocks_of(n_token))
        slot->block[slot->n_block++] = take_block(engine);
}
