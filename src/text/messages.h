/**
 * \file messages.h
 * Turns of conversations, as chat templates and ShareGPT write them, to the messages that a chat
 * template is given.
 */
#ifndef QP_TEXT_MESSAGES_H
#define QP_TEXT_MESSAGES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/**
 * Appends the turns of a list to \a messages. {"role", "content"}: as they are, but a content that
 * is a list of text parts becomes their text. {"from", "value"}: under the usual names of the
 * roles; one that is not known sets *unknown_role. Something wrong: QP_INPUT that begins with \a
 * key or a key of the turn. Not collective, thread-safe.
 */
qp_error_t qp_messages_append(const char *key, const json_t *list, json_t *messages,
                              bool *unknown_role);
/**
 * What else the template is given: "tools", the schemas of tools as a list or its text, and
 * "chat_template_kwargs". NULL where the row has none; the caller's (json_decref), also on failure.
 * Another type: QP_INPUT.
 */
qp_error_t qp_messages_context(const json_t *row, json_t **tools, json_t **variables);
/** Puts the "system" of a row, where it has one, before messages that stand under another key.
 * Another type: QP_INPUT. */
qp_error_t qp_messages_insert_system(const json_t *row, json_t *messages);
/** Appends one message; \a content [n_bytes] is UTF-8. */
void qp_messages_push(json_t *messages, const char *role, const char *content, size_t n_bytes);

bool qp_message_has_role(const json_t *message, const char *role);
/** Neither text nor a call of a tool is in it. */
bool qp_message_is_empty(const json_t *message);
/** The assistant speaks, and never without saying something. */
bool qp_messages_answered(const json_t *messages);
/** How many messages two lists begin with in common. */
size_t qp_messages_shared(const json_t *a, const json_t *b);

#endif
