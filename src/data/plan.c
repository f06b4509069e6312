#include "data/plan.h"

#include <limits.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "data/shard.h"

/* Pieces as they are found; the row of each is known when it is added. */
typedef struct {
    qp_plan_t *plan;
    int64_t capacity;
    int64_t *row_of; /* [plan->n_piece] */
} builder_t;

static void add_piece(builder_t *b, int64_t row, int64_t sequence, int64_t start, int64_t n)
{
    qp_plan_t *plan = b->plan;
    if (plan->n_piece == b->capacity) {
        b->capacity = 2 * b->capacity + 1024;
        plan->piece = qp_realloc("plan", plan->piece, qp_bytes(b->capacity, sizeof *plan->piece));
        b->row_of = qp_realloc("plan", b->row_of, qp_bytes(b->capacity, sizeof *b->row_of));
    }
    b->row_of[plan->n_piece] = row;
    plan->piece[plan->n_piece++] = (qp_piece_t){sequence, (int32_t)start, (int32_t)n};
    if (row >= plan->n_row)
        plan->n_row = row + 1;
}

/* Brings the pieces of each row together, in the order of their arrival (a counting sort). */
static void sort_by_row(builder_t *b)
{
    qp_plan_t *plan = b->plan;
    qp_piece_t *sorted = QP_NEW("plan", qp_piece_t, plan->n_piece);
    int64_t *next = QP_NEW("plan", int64_t, plan->n_row + 1);
    plan->first_piece = QP_NEW("plan", int64_t, plan->n_row + 1);
    for (int64_t p = 0; p < plan->n_piece; p++)
        plan->first_piece[b->row_of[p] + 1]++;
    for (int64_t r = 0; r < plan->n_row; r++)
        next[r + 1] = plan->first_piece[r + 1] += plan->first_piece[r];
    for (int64_t p = 0; p < plan->n_piece; p++)
        sorted[next[b->row_of[p]]++] = plan->piece[p];
    qp_free(next);
    qp_free(plan->piece);
    plan->piece = sorted;
}

/* --- best fit --------------------------------------------------------------------------------- */

/* Rows by the room they have left: a stack per capacity, and a bit for each stack that holds any.
 */
typedef struct {
    int64_t n_row, capacity;
    int64_t *top;   /* [seq_length + 1] row on top of the stack of this room, -1: none */
    int64_t *below; /* [n_row] the next row of the same stack */
    uint64_t *any;  /* [seq_length / 64 + 1] */
    int64_t n_word;
} rooms_t;

static void rooms_init(rooms_t *rooms, int64_t seq_length)
{
    *rooms = (rooms_t){.n_word = seq_length / 64 + 1};
    rooms->top = QP_NEW("plan", int64_t, seq_length + 1);
    rooms->any = QP_NEW("plan", uint64_t, rooms->n_word);
    for (int64_t room = 0; room <= seq_length; room++)
        rooms->top[room] = -1;
}

static void rooms_fini(rooms_t *rooms)
{
    qp_free(rooms->top);
    qp_free(rooms->below);
    qp_free(rooms->any);
}

static int64_t new_row(rooms_t *rooms)
{
    if (rooms->n_row == rooms->capacity) {
        rooms->capacity = 2 * rooms->capacity + 1024;
        rooms->below = qp_realloc("plan", rooms->below, qp_bytes(rooms->capacity, sizeof(int64_t)));
    }
    return rooms->n_row++;
}

static void push_row(rooms_t *rooms, int64_t row, int64_t room)
{
    rooms->below[row] = rooms->top[room];
    rooms->top[room] = row;
    rooms->any[room / 64] |= 1ull << (room % 64);
}

/* Takes the row with the least room of at least n tokens, and tells that room; -1: there is none.
 */
static int64_t pop_row(rooms_t *rooms, int64_t n, int64_t *room)
{
    int64_t word = n / 64;
    uint64_t bits = rooms->any[word] & (~0ull << (n % 64));
    while (bits == 0) {
        if (++word == rooms->n_word)
            return -1;
        bits = rooms->any[word];
    }
    *room = word * 64 + __builtin_ctzll(bits);
    int64_t row = rooms->top[*room];
    QP_ASSERT(row >= 0 && rooms->below != NULL);
    rooms->top[*room] = rooms->below[row];
    if (rooms->top[*room] < 0)
        rooms->any[word] &= ~(1ull << (*room % 64));
    return row;
}

static int64_t place_piece(rooms_t *rooms, int64_t n, int64_t seq_length)
{
    int64_t room = seq_length;
    int64_t row = n < seq_length ? pop_row(rooms, n, &room) : -1;
    if (row < 0)
        row = new_row(rooms);
    if (room > n)
        push_row(rooms, row, room - n);
    return row;
}

/* --- samples that are too long ---------------------------------------------------------------- */

/* What is packed, and in which order. */
typedef struct {
    const qp_dataset_t *dataset;
    const qp_data_config_t *config;
    uint32_t seed, epoch;
    bool drop; /* samples that are too long are left out */
} order_t;

static const char *const overlong_name[] = {
    [QP_OVERLONG_AUTO] = "auto", [QP_OVERLONG_CUT] = "cut", [QP_OVERLONG_DROP] = "drop"};

/* Of a pair, the longer sequence counts. */
static int64_t sample_length(const qp_dataset_t *dataset, int64_t sample)
{
    int64_t k = qp_dataset_sequences_per_sample(dataset), longest = 0;
    for (int64_t s = sample * k; s < (sample + 1) * k; s++) {
        int64_t length = qp_dataset_length(dataset, s);
        longest = qp_max_i64(length, longest);
    }
    return longest;
}

static int64_t sample_tokens(const qp_dataset_t *dataset, int64_t sample)
{
    int64_t k = qp_dataset_sequences_per_sample(dataset), n = 0;
    for (int64_t s = sample * k; s < (sample + 1) * k; s++)
        n += qp_dataset_length(dataset, s);
    return n;
}

static bool is_left_out(const order_t *order, int64_t sample)
{
    return order->drop && sample_length(order->dataset, sample) > order->config->seq_length;
}

static qp_error_t choose_drop(order_t *order)
{
    const char *kind = qp_dataset_kind(order->dataset);
    int overlong = order->config->overlong;
    order->drop =
        overlong == QP_OVERLONG_DROP || (overlong == QP_OVERLONG_AUTO && strcmp(kind, "sft") != 0);
    if (!order->drop && strcmp(kind, "prompt") == 0)
        return QP_ERROR(QP_INPUT,
                        "%s: data.overlong = \"cut\" would cut prompts into other questions: set "
                        "it to \"drop\" or \"auto\"",
                        qp_dataset_path(order->dataset, 0));
    return NULL;
}

/* Counts what is left out: samples, and their tokens. */
static qp_error_t count_left_out(const order_t *order, int64_t *n_left_out, int64_t *n_token)
{
    int64_t n_sample = qp_dataset_n_sample(order->dataset), shortest = INT64_MAX;
    *n_left_out = *n_token = 0;
    for (int64_t sample = 0; sample < n_sample; sample++)
        if (is_left_out(order, sample)) {
            int64_t length = sample_length(order->dataset, sample);
            shortest = qp_min_i64(length, shortest);
            *n_token += sample_tokens(order->dataset, sample);
            ++*n_left_out;
        }
    if (*n_left_out == n_sample)
        return QP_ERROR(QP_INPUT,
                        "%s: data.overlong = \"%s\" leaves out all %lld samples: none fits "
                        "data.seq_length = %lld, the shortest has %lld tokens",
                        qp_dataset_path(order->dataset, 0), overlong_name[order->config->overlong],
                        (long long)n_sample, (long long)order->config->seq_length,
                        (long long)shortest);
    return NULL;
}

/* --- the three packings ----------------------------------------------------------------------- */

static int64_t sample_at(const order_t *order, int64_t i)
{
    int64_t n = qp_dataset_n_sample(order->dataset);
    return order->config->shuffle ? qp_permute(order->seed, order->epoch, n, i) : i;
}

static void pack_isolated(builder_t *b, const order_t *order)
{
    int64_t seq_length = order->config->seq_length;
    rooms_t rooms;
    rooms_init(&rooms, seq_length);
    for (int64_t i = 0; i < qp_dataset_n_sample(order->dataset); i++) {
        int64_t sample = sample_at(order, i), length = qp_dataset_length(order->dataset, sample);
        if (is_left_out(order, sample))
            continue;
        for (int64_t start = 0; start < length; start += seq_length) {
            int64_t n = qp_min_i64(length - start, seq_length);
            add_piece(b, place_piece(&rooms, n, seq_length), sample, start, n);
        }
    }
    rooms_fini(&rooms);
}

static void pack_contaminated(builder_t *b, const order_t *order)
{
    int64_t seq_length = order->config->seq_length, n_stream = 0;
    int64_t n_row = (qp_dataset_n_token(order->dataset) - b->plan->n_dropped) / seq_length;
    for (int64_t i = 0; i < qp_dataset_n_sample(order->dataset); i++) {
        int64_t sample = sample_at(order, i), length = qp_dataset_length(order->dataset, sample);
        if (is_left_out(order, sample))
            continue;
        for (int64_t start = 0, n; start < length; start += n, n_stream += n) {
            int64_t row = n_stream / seq_length, room = seq_length - n_stream % seq_length;
            n = qp_min_i64(length - start, room);
            if (row < n_row)
                add_piece(b, row, sample, start, n);
            else
                b->plan->n_dropped += n;
        }
    }
}

static void pack_none(builder_t *b, const order_t *order)
{
    int64_t k = qp_dataset_sequences_per_sample(order->dataset);
    for (int64_t i = 0, row = 0; i < qp_dataset_n_sample(order->dataset); i++) {
        int64_t sample = sample_at(order, i), first = sample * k;
        bool cut = false;
        if (is_left_out(order, sample))
            continue;
        for (int64_t s = first; s < first + k; s++) {
            int64_t length = qp_dataset_length(order->dataset, s);
            int64_t n = qp_min_i64(length, order->config->seq_length);
            add_piece(b, row, s, 0, n);
            b->plan->n_dropped += length - n;
            cut = cut || n < length;
        }
        b->plan->n_cut += cut;
        row++;
    }
}

static void (*const pack[])(builder_t *, const order_t *) = {
    [QP_PACK_ISOLATED] = pack_isolated,
    [QP_PACK_CONTAMINATED] = pack_contaminated,
    [QP_PACK_NONE] = pack_none,
};

int64_t qp_plan_row_tokens(const qp_dataset_t *dataset, const qp_data_config_t *config)
{
    return config->seq_length * qp_dataset_sequences_per_sample(dataset);
}

/* What can be packed: n_token are left in the data set. */
static qp_error_t check_packing(const qp_dataset_t *dataset, const qp_data_config_t *config,
                                int64_t n_token)
{
    if (config->packing != QP_PACK_NONE && qp_dataset_sequences_per_sample(dataset) > 1)
        return QP_ERROR(QP_INPUT, "%s: pairs cannot be packed: set data.packing = \"none\"",
                        qp_dataset_path(dataset, 0));
    if (config->packing == QP_PACK_CONTAMINATED && n_token < config->seq_length)
        return QP_ERROR(QP_INPUT, "%s: found %lld tokens, one row needs data.seq_length = %lld",
                        qp_dataset_path(dataset, 0), (long long)n_token,
                        (long long)config->seq_length);
    return NULL;
}

qp_error_t qp_plan_create(const qp_dataset_t *dataset, const qp_data_config_t *config,
                          const qp_eos_t *eos, uint32_t seed, uint32_t epoch, qp_plan_t **plan)
{
    QP_ASSERT(config->seq_length > 0 && config->seq_length <= INT_MAX);
    order_t order = {.dataset = dataset, .config = config, .seed = seed, .epoch = epoch};
    int64_t n_left_out, n_dropped;
    *plan = NULL;
    QP_TRY(choose_drop(&order));
    QP_TRY(count_left_out(&order, &n_left_out, &n_dropped));
    QP_TRY(check_packing(dataset, config, qp_dataset_n_token(dataset) - n_dropped));
    qp_plan_t *p = *plan = QP_NEW("plan", qp_plan_t, 1);
    p->n_left_out = n_left_out;
    p->n_dropped = n_dropped;
    p->row_tokens = qp_plan_row_tokens(dataset, config);
    p->joined = config->packing == QP_PACK_CONTAMINATED;
    p->completion_only = config->completion_only;
    p->eos = *eos;
    builder_t builder = {.plan = p};
    pack[config->packing](&builder, &order);
    sort_by_row(&builder);
    qp_free(builder.row_of);
    return NULL;
}

void qp_plan_destroy(qp_plan_t **plan)
{
    if (*plan == NULL)
        return;
    qp_free((*plan)->first_piece);
    qp_free((*plan)->piece);
    QP_FREE(*plan);
}

int64_t qp_plan_n_row(const qp_plan_t *plan)
{
    return plan->n_row;
}

int64_t qp_plan_n_left_out(const qp_plan_t *plan)
{
    return plan->n_left_out;
}

int64_t qp_plan_n_cut(const qp_plan_t *plan)
{
    return plan->n_cut;
}

int64_t qp_plan_n_dropped(const qp_plan_t *plan)
{
    return plan->n_dropped;
}

void qp_plan_log(const qp_plan_t *plan, const qp_dataset_t *dataset, const qp_data_config_t *config,
                 const char *what)
{
    const char *overlong = overlong_name[config->overlong];
    long long n_sample = (long long)qp_dataset_n_sample(dataset);
    if (plan->n_left_out > 0)
        qp_log_info("%s: data.overlong = \"%s\" leaves out %lld of %lld samples longer than "
                    "data.seq_length = %lld",
                    what, overlong, (long long)plan->n_left_out, n_sample,
                    (long long)config->seq_length);
    if (plan->n_cut > 0)
        qp_log_info(
            "%s: data.overlong = \"%s\" cuts %lld of %lld samples at data.seq_length = %lld", what,
            overlong, (long long)plan->n_cut, n_sample, (long long)config->seq_length);
    if (plan->n_dropped > 0)
        qp_log_info("%s: an epoch leaves out %lld of %lld tokens", what, (long long)plan->n_dropped,
                    (long long)qp_dataset_n_token(dataset));
}
