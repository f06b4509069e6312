/* Text to ids and back. The way of a text: repair UTF-8, cut out added tokens, normalise, cut out
 * the added tokens that are matched normalised, cut into words, byte-pair encoding of each word. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_utf8.h"

/* One call of qp_tokenizer_encode(). */
typedef struct {
    const qp_tokenizer_t *tokenizer;
    bool parse_special;
    qp_tokens_t *tokens;
    qp_str_t repaired, normalized;
    qp_split_scratch_t split;
    qp_bpe_scratch_t bpe;
} run_t;

typedef qp_error_t (*part_t)(run_t *run, const char *text, size_t n_bytes, bool first);

static void encode_word(void *owner, const char *word, size_t n_bytes)
{
    run_t *run = owner;
    qp_bpe_encode(&run->tokenizer->bpe, word, n_bytes, &run->bpe, run->tokens);
}

static void push_id(void *owner, int32_t id)
{
    qp_tokens_push(owner, id);
}

/* Takes the message of the shim. */
static qp_error_t sp_failure(char *message)
{
    if (message == NULL)
        return NULL;
    qp_error_t error = QP_ERROR(QP_INTERNAL, "SentencePiece: %s", message);
    qp_sp_message_free(message);
    return error;
}

static qp_error_t encode_by_library(run_t *run, const char *text, size_t n_bytes, bool first)
{
    (void)first;
    return sp_failure(qp_sp_encode(run->tokenizer->sp, text, n_bytes, push_id, run->tokens));
}

static qp_error_t encode_plain(run_t *run, const char *text, size_t n_bytes, bool first)
{
    return qp_split_run(&run->tokenizer->split, text, n_bytes, first, &run->split, encode_word,
                        run);
}

/* Hands the text between added tokens to next(), pushes the ids of those. */
static qp_error_t cut_added(run_t *run, const qp_added_set_t *set, const char *text, size_t n_bytes,
                            bool first, part_t next)
{
    size_t done = 0;
    qp_added_match_t match;
    while (qp_added_find(set, text, n_bytes, done, run->parse_special, &match)) {
        if (match.begin > done)
            QP_TRY(next(run, text + done, match.begin - done, first && done == 0));
        qp_tokens_push(run->tokens, match.token.id);
        done = match.end;
    }
    return n_bytes > done ? next(run, text + done, n_bytes - done, first && done == 0) : NULL;
}

static void replace_all(const char *text, size_t n_bytes, const qp_normal_rule_t *rule,
                        qp_str_t *out)
{
    const size_t n_from = strlen(rule->from), n_to = strlen(rule->to);
    const char *end = text + n_bytes, *hit;
    while ((hit = memmem(text, (size_t)(end - text), rule->from, n_from)) != NULL) {
        qp_str_append(out, text, (size_t)(hit - text));
        qp_str_append(out, rule->to, n_to);
        text = hit + n_from;
    }
    qp_str_append(out, text, (size_t)(end - text));
}

void qp_tokenizer_normalize(const qp_tokenizer_t *tokenizer, const char *text, size_t n_bytes,
                            qp_str_t *out)
{
    qp_str_t next = {0};
    qp_str_clear(out);
    qp_str_append(out, text, n_bytes);
    for (int i = 0; i < tokenizer->n_rule && n_bytes > 0; i++) {
        const qp_normal_rule_t *rule = &tokenizer->rule[i];
        qp_str_clear(&next);
        if (rule->from[0] == '\0') {
            qp_str_puts(&next, rule->to);
            qp_str_append(&next, out->data, out->n);
        } else {
            replace_all(out->data, out->n, rule, &next);
        }
        qp_str_t swap = *out;
        *out = next;
        next = swap;
    }
    qp_str_fini(&next);
}

static qp_error_t encode_part(run_t *run, const char *text, size_t n_bytes, bool first)
{
    const qp_tokenizer_t *tokenizer = run->tokenizer;
    if (tokenizer->n_rule > 0) {
        qp_tokenizer_normalize(tokenizer, text, n_bytes, &run->normalized);
        text = run->normalized.data;
        n_bytes = run->normalized.n;
    }
    return cut_added(run, &tokenizer->added_normalized, text, n_bytes, first, encode_plain);
}

static void push_all(qp_tokens_t *tokens, const qp_tokens_t *more)
{
    for (int64_t i = 0; i < more->n; i++)
        qp_tokens_push(tokens, more->id[i]);
}

qp_error_t qp_tokenizer_encode(const qp_tokenizer_t *tokenizer, const char *text, size_t n_bytes,
                               unsigned flags, qp_tokens_t *tokens)
{
    qp_error_t error = NULL;
    const bool add_special = (flags & QP_TEXT_ADD_SPECIAL) != 0;
    run_t run = {.tokenizer = tokenizer,
                 .parse_special = (flags & QP_TEXT_PARSE_SPECIAL) != 0,
                 .tokens = tokens};
    const bool valid = qp_utf8_valid_prefix(text, n_bytes) == n_bytes;
    /* SentencePiece repairs in its own way. */
    const bool library = tokenizer->sp != NULL && (!valid || !tokenizer->sp_decodes_only);
    if (!valid && !library) {
        qp_utf8_repair(&run.repaired, text, n_bytes);
        text = run.repaired.data;
        n_bytes = run.repaired.n;
    }
    if (add_special)
        push_all(tokens, &tokenizer->prefix);
    QP_TRY_DONE(cut_added(&run, &tokenizer->added, text, n_bytes, true,
                          library ? encode_by_library : encode_part));
    if (add_special)
        push_all(tokens, &tokenizer->suffix);
done:
    qp_str_fini(&run.repaired);
    qp_str_fini(&run.normalized);
    qp_split_scratch_fini(&run.split);
    qp_bpe_scratch_fini(&run.bpe);
    return error;
}

/* --- decoding --------------------------------------------------------------------------------- */

static void put_text(void *owner, const char *text, size_t n_bytes)
{
    qp_str_append(owner, text, n_bytes);
}

/* SentencePiece drops control pieces itself; their text goes between the runs if it is wanted. */
static qp_error_t decode_sp(const qp_tokenizer_t *tokenizer, const int32_t *id, int64_t n,
                            bool skip_special, qp_str_t *text)
{
    qp_tokens_t run = {0};
    qp_error_t error = NULL;
    for (int64_t i = 0; i <= n && error == NULL; i++) {
        const qp_vocab_entry_t *entry = i < n ? qp_vocab_get(&tokenizer->vocab, id[i]) : NULL;
        const bool special = entry != NULL && entry->special;
        if (entry != NULL && !special)
            qp_tokens_push(&run, id[i]);
        if ((i == n || (special && !skip_special)) && run.n > 0) {
            error = sp_failure(qp_sp_decode(tokenizer->sp, run.id, (size_t)run.n, put_text, text));
            run.n = 0;
        }
        if (special && !skip_special)
            qp_str_puts(text, qp_vocab_text(&tokenizer->vocab, entry));
    }
    qp_tokens_fini(&run);
    return error;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a token "<0xNN>", or -1. */
static int fallback_byte(const char *text, size_t n_text)
{
    if (n_text != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens: its text if it is UTF-8, else U+FFFD for every byte. */
static void flush_bytes(qp_str_t *bytes, qp_str_t *text)
{
    if (bytes->n > 0 && qp_utf8_valid_prefix(bytes->data, bytes->n) == bytes->n)
        qp_str_append(text, bytes->data, bytes->n);
    else
        for (size_t i = 0; i < bytes->n; i++)
            qp_str_puts(text, "\xef\xbf\xbd");
    qp_str_clear(bytes);
}

/* Appends the surfaces; *bytes is working memory. */
static void put_surfaces(const qp_tokenizer_t *tokenizer, const int32_t *id, int64_t n,
                         bool skip_special, qp_str_t *bytes, qp_str_t *text)
{
    const qp_decoder_t *decoder = &tokenizer->decoder;
    bool first = true;
    for (int64_t i = 0; i < n; i++) {
        const qp_vocab_entry_t *entry = qp_vocab_get(&tokenizer->vocab, id[i]);
        if (entry == NULL || (entry->special && skip_special))
            continue;
        const char *surface = qp_vocab_surface(&tokenizer->vocab, entry);
        const int byte = decoder->byte_fallback ? fallback_byte(surface, entry->n_surface) : -1;
        if (byte >= 0) {
            qp_str_putc(bytes, (char)byte);
        } else {
            flush_bytes(bytes, text);
            if (first && decoder->drop_in_first != NULL)
                replace_all(qp_vocab_text(&tokenizer->vocab, entry), entry->n_text,
                            &(qp_normal_rule_t){.from = decoder->drop_in_first, .to = ""}, text);
            else
                qp_str_append(text, surface, entry->n_surface);
        }
        first = false;
    }
    flush_bytes(bytes, text);
}

qp_error_t qp_tokenizer_decode(const qp_tokenizer_t *tokenizer, const int32_t *id, int64_t n,
                               bool skip_special, qp_str_t *text)
{
    if (tokenizer->sp != NULL)
        return decode_sp(tokenizer, id, n, skip_special, text);
    const qp_decoder_t *decoder = &tokenizer->decoder;
    qp_str_t raw = {0}, bytes = {0};
    put_surfaces(tokenizer, id, n, skip_special, &bytes, &raw);
    size_t start = 0;
    while ((int64_t)start < decoder->strip_spaces && start < raw.n && raw.data[start] == ' ')
        start++;
    if (raw.n > start)
        qp_utf8_repair(text, raw.data + start, raw.n - start);
    qp_str_fini(&raw);
    qp_str_fini(&bytes);
    return NULL;
}
