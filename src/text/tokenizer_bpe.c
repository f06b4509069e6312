#include "text/tokenizer_bpe.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "text/tokenizer_vocab.h"

enum { SHORT_WORD = 48 }; /* symbols; below it a scan for the best pair beats a heap */

static const uint32_t NO_RANK = UINT32_MAX;

void qp_bpe_fini(qp_bpe_t *bpe)
{
    qp_textmap_fini(&bpe->word);
    qp_pairmap_fini(&bpe->merge);
}

void qp_bpe_scratch_fini(qp_bpe_scratch_t *scratch)
{
    qp_free(scratch->symbol);
    qp_free(scratch->heap);
    *scratch = (qp_bpe_scratch_t){0};
}

static void *reserve(void **pointer, size_t *capacity, size_t bytes)
{
    if (bytes > *capacity) {
        *capacity = 2 * bytes;
        *pointer = qp_realloc("tokenizer", *pointer, *capacity);
    }
    return *pointer;
}

/* --- the symbols a word starts as ------------------------------------------------------------- */

typedef struct {
    int32_t *id;
    int64_t n;
    bool after_unk; /* the last symbol is an unk that a following unknown may fuse with */
} symbols_t;

static void put_symbol(symbols_t *symbols, int32_t id)
{
    symbols->id[symbols->n++] = id;
    symbols->after_unk = false;
}

static void put_unknown(const qp_bpe_t *bpe, symbols_t *symbols)
{
    if (bpe->unk < 0 || (bpe->fuse_unk && symbols->after_unk))
        return;
    put_symbol(symbols, bpe->unk);
    symbols->after_unk = true;
}

/* The character as its bytes' tokens, if all of them exist. */
static bool put_bytes(const qp_bpe_t *bpe, symbols_t *symbols, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        if (bpe->byte_id[(unsigned char)text[i]] < 0)
            return false;
    for (size_t i = 0; i < n_bytes; i++)
        put_symbol(symbols, bpe->byte_id[(unsigned char)text[i]]);
    return true;
}

/* Puts the symbols of the next character, or byte; returns its length. */
static size_t put_next(const qp_bpe_t *bpe, symbols_t *symbols, const char *text)
{
    const size_t n = bpe->byte_level ? 1 : qp_utf8_length(text[0]);
    const int32_t token = bpe->byte_level ? bpe->byte_id[(unsigned char)text[0]]
                                          : qp_textmap_get(&bpe->word, text, n);
    if (token >= 0)
        put_symbol(symbols, token);
    else if (!bpe->byte_fallback || !put_bytes(bpe, symbols, text, n))
        put_unknown(bpe, symbols);
    return n;
}

/* Fills id (room for n_bytes) with the first symbols; returns their number. */
static int64_t split_symbols(const qp_bpe_t *bpe, const char *word, size_t n_bytes, int32_t *id)
{
    symbols_t symbols = {.id = id};
    for (size_t i = 0; i < n_bytes;)
        i += put_next(bpe, &symbols, word + i);
    return symbols.n;
}

int32_t *qp_bpe_unknown_lengths(const qp_bpe_t *bpe, const char *word, size_t n_bytes)
{
    if (bpe->unk < 0)
        return NULL;
    int32_t *length = QP_NEW("tokenizer", int32_t, (int64_t)n_bytes);
    int32_t *id = QP_NEW("tokenizer", int32_t, (int64_t)n_bytes);
    symbols_t symbols = {.id = id};
    int64_t n_unknown = 0;
    for (size_t i = 0, n; i < n_bytes; i += n) {
        const bool fuses = bpe->fuse_unk && symbols.after_unk;
        n = put_next(bpe, &symbols, word + i);
        if (!symbols.after_unk)
            continue;
        if (!fuses)
            length[n_unknown++] = 0;
        length[n_unknown - 1] += (int32_t)n;
    }
    qp_free(id);
    return length;
}

/* --- merging ---------------------------------------------------------------------------------- */

/* Joins in place by scanning for the best pair; returns the number of symbols left. */
static int64_t merge_short(const qp_pairmap_t *merge, int32_t *id, int64_t n)
{
    uint32_t rank[SHORT_WORD];
    int32_t joined[SHORT_WORD];
#define LOOK_UP(i)                                                                  \
    do {                                                                            \
        const qp_pairmap_slot_t *slot_ = qp_pairmap_get(merge, id[i], id[(i) + 1]); \
        rank[i] = slot_ != NULL ? slot_->rank : NO_RANK;                            \
        joined[i] = slot_ != NULL ? slot_->id : -1;                                 \
    } while (0)
    for (int64_t i = 0; i + 1 < n; i++)
        LOOK_UP(i);
    rank[n - 1] = NO_RANK; /* the last symbol has nothing to join */
    joined[n - 1] = -1;
    while (n > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        id[best] = joined[best];
        n--;
        for (int64_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i] = rank[i + 1];
            joined[i] = joined[i + 1];
        }
        if (best > 0)
            LOOK_UP(best - 1);
        if (best + 1 < n)
            LOOK_UP(best);
    }
#undef LOOK_UP
    return n;
}

typedef struct {
    int32_t id; /* -1: joined to the left */
    int64_t previous, next;
} link_t;

typedef struct {
    uint32_t rank;
    int32_t id;       /* of the merged token */
    int64_t position; /* of the left symbol */
} candidate_t;

static bool before(const candidate_t *a, const candidate_t *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void heap_push(candidate_t *heap, int64_t *n, candidate_t item)
{
    int64_t i = (*n)++;
    while (i > 0 && before(&item, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = item;
}

static candidate_t heap_pop(candidate_t *heap, int64_t *n)
{
    const candidate_t top = heap[0], item = heap[--*n];
    int64_t i = 0;
    for (int64_t child = 1; child < *n; child = 2 * i + 1) {
        if (child + 1 < *n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &item))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
    return top;
}

static void push_pair(const qp_pairmap_t *merge, const link_t *symbol, int64_t left,
                      candidate_t *heap, int64_t *n_heap)
{
    if (left < 0 || symbol[left].next < 0)
        return;
    const qp_pairmap_slot_t *slot =
        qp_pairmap_get(merge, symbol[left].id, symbol[symbol[left].next].id);
    if (slot != NULL)
        heap_push(heap, n_heap,
                  (candidate_t){.rank = slot->rank, .id = slot->id, .position = left});
}

/* The same result from a linked list and a heap; at most 3 n candidates are ever pushed. */
static int64_t merge_long(const qp_pairmap_t *merge, int32_t *id, int64_t n,
                          qp_bpe_scratch_t *scratch)
{
    link_t *symbol = reserve(&scratch->symbol, &scratch->symbol_bytes, qp_bytes(n, sizeof *symbol));
    candidate_t *heap =
        reserve(&scratch->heap, &scratch->heap_bytes, qp_bytes(3 * n, sizeof *heap));
    int64_t n_heap = 0;
    for (int64_t i = 0; i < n; i++)
        symbol[i] = (link_t){.id = id[i], .previous = i - 1, .next = i + 1 < n ? i + 1 : -1};
    for (int64_t i = 0; i < n; i++)
        push_pair(merge, symbol, i, heap, &n_heap);
    while (n_heap > 0) {
        const candidate_t top = heap_pop(heap, &n_heap);
        link_t *left = &symbol[top.position];
        if (left->id < 0 || left->next < 0)
            continue;
        link_t *right = &symbol[left->next];
        const qp_pairmap_slot_t *slot = qp_pairmap_get(merge, left->id, right->id);
        if (slot == NULL || slot->id != top.id) /* the pair changed since it was pushed */
            continue;
        left->id = top.id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0)
            symbol[left->next].previous = top.position;
        push_pair(merge, symbol, left->previous, heap, &n_heap);
        push_pair(merge, symbol, top.position, heap, &n_heap);
    }
    int64_t n_left = 0;
    for (int64_t i = 0; i >= 0; i = symbol[i].next)
        id[n_left++] = symbol[i].id;
    return n_left;
}

static void encode_by_merging(const qp_bpe_t *bpe, const char *word, size_t n_bytes,
                              qp_bpe_scratch_t *scratch, qp_tokens_t *tokens)
{
    qp_tokens_reserve(tokens, (int64_t)n_bytes);
    int32_t *id = tokens->id + tokens->n;
    int64_t n = split_symbols(bpe, word, n_bytes, id);
    if (n > SHORT_WORD)
        n = merge_long(&bpe->merge, id, n, scratch);
    else if (n > 1)
        n = merge_short(&bpe->merge, id, n);
    tokens->n += n;
}

static void encode_word(const qp_bpe_t *bpe, const char *word, size_t n_bytes,
                        qp_bpe_scratch_t *scratch, qp_tokens_t *tokens)
{
    int32_t token = qp_textmap_get(&bpe->word, word, n_bytes);
    if (token >= 0)
        qp_tokens_push(tokens, token);
    else
        encode_by_merging(bpe, word, n_bytes, scratch, tokens);
}

/* Where the text's first word ends: before a U+2581 that follows something else. */
static size_t first_word(const char *text, size_t n_bytes)
{
    size_t i = 0;
    while (i + sizeof QP_METASPACE - 1 <= n_bytes &&
           memcmp(text + i, QP_METASPACE, sizeof QP_METASPACE - 1) == 0)
        i += sizeof QP_METASPACE - 1;
    const char *next = memmem(text + i, n_bytes - i, QP_METASPACE, sizeof QP_METASPACE - 1);
    return next != NULL ? (size_t)(next - text) : n_bytes;
}

void qp_bpe_encode(const qp_bpe_t *bpe, const char *word, size_t n_bytes, qp_bpe_scratch_t *scratch,
                   qp_tokens_t *tokens)
{
    while (n_bytes > 0) {
        const size_t n = bpe->cut_words ? first_word(word, n_bytes) : n_bytes;
        encode_word(bpe, word, n, scratch, tokens);
        word += n;
        n_bytes -= n;
    }
}

void qp_bpe_find_bytes(qp_bpe_t *bpe, const qp_textmap_t *id_of)
{
    for (int byte = 0; byte < 256; byte++) {
        qp_str_t text = {0};
        if (bpe->byte_level)
            qp_utf8_put(&text, qp_gpt2_alphabet((unsigned char)byte));
        else
            qp_str_printf(&text, "<0x%02X>", (unsigned)byte);
        bpe->byte_id[byte] = qp_textmap_get(id_of, text.data, text.n);
        qp_str_fini(&text);
    }
}

/* U+2581 is a token, and words never go across its first one: see first_word(). */
static bool can_cut(const qp_bpe_t *bpe, const char *const *text, const size_t *n_bytes, int64_t n)
{
    if (bpe->byte_level || qp_textmap_get(&bpe->word, QP_METASPACE, sizeof QP_METASPACE - 1) < 0)
        return false;
    for (int64_t i = 0; i < n; i++)
        if (text[i] != NULL && first_word(text[i], n_bytes[i]) < n_bytes[i])
            return false;
    return true;
}

void qp_bpe_init_words(qp_bpe_t *bpe, const char *const *text, const size_t *n_bytes, int64_t n)
{
    /* Single symbols first: merging looks them up. */
    for (int64_t i = 0; i < n; i++)
        if (text[i] != NULL && n_bytes[i] > 0 &&
            n_bytes[i] == (bpe->byte_level ? 1 : qp_utf8_length(text[i][0])))
            qp_textmap_put(&bpe->word, text[i], n_bytes[i], (int32_t)i);
    bpe->cut_words = can_cut(bpe, text, n_bytes, n);
    qp_bpe_scratch_t scratch = {0};
    qp_tokens_t tokens = {0};
    for (int64_t i = 0; i < n; i++) {
        if (text[i] == NULL || n_bytes[i] == 0)
            continue;
        tokens.n = 0;
        if (!bpe->ignore_merges)
            encode_by_merging(bpe, text[i], n_bytes[i], &scratch, &tokens);
        if (bpe->ignore_merges || (tokens.n == 1 && tokens.id[0] == i))
            qp_textmap_put(&bpe->word, text[i], n_bytes[i], (int32_t)i);
    }
    qp_tokens_fini(&tokens);
    qp_bpe_scratch_fini(&scratch);
}
