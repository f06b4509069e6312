#include "text/tokenizer_vocab.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

void qp_vocab_fini(qp_vocab_t *vocab)
{
    qp_str_fini(&vocab->strings);
    qp_textmap_fini(&vocab->id_of);
    qp_free(vocab->entry);
    *vocab = (qp_vocab_t){0};
}

/* Appends a NUL-terminated copy to the strings; returns where it starts. */
static size_t keep(qp_vocab_t *vocab, const char *text, size_t n)
{
    size_t at = vocab->strings.n;
    qp_str_append(&vocab->strings, text, n);
    qp_str_putc(&vocab->strings, '\0');
    return at;
}

qp_error_t qp_vocab_put(qp_vocab_t *vocab, int64_t id, const char *text, size_t n_text)
{
    if (id < 0 || id >= QP_MAX_VOCAB)
        return QP_ERROR(QP_INPUT, "token '%s': id %lld is outside [0, %d)", text, (long long)id,
                        QP_MAX_VOCAB);
    if (id >= vocab->capacity) {
        int64_t capacity = 2 * id + 64;
        vocab->entry =
            qp_realloc("tokenizer", vocab->entry, qp_bytes(capacity, sizeof *vocab->entry));
        memset(vocab->entry + vocab->capacity, 0,
               qp_bytes(capacity - vocab->capacity, sizeof *vocab->entry));
        vocab->capacity = capacity;
    }
    qp_vocab_entry_t *entry = &vocab->entry[id];
    if (entry->present && strcmp(qp_vocab_text(vocab, entry), text) != 0)
        return QP_ERROR(QP_INPUT, "id %lld is both '%s' and '%s'", (long long)id,
                        qp_vocab_text(vocab, entry), text);
    if (!entry->present) {
        entry->text = entry->surface = keep(vocab, text, n_text);
        entry->n_text = entry->n_surface = n_text;
        entry->present = true;
    }
    if (id >= vocab->n)
        vocab->n = id + 1;
    qp_textmap_put(&vocab->id_of, text, n_text, (int32_t)id);
    return NULL;
}

void qp_vocab_set_surface(qp_vocab_t *vocab, int64_t id, const char *surface, size_t n_surface)
{
    vocab->entry[id].surface = keep(vocab, surface, n_surface);
    vocab->entry[id].n_surface = n_surface;
}

const qp_vocab_entry_t *qp_vocab_get(const qp_vocab_t *vocab, int64_t id)
{
    return id >= 0 && id < vocab->n && vocab->entry[id].present ? &vocab->entry[id] : NULL;
}

const char *qp_vocab_text(const qp_vocab_t *vocab, const qp_vocab_entry_t *entry)
{
    return vocab->strings.data + entry->text;
}

const char *qp_vocab_surface(const qp_vocab_t *vocab, const qp_vocab_entry_t *entry)
{
    return vocab->strings.data + entry->surface;
}

/* Printable bytes stand for themselves, the 68 others for U+0100 onwards in their order (GPT-2). */
static bool is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

uint32_t qp_gpt2_alphabet(unsigned char byte)
{
    if (is_printable(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte <= 0xa0 ? 0x121u + (byte - 0x7fu) : 0x143u;
}

/* Inverse of qp_gpt2_alphabet(); -1 if the character is none of it. */
static int byte_of(uint32_t code)
{
    if (code < 0x100)
        return is_printable(code) ? (int)code : -1;
    if (code <= 0x120)
        return (int)(code - 0x100);
    if (code <= 0x142)
        return (int)(code - 0x121 + 0x7f);
    return code == 0x143 ? 0xad : -1;
}

bool qp_gpt2_bytes(const char *text, size_t n_bytes, qp_str_t *bytes)
{
    const size_t start = bytes->n;
    for (size_t i = 0, n; i < n_bytes; i += n) {
        int byte = byte_of(qp_utf8_decode(text + i, &n));
        if (byte < 0) {
            bytes->n = start;
            return false;
        }
        qp_str_putc(bytes, (char)byte);
    }
    return true;
}
