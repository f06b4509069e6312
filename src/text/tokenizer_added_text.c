/* The added tokens of a tokenizer: a list while its files are read, then sets that are searched. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

static qp_added_text_t *find_added(const qp_tokenizer_t *tokenizer, const char *text)
{
    const int32_t id = qp_tokenizer_find(tokenizer, text);
    for (int64_t i = 0; i < tokenizer->n_added && id >= 0; i++)
        if (tokenizer->added_text[i].token.id == id)
            return &tokenizer->added_text[i];
    return NULL;
}

const qp_added_text_t *qp_tokenizer_added(const qp_tokenizer_t *tokenizer, const char *text)
{
    return find_added(tokenizer, text);
}

qp_error_t qp_tokenizer_add(qp_tokenizer_t *tokenizer, const char *text, bool normalized,
                            qp_added_t token)
{
    if (text[0] == '\0')
        return QP_ERROR(QP_INPUT, "added token %d has no text", (int)token.id);
    QP_TRY(qp_vocab_put(&tokenizer->vocab, token.id, text, strlen(text)));
    tokenizer->vocab.entry[token.id].special = token.special;
    qp_added_text_t *added = find_added(tokenizer, text);
    if (added == NULL) {
        if (tokenizer->n_added == tokenizer->added_capacity) {
            tokenizer->added_capacity = 2 * tokenizer->added_capacity + 32;
            tokenizer->added_text =
                qp_realloc("tokenizer", tokenizer->added_text,
                           qp_bytes(tokenizer->added_capacity, sizeof *tokenizer->added_text));
        }
        added = &tokenizer->added_text[tokenizer->n_added++];
        added->text = qp_strdup(text);
    }
    added->normalized = normalized;
    added->token = token;
    return NULL;
}

void qp_tokenizer_index_added(qp_tokenizer_t *tokenizer)
{
    qp_traced_t buffer[2] = {0};
    for (int64_t i = 0; i < tokenizer->n_added; i++) {
        qp_added_text_t *added = &tokenizer->added_text[i];
        /* SentencePiece normalises by itself, so all are looked for before. */
        added->normalized = added->normalized && tokenizer->sp == NULL;
        qp_slice_t text = {.text = added->text, .n = strlen(added->text)};
        if (added->normalized)
            text = qp_normal_run(&tokenizer->normal, text, buffer);
        if (text.n > 0)
            qp_added_put(added->normalized ? &tokenizer->added_normalized : &tokenizer->added,
                         text.text, text.n, added->token);
    }
    for (int i = 0; i < 2; i++)
        qp_traced_fini(&buffer[i]);
}
