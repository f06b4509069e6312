/* SentencePiece models: tokenizer.model of LLaMA 1/2 and Mistral, and the way into the library. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

qp_error_t qp_tokenizer_load_sp(qp_tokenizer_t *tokenizer, const void *model, size_t n_bytes)
{
    char *message = qp_sp_create(model, n_bytes, &tokenizer->sp);
    if (message != NULL) {
        qp_error_t error = QP_ERROR(QP_INPUT, "not a SentencePiece model: %s", message);
        qp_sp_message_free(message);
        return error;
    }
    const qp_sp_t *sp = tokenizer->sp;
    for (int32_t i = 0; i < qp_sp_n_vocab(sp); i++) {
        const char *text = qp_sp_piece(sp, i);
        QP_TRY(qp_vocab_put(&tokenizer->vocab, i, text, strlen(text)));
        if (qp_sp_is_control(sp, i) && text[0] != '\0')
            QP_TRY(
                qp_tokenizer_add(tokenizer, text, false, (qp_added_t){.id = i, .special = true}));
    }
    tokenizer->bos = qp_sp_bos(sp);
    tokenizer->eos = qp_sp_eos(sp);
    return NULL;
}

void qp_tokenizer_set_bos_eos(qp_tokenizer_t *tokenizer, bool add_bos, bool add_eos)
{
    if (add_bos && tokenizer->bos >= 0)
        qp_tokens_push(&tokenizer->prefix, tokenizer->bos);
    if (add_eos && tokenizer->eos >= 0)
        qp_tokens_push(&tokenizer->suffix, tokenizer->eos);
}

qp_error_t qp_tokenizer_build_sp(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                 const json_t *config)
{
    QP_TRY(qp_tokenizer_load_sp(tokenizer, files->model, files->model_bytes));
    /* LLaMA's rule unless the config says otherwise. */
    qp_tokenizer_set_bos_eos(tokenizer, qp_json_flag(config, "add_bos_token", true),
                             qp_json_flag(config, "add_eos_token", false));
    return NULL;
}
