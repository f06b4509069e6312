/* Text to ids. The way of a text: repair UTF-8, cut out added tokens, normalise, cut out the added
 * tokens that are matched normalised, cut into words, byte-pair encoding of each word. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"
#include "base/utf8.h"

/* One call of qp_tokenizer_encode_spans(). */
typedef struct {
    const qp_tokenizer_t *tokenizer;
    bool parse_special;
    qp_tokens_t *tokens;
    qp_spans_t *spans; /* NULL: nobody asks */
    qp_str_t repaired, origin;
    qp_traced_t normalized[2];
    qp_split_scratch_t split;
    qp_bpe_scratch_t bpe;
    qp_slice_t library; /* what the library encodes now */
} run_t;

typedef qp_error_t (*part_t)(run_t *run, qp_slice_t text, bool first);

/* --- places of tokens ------------------------------------------------------------------------- */

void qp_spans_fini(qp_spans_t *spans)
{
    qp_free(spans->span);
    *spans = (qp_spans_t){0};
}

static void push_span(qp_spans_t *spans, qp_origin_t span)
{
    if (spans->n == spans->capacity) {
        spans->capacity = 2 * spans->capacity + 32;
        spans->span =
            qp_realloc("tokens", spans->span, qp_bytes(spans->capacity, sizeof *spans->span));
    }
    spans->span[spans->n++] = span;
}

/* Bytes of white space at one end of a token's text: 'Ġ' of byte-level vocabularies is a space. */
static size_t space_at(const char *text, size_t n, bool at_end)
{
    size_t bytes = 0, begin = 0, length;
    while (begin < n) {
        size_t at = begin;
        if (at_end)
            for (at = n - 1; at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80;)
                at--;
        const uint32_t code = qp_utf8_decode(text + at, &length);
        const bool space = code == qp_gpt2_alphabet(' ');
        if (!space && !qp_utf8_is_space(code))
            break;
        bytes += space ? 1 : length;
        if (at_end)
            n = at;
        else
            begin += length;
    }
    return bytes;
}

/* As process_offsets() of HF tokenizers. */
static qp_origin_t trim_span(const qp_tokenizer_t *tokenizer, int32_t id, bool first,
                             qp_origin_t span)
{
    const qp_vocab_entry_t *entry = qp_vocab_get(&tokenizer->vocab, id);
    if (!tokenizer->trim.trim || entry == NULL)
        return span;
    const char *text = qp_vocab_text(&tokenizer->vocab, entry);
    size_t leading = space_at(text, entry->n_text, false);
    const size_t trailing = space_at(text, entry->n_text, true);
    if (tokenizer->trim.add_prefix_space && (first || span.begin == 0))
        leading = 0;
    span.begin = span.begin + leading < span.end ? span.begin + (uint32_t)leading : span.end;
    if (span.end >= trailing)
        span.end = span.end - trailing > span.begin ? span.end - (uint32_t)trailing : span.begin;
    return span;
}

/* Pushes an id and where it comes from. */
static void push_token(run_t *run, int32_t id, qp_slice_t from)
{
    qp_tokens_push(run->tokens, id);
    if (run->spans != NULL)
        push_span(run->spans,
                  trim_span(run->tokenizer, id, run->spans->n == 0, qp_slice_origin(from)));
}

/* Bytes of a word that an id stands for; unknowns come from *unknown, in their order. */
static size_t token_length(const qp_tokenizer_t *tokenizer, int32_t id, const int32_t **unknown)
{
    const qp_bpe_t *bpe = &tokenizer->bpe;
    if (id == bpe->unk)
        return (size_t) * (*unknown)++;
    const qp_vocab_entry_t *entry = qp_vocab_get(&tokenizer->vocab, id);
    const char *text = qp_vocab_text(&tokenizer->vocab, entry);
    for (int byte = 0; byte < 256 && bpe->byte_fallback && text[0] == '<'; byte++)
        if (bpe->byte_id[byte] == id)
            return 1;
    return bpe->byte_level ? entry->n_surface : entry->n_text;
}

/* Places of the ids of a word, from the first one on. */
static void push_word_spans(run_t *run, qp_slice_t word, int64_t first)
{
    int32_t *lengths = qp_bpe_unknown_lengths(&run->tokenizer->bpe, word.text, word.n);
    const int32_t *unknown = lengths;
    size_t at = 0;
    for (int64_t i = first; i < run->tokens->n; i++) {
        size_t end = at + token_length(run->tokenizer, run->tokens->id[i], &unknown);
        if (end > word.n)
            end = word.n;
        push_span(run->spans, trim_span(run->tokenizer, run->tokens->id[i], run->spans->n == 0,
                                        qp_slice_origin(qp_slice_part(word, at, end))));
        at = end;
    }
    qp_free(lengths);
}

/* --- encoding --------------------------------------------------------------------------------- */

static void encode_word(void *owner, qp_slice_t word)
{
    run_t *run = owner;
    const int64_t first = run->tokens->n;
    qp_bpe_encode(&run->tokenizer->bpe, word.text, word.n, &run->bpe, run->tokens);
    if (run->spans != NULL)
        push_word_spans(run, word, first);
}

static void push_piece(void *owner, int32_t id, size_t begin, size_t end)
{
    run_t *run = owner;
    if (begin == end && end < run->library.n) /* of the next character, or put in front of it */
        end += qp_utf8_length(run->library.text[end]);
    push_token(run, id, qp_slice_part(run->library, begin, end));
}

static qp_error_t encode_by_library(run_t *run, qp_slice_t text, bool first)
{
    (void)first;
    run->library = text;
    return qp_sp_failure(qp_sp_encode(run->tokenizer->sp, text.text, text.n, push_piece, run));
}

static qp_error_t encode_plain(run_t *run, qp_slice_t text, bool first)
{
    return qp_split_run(&run->tokenizer->split, text, first, &run->split, encode_word, run);
}

/* Hands the text between added tokens to next(), pushes the ids of those. */
static qp_error_t cut_added(run_t *run, const qp_added_set_t *set, qp_slice_t text, bool first,
                            part_t next)
{
    size_t done = 0;
    qp_added_match_t match;
    while (qp_added_find(set, text.text, text.n, done, run->parse_special, &match)) {
        if (match.begin > done)
            QP_TRY(next(run, qp_slice_part(text, done, match.begin), first && done == 0));
        push_token(run, match.token.id, qp_slice_part(text, match.begin, match.end));
        done = match.end;
    }
    return text.n > done ? next(run, qp_slice_part(text, done, text.n), first && done == 0) : NULL;
}

static qp_error_t encode_part(run_t *run, qp_slice_t text, bool first)
{
    const qp_tokenizer_t *tokenizer = run->tokenizer;
    text = qp_normal_run(&tokenizer->normal, text, run->normalized);
    return cut_added(run, &tokenizer->added_normalized, text, first, encode_plain);
}

/* BOS or EOS around a text: they come from nowhere in it. */
static void push_all(run_t *run, const qp_tokens_t *more)
{
    for (int64_t i = 0; i < more->n; i++)
        push_token(run, more->id[i], (qp_slice_t){0});
}

/* Every byte of a text comes from its own character. */
static const qp_origin_t *make_origin(const char *text, size_t n_bytes, qp_str_t *origin)
{
    QP_ASSERT(n_bytes < UINT32_MAX);
    for (size_t i = 0, n; i < n_bytes; i += n) {
        n = qp_utf8_length(text[i]);
        const qp_origin_t one = {(uint32_t)i, (uint32_t)(i + n)};
        for (size_t k = 0; k < n; k++)
            qp_str_append(origin, &one, sizeof one);
    }
    return (const qp_origin_t *)(const void *)origin->data;
}

qp_error_t qp_tokenizer_encode_spans(const qp_tokenizer_t *tokenizer, const char *text,
                                     size_t n_bytes, unsigned flags, qp_tokens_t *tokens,
                                     qp_spans_t *spans)
{
    qp_error_t error = NULL;
    const bool add_special = (flags & QP_TEXT_ADD_SPECIAL) != 0;
    run_t run = {.tokenizer = tokenizer,
                 .parse_special = (flags & QP_TEXT_PARSE_SPECIAL) != 0,
                 .tokens = tokens,
                 .spans = spans};
    qp_slice_t slice = {.text = text, .n = n_bytes};
    const bool valid = qp_utf8_valid_prefix(text, n_bytes) == n_bytes;
    QP_ASSERT(valid || spans == NULL);
    /* SentencePiece repairs in its own way. */
    const bool library = tokenizer->sp != NULL && (!valid || !tokenizer->sp_decodes_only);
    if (!valid && !library) {
        qp_utf8_repair(&run.repaired, text, n_bytes);
        slice = (qp_slice_t){.text = run.repaired.data, .n = run.repaired.n};
    }
    if (spans != NULL)
        slice.origin = make_origin(text, n_bytes, &run.origin);
    if (add_special)
        push_all(&run, &tokenizer->prefix);
    QP_TRY_DONE(
        cut_added(&run, &tokenizer->added, slice, true, library ? encode_by_library : encode_part));
    if (add_special)
        push_all(&run, &tokenizer->suffix);
done:
    qp_str_fini(&run.repaired);
    qp_str_fini(&run.origin);
    for (int i = 0; i < 2; i++)
        qp_traced_fini(&run.normalized[i]);
    qp_split_scratch_fini(&run.split);
    qp_bpe_scratch_fini(&run.bpe);
    return error;
}

qp_error_t qp_tokenizer_encode(const qp_tokenizer_t *tokenizer, const char *text, size_t n_bytes,
                               unsigned flags, qp_tokens_t *tokens)
{
    return qp_tokenizer_encode_spans(tokenizer, text, n_bytes, flags, tokens, NULL);
}

qp_error_t qp_tokenizer_encode_opening(const qp_tokenizer_t *tokenizer, const char *text,
                                       size_t n_bytes, unsigned flags, qp_tokens_t *tokens)
{
    const qp_tokens_t *prefix = &tokenizer->prefix;
    const int64_t begin = tokens->n, n = prefix->n;
    for (int64_t i = 0; i < n; i++)
        qp_tokens_push(tokens, prefix->id[i]);
    QP_TRY(qp_tokenizer_encode(tokenizer, text, n_bytes, flags & ~(unsigned)QP_TEXT_ADD_SPECIAL,
                               tokens));
    int32_t *first = tokens->id + begin;
    if (n == 0 || tokens->n - begin < 2 * n ||
        memcmp(first, first + n, qp_bytes(n, sizeof *first)) != 0)
        return NULL;
    memmove(first, first + n, qp_bytes(tokens->n - begin - n, sizeof *first));
    tokens->n -= n;
    return NULL;
}
