/**
 * \file sentencepiece_shim.h
 * C face of libsentencepiece. No exception leaves it. Functions that can fail return NULL, or a
 * message that the caller frees with qp_sp_message_free().
 */
#ifndef QP_TEXT_SENTENCEPIECE_SHIM_H
#define QP_TEXT_SENTENCEPIECE_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qp_sp qp_sp_t;

/** Loads a serialised ModelProto. */
char *qp_sp_create(const void *model, size_t n_bytes, qp_sp_t **sp);
void qp_sp_destroy(qp_sp_t *sp);
void qp_sp_message_free(char *message);

/** Calls push() with every id of the text and the bytes [begin, end) that it comes from; no BOS or
 * EOS. */
char *qp_sp_encode(const qp_sp_t *sp, const char *text, size_t n_bytes,
                   void (*push)(void *owner, int32_t id, size_t begin, size_t end), void *owner);
/** Calls put(owner, text, n_bytes) once with the text of the ids. */
char *qp_sp_decode(const qp_sp_t *sp, const int32_t *id, size_t n,
                   void (*put)(void *owner, const char *text, size_t n_bytes), void *owner);

int32_t qp_sp_n_vocab(const qp_sp_t *sp);
int32_t qp_sp_bos(const qp_sp_t *sp); /**< -1: none */
int32_t qp_sp_eos(const qp_sp_t *sp); /**< -1: none */
/** Text of a piece; valid while sp lives. */
const char *qp_sp_piece(const qp_sp_t *sp, int32_t id);
int qp_sp_is_control(const qp_sp_t *sp, int32_t id);
int32_t qp_sp_unk(const qp_sp_t *sp); /**< -1: none */

#ifdef __cplusplus
}
#endif

#endif
