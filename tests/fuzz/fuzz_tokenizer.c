/* libFuzzer: any bytes as tokenizer.json, or as the metadata of a GGUF, are refused or make a
 * tokenizer that encodes and decodes. The text to encode follows the JSON after a NUL byte. */
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void drop(qp_error_t error)
{
    qp_error_destroy(&error);
}

static void use(const qp_tokenizer_t *tokenizer, const char *text, size_t n_bytes)
{
    qp_tokens_t tokens = {0};
    qp_str_t decoded = {0};
    for (unsigned flags = 0; flags < 4; flags++)
        drop(qp_tokenizer_encode(tokenizer, text, n_bytes, flags, &tokens));
    for (int64_t i = 0; i < tokens.n; i++)
        QP_ASSERT(qp_tokenizer_token(tokenizer, tokens.id[i]) != NULL);
    drop(qp_tokenizer_decode(tokenizer, tokens.id, tokens.n, false, &decoded));
    drop(qp_tokenizer_decode(tokenizer, tokens.id, tokens.n, true, &decoded));
    qp_tokens_fini(&tokens);
    qp_str_fini(&decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const char plain[] = "It's 12 <s>\xf0\x9f\x8d\xba \xff\n\n ab";
    const uint8_t *nul = n_bytes > 0 ? memchr(data, '\0', n_bytes) : NULL;
    const size_t n_model = nul != NULL ? (size_t)(nul - data) : n_bytes;
    static const char key[] = "tokenizer.ggml.";
    const bool gguf = n_model > 0 && memmem(data, n_model, key, sizeof key - 1) != NULL;
    qp_tokenizer_files_t files = {0};
    strcpy(files.kind, gguf ? "gguf" : "tokenizer.json");
    files.model = qp_alloc("fuzz", n_model);
    files.model_bytes = n_model;
    if (n_model > 0)
        memcpy(files.model, data, n_model);
    qp_tokenizer_t *tokenizer = NULL;
    qp_error_t error = qp_tokenizer_create(&files, &tokenizer);
    if (error == NULL && nul != NULL)
        use(tokenizer, (const char *)nul + 1, n_bytes - n_model - 1);
    if (error == NULL)
        use(tokenizer, plain, sizeof plain - 1);
    drop(error);
    qp_tokenizer_destroy(&tokenizer);
    qp_tokenizer_files_fini(&files);
    QP_ASSERT(qp_mem_alive() == 0);
    return 0;
}
