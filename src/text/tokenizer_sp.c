/* SentencePiece models: tokenizer.model of LLaMA 1/2 and Mistral. The library loads and checks the
 * model, decodes, and encodes what is unusual. The texts of a plain BPE model, which LLaMA's are,
 * are encoded by qp_bpe_t with the same ids, several times faster. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"
#include "text/tokenizer_sp_proto.h"
#include "text/tokenizer_utf8.h"

/* A merge: SentencePiece joins two neighbours if the result is a piece; the best score goes first,
 * and equal scores from left to right. */
typedef struct {
    int32_t left, right, id;
    float score;
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

/* Every way to join the piece from two others. False if it holds a character that is no piece: such
 * a character could be joined too, which a table of ids cannot say. */
static bool add_pairs(const qp_textmap_t *id_of, const qp_sp_piece_t *piece, int32_t id,
                      pairs_t *pairs)
{
    for (size_t i = 0, n; i < piece->n_text; i += n) {
        n = qp_utf8_length(piece->text[i]);
        if (qp_textmap_get(id_of, piece->text + i, n) < 0)
            return false;
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
            (pair_t){.left = left, .right = right, .id = id, .score = piece->score};
    }
    return true;
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

static void set_merges(qp_bpe_t *bpe, pairs_t *pairs)
{
    if (pairs->n > 0)
        qsort(pairs->pair, (size_t)pairs->n, sizeof *pairs->pair, by_score);
    qp_pairmap_init(&bpe->merge, pairs->n);
    uint32_t rank = 0;
    for (int64_t i = 0; i < pairs->n; i++) {
        const pair_t *pair = &pairs->pair[i];
        if (i > 0 && pair->score < pairs->pair[i - 1].score)
            rank++;
        qp_pairmap_put(&bpe->merge, pair->left, pair->right, rank, pair->id);
    }
}

/* Fills tokenizer->bpe if the model allows it; else the library goes on encoding. */
static void take_over_encoding(qp_tokenizer_t *tokenizer, const qp_sp_proto_t *proto)
{
    qp_bpe_t *bpe = &tokenizer->bpe;
    pairs_t pairs = {0};
    qp_textmap_t id_of = {
        0}; /* of normal pieces: control, byte and unknown ones never stand in a text */
    const char **text = QP_NEW("tokenizer", const char *, proto->n_piece);
    size_t *n_text = QP_NEW("tokenizer", size_t, proto->n_piece);
    for (int64_t i = 0; i < proto->n_piece; i++) {
        if (proto->piece[i].type != QP_SP_NORMAL)
            continue;
        text[i] = proto->piece[i].text;
        n_text[i] = proto->piece[i].n_text;
        qp_textmap_put(&id_of, text[i], n_text[i], (int32_t)i);
    }
    bool ok = is_plain(proto) && qp_textmap_get(&id_of, QP_METASPACE, strlen(QP_METASPACE)) >= 0;
    for (int64_t i = 0; ok && i < proto->n_piece; i++)
        if (text[i] != NULL)
            ok = add_pairs(&id_of, &proto->piece[i], (int32_t)i, &pairs);
    if (ok) {
        bpe->fuse_unk = true;
        bpe->byte_fallback = proto->byte_fallback;
        for (int64_t i = 0; i < proto->n_piece; i++)
            if (proto->piece[i].type == QP_SP_UNKNOWN)
                bpe->unk = (int32_t)i;
        qp_bpe_find_bytes(bpe, &tokenizer->vocab.id_of);
        set_merges(bpe, &pairs);
        qp_bpe_init_words(bpe, text, n_text, proto->n_piece);
        if (proto->dummy_prefix)
            tokenizer->rule[tokenizer->n_rule++] =
                (qp_normal_rule_t){.from = qp_strdup(""), .to = qp_strdup(QP_METASPACE)};
        tokenizer->rule[tokenizer->n_rule++] =
            (qp_normal_rule_t){.from = qp_strdup(" "), .to = qp_strdup(QP_METASPACE)};
        tokenizer->sp_decodes_only = true;
    }
    qp_textmap_fini(&id_of);
    qp_free(pairs.pair);
    qp_free(text);
    qp_free(n_text);
}

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
    qp_sp_proto_t proto;
    qp_error_t error = qp_sp_proto_read(model, n_bytes, &proto);
    if (error == NULL)
        take_over_encoding(tokenizer, &proto);
    qp_sp_proto_fini(&proto);
    return error;
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
