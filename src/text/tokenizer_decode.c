/* Ids to text. */
#include <string.h>

#include "text/tokenizer_parts.h"
#include "base/utf8.h"

static void put_text(void *owner, const char *text, size_t n_bytes)
{
    qp_str_append(owner, text, n_bytes);
}

/* SentencePiece drops control pieces itself and knows no tokens that stand beside its model: the
 * text of these goes between the runs if it is wanted. */
static qp_error_t decode_sp(const qp_tokenizer_t *tokenizer, const int32_t *id, int64_t n,
                            bool skip_special, qp_str_t *text)
{
    qp_tokens_t run = {0};
    qp_error_t error = NULL;
    for (int64_t i = 0; i <= n && error == NULL; i++) {
        const qp_vocab_entry_t *entry = i < n ? qp_vocab_get(&tokenizer->vocab, id[i]) : NULL;
        const bool outside =
            entry != NULL && (entry->special || id[i] >= qp_sp_n_vocab(tokenizer->sp));
        const bool written = outside && !(entry->special && skip_special);
        if (entry != NULL && !outside)
            qp_tokens_push(&run, id[i]);
        if ((i == n || written) && run.n > 0) {
            error =
                qp_sp_failure(qp_sp_decode(tokenizer->sp, run.id, (size_t)run.n, put_text, text));
            run.n = 0;
        }
        if (written)
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

/* Appends a token's text without any \a dropped in it. */
static void put_without(const char *token, const char *dropped, qp_str_t *text)
{
    const char *hit;
    for (; (hit = strstr(token, dropped)) != NULL; token = hit + strlen(dropped))
        qp_str_append(text, token, (size_t)(hit - token));
    qp_str_puts(text, token);
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
                put_without(qp_vocab_text(&tokenizer->vocab, entry), decoder->drop_in_first, text);
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
