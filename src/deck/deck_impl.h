/** \file deck_impl.h  What is inside qp_deck_t; for the sources of this folder. */
#ifndef QP_DECK_DECK_IMPL_H
#define QP_DECK_DECK_IMPL_H

#include <libconfig.h>

#include "deck/deck.h"

/** Where a value comes from. */
typedef enum {
    QP_DECK_UNSET,
    QP_DECK_DEFAULT,
    QP_DECK_ADOPTED, /* from what another key names: qp_deck_adopt() */
    QP_DECK_FILE,
    QP_DECK_SET
} qp_deck_source_t;

/** One key of the schema and its value. */
typedef struct {
    const qp_deck_key_t *key;
    const qp_deck_group_t *group;
    qp_deck_source_t source;
    int line;         /**< in the deck */
    const char *from; /**< of an adopted value: the key that named its source; static */
    bool named;       /**< somebody gave it, rightly or wrongly */
    union {
        bool b;
        int64_t i; /**< QP_DECK_INT, and the index of a QP_DECK_CHOICE */
        double f;
        char *s;
        struct {
            int n;
            char **item;
        } strings;
        struct {
            int n;
            int64_t *item;
        } ints;
    } is;
} qp_deck_value_t;

struct qp_deck {
    char *name; /**< for messages */
    int n_value;
    qp_deck_value_t *value; /**< in the order of the schema */
    const char *method;     /**< job.method (a choice of its key's table), or NULL: not known */
    size_t method_length;
};

/** The item \a index of "a|b|c" and its length; NULL past the end. */
const char *qp_deck_item(const char *list, int index, size_t *length);
/** Position of a word in "a|b|c", or -1. */
int qp_deck_find_item(const char *list, const char *word, size_t length);

/** Whether a group is used with the deck's method (or the method is not known). */
bool qp_deck_applies(const qp_deck_t *deck, const qp_deck_group_t *group);

/** The value of a path, or NULL if the schema has no such key. */
qp_deck_value_t *qp_deck_find(const qp_deck_t *deck, const char *path);

/**
 * What libconfig 1.5 would let pass: integers are read with atoi, so every one gets the suffix L
 * and those beyond 64 bits are reported; \@include is refused. Text goes to \a out, a line per
 * problem
 * ("name:line: ...") to \a problems.
 */
void qp_deck_scan(const char *name, const char *text, qp_str_t *out, qp_str_t *problems);

/**
 * Checks a parsed setting against the key and stores it; the value's source stays as it is on
 * failure. Returns what is wrong ("expected an integer, found 1.5"; qp_free), or NULL.
 */
char *qp_deck_value_take(qp_deck_value_t *value, const config_setting_t *setting);
/** The same from text as it would stand behind "=" in a deck; strings may lack their quotes. */
char *qp_deck_value_parse(qp_deck_value_t *value, const char *text);
/** Appends the value as deck text that reads back exactly. */
void qp_deck_value_print(const qp_deck_value_t *value, qp_str_t *out);
void qp_deck_value_fini(qp_deck_value_t *value);

#endif
