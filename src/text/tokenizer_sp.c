/* SentencePiece models: tokenizer.model of LLaMA 1/2 and Mistral. The library loads and checks the
 * model, decodes, and encodes what is unusual. The texts of a plain BPE model, which LLaMA's are,
 * are encoded by qp_bpe_t with the same ids, several times faster. Where transformers reads the
 * model by rules of its own, these count and the library only loads it. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_sp_proto.h"
#include "base/utf8.h"

/* A merge: SentencePiece joins two neighbours if the result is a piece; the best score goes first,
 * and equal scores from left to right. transformers ranks the pairs one by one: by the result's id,
 * then the shorter left part. */
typedef struct {
    int32_t left, right, id;
    float score;
    size_t n_left;
} pair_t;

typedef struct {
    pair_t *pair;
    int64_t n, capacity;
} pairs_t;

static int by_score(const void *a, const void *b)
{
    const float x = ((const pair_t *)a)->score, y = ((const pair_t *)b)->score;
    return (x < y) - (x > y);
}

static int by_id(const void *a, const void *b)
{
    const pair_t *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (x->n_left > y->n_left) - (x->n_left < y->n_left);
}

/* Every way to join the piece from two others. False if it holds a character that is no piece: such
 * a character could be joined too, which a table of ids cannot say. */
static bool add_pairs(const qp_textmap_t *id_of, const qp_sp_piece_t *piece, int32_t id,
                      pairs_t *pairs)
{
    bool whole = true;
    for (size_t i = 0, n; i < piece->n_text; i += n) {
        n = qp_utf8_length(piece->text[i]);
        whole = whole && qp_textmap_get(id_of, piece->text + i, n) >= 0;
        const int32_t left = qp_textmap_get(id_of, piece->text, i);
        const int32_t right = qp_textmap_get(id_of, piece->text + i, piece->n_text - i);
        if (i == 0 || left < 0 || right < 0)
            continue;
        if (pairs->n == pairs->capacity) {
            pairs->capacity = 2 * pairs->capacity + 1024;
            pairs->pair = qp_realloc("tokenizer", pairs->pair,
                                     qp_bytes(pairs->capacity, sizeof *pairs->pair));
        }
        pairs->pair[pairs->n++] =
            (pair_t){.left = left, .right = right, .id = id, .score = piece->score, .n_left = i};
    }
    return whole;
}

/* Whether qp_bpe_t can stand for the model: normalisation is escaping spaces and the prefix alone.
 */
static bool is_plain(const qp_sp_proto_t *proto)
{
    if (proto->model_type != QP_SP_MODEL_BPE || proto->charsmap || proto->whitespace_as_suffix ||
        proto->remove_extra_whitespaces || !proto->escape_whitespaces)
        return false;
    for (int64_t i = 0; i < proto->n_piece; i++) {
        const qp_sp_piece_t *piece = &proto->piece[i];
        if (piece->type == QP_SP_USER_DEFINED || piece->type == QP_SP_UNUSED ||
            qp_utf8_valid_prefix(piece->text, piece->n_text) < piece->n_text)
            return false;
    }
    return true;
}

static void set_merges(qp_bpe_t *bpe, pairs_t *pairs, bool llama)
{
    if (pairs->n > 0)
        qsort(pairs->pair, (size_t)pairs->n, sizeof *pairs->pair, llama ? by_id : by_score);
    qp_pairmap_init(&bpe->merge, pairs->n);
    uint32_t rank = 0;
    for (int64_t i = 0; i < pairs->n; i++) {
        const pair_t *pair = &pairs->pair[i];
        if (i > 0 && (llama || pair->score < pairs->pair[i - 1].score))
            rank++;
        qp_pairmap_put(&bpe->merge, pair->left, pair->right, rank, pair->id);
    }
}

/* Fills tokenizer->bpe from the pieces, if it can stand for the model (llama: always); the flags of
 * bpe are set. Control, byte and unknown pieces never stand in a text of SentencePiece. */
static bool build_bpe(qp_tokenizer_t *tokenizer, const qp_sp_proto_t *proto, bool llama)
{
    qp_bpe_t *bpe = &tokenizer->bpe;
    pairs_t pairs = {0};
    qp_textmap_t id_of = {0};
    const char **text = QP_NEW("tokenizer", const char *, proto->n_piece);
    size_t *n_text = QP_NEW("tokenizer", size_t, proto->n_piece);
    for (int64_t i = 0; i < proto->n_piece; i++) {
        if (!llama && proto->piece[i].type != QP_SP_NORMAL)
            continue;
        text[i] = proto->piece[i].text;
        n_text[i] = proto->piece[i].n_text;
        qp_textmap_put(&id_of, text[i], n_text[i], (int32_t)i);
    }
    bool ok = llama ||
              (is_plain(proto) && qp_textmap_get(&id_of, QP_METASPACE, strlen(QP_METASPACE)) >= 0);
    for (int64_t i = 0; ok && i < proto->n_piece; i++)
        if (text[i] != NULL)
            ok = add_pairs(&id_of, &proto->piece[i], (int32_t)i, &pairs) || llama;
    if (ok) {
        qp_bpe_find_bytes(bpe, &tokenizer->vocab.id_of);
        set_merges(bpe, &pairs, llama);
        qp_bpe_init_words(bpe, text, n_text, proto->n_piece);
    }
    qp_textmap_fini(&id_of);
    qp_free(pairs.pair);
    qp_free(text);
    qp_free(n_text);
    return ok;
}

/* Lets qp_bpe_t encode if the model allows it; else the library goes on encoding. */
static qp_error_t take_over_encoding(qp_tokenizer_t *tokenizer, const qp_sp_proto_t *proto)
{
    qp_bpe_t *bpe = &tokenizer->bpe;
    bpe->fuse_unk = true;
    bpe->byte_fallback = proto->byte_fallback;
    bpe->unk = qp_sp_unk(tokenizer->sp);
    tokenizer->sp_decodes_only = build_bpe(tokenizer, proto, false);
    if (!tokenizer->sp_decodes_only)
        return NULL;
    if (proto->dummy_prefix)
        QP_TRY(qp_normal_add(&tokenizer->normal, QP_NORMAL_PREPEND, NULL, QP_METASPACE));
    return qp_normal_add(&tokenizer->normal, QP_NORMAL_REPLACE, " ", QP_METASPACE);
}

qp_error_t qp_sp_failure(char *message)
{
    if (message == NULL)
        return NULL;
    qp_error_t error = QP_ERROR(QP_INTERNAL, "SentencePiece: %s", message);
    qp_sp_message_free(message);
    return error;
}

/* Loads the model; its pieces become the vocabulary. */
static qp_error_t load(qp_tokenizer_t *tokenizer, const void *model, size_t n_bytes)
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
    tokenizer->id = qp_hash_bytes(model, n_bytes);
    return NULL;
}

qp_error_t qp_tokenizer_load_sp(qp_tokenizer_t *tokenizer, const void *model, size_t n_bytes)
{
    qp_sp_proto_t proto;
    QP_TRY(load(tokenizer, model, n_bytes));
    qp_error_t error = qp_sp_proto_read(model, n_bytes, &proto);
    if (error == NULL)
        error = take_over_encoding(tokenizer, &proto);
    qp_sp_proto_fini(&proto);
    return error;
}

/* --- tokenizer.model -------------------------------------------------------------------------- */

static qp_error_t check_llama(const qp_sp_proto_t *proto)
{
    if (proto->model_type != QP_SP_MODEL_BPE)
        return QP_ERROR(QP_INPUT, "the model is not BPE, which LlamaTokenizer reads");
    for (int64_t i = 0; i < proto->n_piece; i++)
        if (qp_utf8_valid_prefix(proto->piece[i].text, proto->piece[i].n_text) <
            proto->piece[i].n_text)
            return QP_ERROR(QP_INPUT, "piece %lld is not UTF-8", (long long)i);
    return NULL;
}

/* The model as LlamaTokenizer has it: user-defined pieces are added tokens, all the rest is BPE. */
static qp_error_t build_llama(qp_tokenizer_t *tokenizer, const qp_sp_proto_t *proto,
                              const json_t *config)
{
    QP_TRY(check_llama(proto));
    QP_TRY(qp_tokenizer_set_llama(tokenizer, config));
    for (int64_t i = 0; i < proto->n_piece; i++)
        if (proto->piece[i].type == QP_SP_USER_DEFINED && proto->piece[i].n_text > 0)
            QP_TRY(qp_tokenizer_add(tokenizer, qp_sp_piece(tokenizer->sp, (int32_t)i), false,
                                    (qp_added_t){.id = (int32_t)i}));
    tokenizer->bpe.fuse_unk = tokenizer->bpe.byte_fallback = true;
    (void)build_bpe(tokenizer, proto, true);
    qp_sp_destroy(tokenizer->sp);
    tokenizer->sp = NULL;
    return qp_tokenizer_finish_llama(tokenizer, config);
}

/* Names of the model's own unknown, BOS and EOS, where the config has none. */
static qp_error_t name_pieces(qp_tokenizer_t *tokenizer, const json_t *config)
{
    const qp_sp_t *sp = tokenizer->sp;
    const struct {
        const char *key;
        int32_t id;
    } names[] = {
        {"bos_token", qp_sp_bos(sp)}, {"eos_token", qp_sp_eos(sp)}, {"unk_token", qp_sp_unk(sp)}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].id >= 0 && qp_json_get(config, names[i].key) == NULL)
            QP_TRY(qp_tokenizer_name(tokenizer, names[i].key, qp_sp_piece(sp, names[i].id)));
    return NULL;
}

static qp_error_t build(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                        const json_t *config)
{
    bool llama, byte_level, legacy;
    qp_sp_proto_t proto;
    QP_TRY(qp_tokenizer_class(config, &llama, &byte_level));
    if (byte_level)
        return QP_ERROR(QP_INPUT, "tokenizer_config.json: tokenizer_class is that of a byte-level "
                                  "vocabulary, which stands in tokenizer.json");
    QP_TRY(qp_json_bool(config, "legacy", true, &legacy));
    QP_TRY(qp_json_bool(config, "add_bos_token", false, &tokenizer->add_bos));
    QP_TRY(qp_json_bool(config, "add_eos_token", false, &tokenizer->add_eos));
    if (!llama && !legacy)
        return QP_ERROR(QP_INPUT, "tokenizer_config.json: legacy is false, which is supported for "
                                  "tokenizer_class LlamaTokenizer only");
    if (!llama) {
        QP_TRY(qp_tokenizer_load_sp(tokenizer, files->model, files->model_bytes));
        return name_pieces(tokenizer, config);
    }
    QP_TRY(load(tokenizer, files->model, files->model_bytes));
    qp_error_t error = qp_sp_proto_read(files->model, files->model_bytes, &proto);
    if (error == NULL)
        error = build_llama(tokenizer, &proto, config);
    qp_sp_proto_fini(&proto);
    return error;
}

qp_error_t qp_tokenizer_build_sp(qp_tokenizer_t *tokenizer, const qp_tokenizer_files_t *files,
                                 const json_t *config)
{
    return qp_error_context(build(tokenizer, files, config), "%s", files->kind);
}
