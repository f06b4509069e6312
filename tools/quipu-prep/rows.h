/** \file rows.h  Rows of JSON, as others write them, to what samples are made of. */
#ifndef QUIPU_PREP_ROWS_H
#define QUIPU_PREP_ROWS_H

#include "prep.h"

/** What a row holds: strings, or (is_chat) a conversation. Zero-initialise; texts live as long as
 * its JSON. */
typedef struct {
    prep_kind_t kind;
    bool is_chat;
    prep_text_t prompt, answer[2]; /**< a text of kind SFT without prompt: whole */
    bool whole;                    /**< answer[0] is a text, not a completion */
    prep_chat_t chat;
    qp_str_t built;  /**< a prompt that is put together here */
    prep_skip_t why; /**< where the row makes no sample; PREP_N_SKIP: it may make one */
    uint64_t group;
} prep_row_t;

/**
 * Reads a row. The form follows from the keys that have values (null: none); of several the first
 * of a wanted kind. Alpaca rows are conversations where \a has_template. What is wrong: QP_INPUT,
 * row->why says what of; what gives nothing to learn: row->why alone.
 */
qp_error_t prep_row_read(const json_t *json, const bool wanted[PREP_N_KIND], bool has_template,
                         prep_row_t *row);
void prep_row_fini(prep_row_t *row);

#endif
