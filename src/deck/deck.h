/**
 * \file deck.h
 * The deck: a libconfig file read once by rank 0, parsed by everybody from the same bytes, checked
 * against the schema tables of all modules at once. The tables stand in <module>_deck.c files; only
 * train/settings.c reads a deck.
 */
#ifndef QP_DECK_DECK_H
#define QP_DECK_DECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "comm/comm.h"

/** Types of a key and of the field it fills. */
typedef enum {
    QP_DECK_BOOL,    /**< bool */
    QP_DECK_INT,     /**< int64_t */
    QP_DECK_FLOAT,   /**< double; an integer in the deck is accepted */
    QP_DECK_STRING,  /**< const char *, owned by the deck; NULL when optional and absent */
    QP_DECK_CHOICE,  /**< int: index into choices */
    QP_DECK_STRINGS, /**< qp_deck_strings_t, owned by the deck; a lone string is a list of one */
    QP_DECK_INTS     /**< qp_deck_ints_t, owned by the deck; a lone integer is a list of one */
} qp_deck_type_t;

typedef struct {
    int n;
    const char *const *item;
} qp_deck_strings_t;

typedef struct {
    int n;
    const int64_t *item;
} qp_deck_ints_t;

enum {
    QP_DECK_REQUIRED = 1,   /**< no default; must be given (when its group is used: see methods) */
    QP_DECK_OPTIONAL = 2,   /**< no default; absent leaves NULL / the field's zero */
    QP_DECK_RESTART_OK = 4, /**< may change between a checkpoint and its continuation */
    QP_DECK_PATH = 8,       /**< a file to read, relative to the working directory */
    QP_DECK_NAME = 16,  /**< names or patterns of files: no control characters; PATH implies it */
    QP_DECK_FOLDER = 32 /**< with PATH: a folder to read */
};

/* clang-format off */
/** The type of keys that fill this member. */
#define QP_DECK_TYPE_OF(member)                                   \
    _Generic((member), bool: QP_DECK_BOOL, int64_t: QP_DECK_INT,  \
             double: QP_DECK_FLOAT, const char *: QP_DECK_STRING, \
             int: QP_DECK_CHOICE, qp_deck_ints_t: QP_DECK_INTS,   \
             qp_deck_strings_t: QP_DECK_STRINGS)
/* clang-format on */

/**
 * Type and offset of a key's row, for a member of a config struct. A type that is not the member's
 * does not compile: the size of an array would be negative.
 */
#define QP_DECK_FIELD(type, config, member) \
    type, offsetof(config, member) +        \
              0 * sizeof(char[QP_DECK_TYPE_OF(((config *)0)->member) == (type) ? 1 : -1])

/** One key: a row of a module's schema table. */
typedef struct {
    const char *path; /**< "lora.r" */
    qp_deck_type_t type;
    size_t offset;       /**< of the field in the module's config struct */
    const char *value;   /**< default as it would stand in a deck ("16", "\"cosine\""), or NULL */
    double min, max;     /**< inclusive range of numbers; both 0: unbounded */
    const char *choices; /**< "constant|linear|cosine" for QP_DECK_CHOICE */
    const char *unit;    /**< "tokens", "s", "" */
    const char *help;    /**< one sentence: capital letter, full stop */
    unsigned flags;
} qp_deck_key_t;

/** A module's part of the schema. */
typedef struct {
    const char *group;   /**< "lora" */
    const char *help;    /**< what the group is for: one sentence likewise */
    const char *methods; /**< NULL: always; or "sft|eval" for which job.method it applies */
    const qp_deck_key_t *keys;
    int n_key;
} qp_deck_group_t;

typedef struct qp_deck qp_deck_t;

/**
 * Reads and checks a deck. Collective over comm (NULL: this process alone). \a sets are the
 * --set path=value arguments. All problems (syntax, unknown key with nearest name, wrong type, out
 * of range, duplicate, missing) are reported in one QP_INPUT error, a line each, "file:line: ...".
 */
qp_error_t qp_deck_read(qp_comm_t *comm, const char *path, const qp_deck_group_t *const *groups,
                        int n_group, const char *const *sets, int n_set, qp_deck_t **deck);
/** The same from text; \a name stands for the file in messages. Not collective. For tests. */
qp_error_t qp_deck_parse(const char *name, const char *text, const qp_deck_group_t *const *groups,
                         int n_group, const char *const *sets, int n_set, qp_deck_t **deck);
void qp_deck_destroy(qp_deck_t **deck);

/**
 * Values that come with what another key names (\a from: "lora.init"): each line of \a lines is
 * "path=value" and replaces a default or a choice of "auto"; else what the deck or --set says
 * stays. A value that the schema does not allow: QP_INPUT. Same lines on all ranks.
 */
qp_error_t qp_deck_adopt(qp_deck_t *deck, const char *from, const char *lines);

/** Fills a module's config struct from its group (values and defaults). The deck must outlive it.
 */
void qp_deck_fill(const qp_deck_t *deck, const qp_deck_group_t *group, void *config);

/**
 * "file:line: lora.r" (or "--set" / "default") for messages of checks that the schema cannot
 * express.
 */
char *qp_deck_where(const qp_deck_t *deck, const char *path); /* caller's (qp_free) */

/**
 * used.cfg: every value with its source ("deck:12", "--set", "default") as a comment; feeding it
 * back gives the same hash. \a header is put on top, each line as a comment.
 */
void qp_deck_echo(const qp_deck_t *deck, const char *header, qp_str_t *out);

/** Hash of all values of keys without QP_DECK_RESTART_OK: a checkpoint stores it. */
uint64_t qp_deck_hash(const qp_deck_t *deck);
/** "path = value" lines of those keys, sorted; a checkpoint stores it to name what differs. */
void qp_deck_fingerprint(const qp_deck_t *deck, qp_str_t *out);
/** Those of these keys that hold their default, " " before and behind each: a checkpoint from
 * before there was such a key may lack it. */
void qp_deck_at_default(const qp_deck_t *deck, qp_str_t *out);

/** --deck-help [group]: plain text; and doc/deck.md: Markdown. Both from the tables alone. */
qp_error_t qp_deck_help(const qp_deck_group_t *const *groups, int n_group, const char *group,
                        qp_str_t *out);
void qp_deck_document(const qp_deck_group_t *const *groups, int n_group, qp_str_t *out);

#endif
