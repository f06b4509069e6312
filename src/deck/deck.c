/* Reading a deck: parse, compare with the schema, report everything at once. */
#include "deck/deck.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "deck/deck_impl.h"

/* A deck in the making, and what is wrong with it. */
typedef struct {
    qp_deck_t *deck;
    const qp_deck_group_t *const *groups;
    int n_group;
    qp_str_t problems; /* "where: what", joined by QP_ERROR_NEXT */
} reader_t;

static void add_problem(reader_t *r, const char *where, const char *what)
{
    qp_str_printf(&r->problems, "%s%s: %s", r->problems.n > 0 ? QP_ERROR_NEXT : "", where, what);
}

/* Both texts are freed. */
static void add_owned(reader_t *r, char *where, char *what)
{
    add_problem(r, where, what);
    qp_free(where);
    qp_free(what);
}

static char *at_line(const reader_t *r, const config_setting_t *s, const char *path)
{
    return qp_format("%s:%u: %s", r->deck->name, config_setting_source_line(s), path);
}

static qp_deck_t *new_deck(const char *name, const qp_deck_group_t *const *groups, int n_group)
{
    qp_deck_t *deck = QP_NEW("deck", qp_deck_t, 1);
    deck->name = qp_strdup(name);
    for (int g = 0; g < n_group; g++)
        deck->n_value += groups[g]->n_key;
    deck->value = QP_NEW("deck", qp_deck_value_t, deck->n_value);
    qp_deck_value_t *value = deck->value;
    for (int g = 0; g < n_group; g++)
        for (int k = 0; k < groups[g]->n_key; k++)
            *value++ = (qp_deck_value_t){.key = &groups[g]->keys[k], .group = groups[g]};
    return deck;
}

void qp_deck_destroy(qp_deck_t **deck)
{
    if (*deck == NULL)
        return;
    for (int i = 0; i < (*deck)->n_value; i++)
        qp_deck_value_fini(&(*deck)->value[i]);
    qp_free((*deck)->value);
    qp_free((*deck)->name);
    QP_FREE(*deck);
}

/* --- what is wrong ---------------------------------------------------------------------------- */

static char *unknown_key(const reader_t *r, const char *path)
{
    const qp_deck_t *deck = r->deck;
    const char **names = QP_NEW("deck", const char *, deck->n_value);
    for (int i = 0; i < deck->n_value; i++)
        names[i] = deck->value[i].key->path;
    const char *nearest = qp_nearest(path, names, deck->n_value);
    qp_free(names);
    return nearest ? qp_format("unknown key; did you mean %s?", nearest) : qp_format("unknown key");
}

static char *unknown_group(const reader_t *r, const char *name)
{
    const char **names = QP_NEW("deck", const char *, r->n_group);
    for (int g = 0; g < r->n_group; g++)
        names[g] = r->groups[g]->group;
    const char *nearest = qp_nearest(name, names, r->n_group);
    qp_free(names);
    return nearest ? qp_format("unknown group; did you mean %s?", nearest)
                   : qp_format("unknown group");
}

/* The line of the text that libconfig stumbled over, without its indentation. */
static char *line_of(const char *text, int line)
{
    for (; line > 1 && strchr(text, '\n') != NULL; line--)
        text = strchr(text, '\n') + 1;
    text += strspn(text, " \t");
    return qp_format("%.*s", (int)strcspn(text, "\n"), text);
}

/* --- the sources of values -------------------------------------------------------------------- */

static void take_group(reader_t *r, const config_setting_t *group)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *s = config_setting_get_elem(group, (unsigned)i);
        char *path = qp_format("%s.%s", config_setting_name(group), config_setting_name(s));
        qp_deck_value_t *value = qp_deck_find(r->deck, path);
        char *what = value != NULL ? qp_deck_value_take(value, s) : unknown_key(r, path);
        if (what != NULL)
            add_owned(r, at_line(r, s, path), what);
        qp_free(path);
    }
}

static bool is_group(const reader_t *r, const char *name)
{
    for (int g = 0; g < r->n_group; g++)
        if (strcmp(r->groups[g]->group, name) == 0)
            return true;
    return false;
}

static void take_root(reader_t *r, const config_setting_t *root)
{
    for (int i = 0; i < config_setting_length(root); i++) {
        const config_setting_t *s = config_setting_get_elem(root, (unsigned)i);
        const char *name = config_setting_name(s);
        if (!is_group(r, name))
            add_owned(r, at_line(r, s, name), unknown_group(r, name));
        else if (!config_setting_is_group(s))
            add_owned(r, at_line(r, s, name), qp_format("expected a group: %s = { ... };", name));
        else
            take_group(r, s);
    }
}

static bool take_text(reader_t *r, const char *text)
{
    qp_str_t prepared = {0};
    qp_deck_scan(r->deck->name, text, &prepared, &r->problems);
    config_t config;
    config_init(&config);
    bool parsed = config_read_string(&config, prepared.n > 0 ? prepared.data : "") == CONFIG_TRUE;
    if (parsed) {
        take_root(r, config_root_setting(&config));
    } else {
        char *line = line_of(text, config_error_line(&config));
        add_owned(r,
                  qp_format("%s:%d: %s", r->deck->name, config_error_line(&config),
                            config_error_text(&config)),
                  line);
    }
    config_destroy(&config);
    qp_str_fini(&prepared);
    return parsed;
}

/* --set path=value: replaces what the deck says. */
static void take_set(reader_t *r, const char *argument)
{
    const char *equals = strchr(argument, '=');
    size_t n = equals != NULL ? (size_t)(equals - argument) : strlen(argument);
    while (n > 0 && argument[n - 1] == ' ')
        n--;
    char *path = qp_format("%.*s", (int)n, argument);
    qp_deck_value_t *value = qp_deck_find(r->deck, path);
    char *what = NULL;
    if (value == NULL)
        what = unknown_key(r, path);
    else if (equals == NULL)
        what = qp_format("expected --set %s=value", path);
    else
        what = qp_deck_value_parse(value, equals + 1);
    if (what != NULL)
        add_owned(r, qp_format("--set %s", path), what);
    else if (value != NULL)
        value->source = QP_DECK_SET;
    qp_free(path);
}

/* Nobody has said anything definite. */
static bool is_open(const qp_deck_value_t *value)
{
    size_t n = 0;
    const char *item = value->key->type == QP_DECK_CHOICE
                           ? qp_deck_item(value->key->choices, (int)value->is.i, &n)
                           : NULL;
    return value->source == QP_DECK_DEFAULT || value->source == QP_DECK_UNSET ||
           (item != NULL && n == strlen("auto") && memcmp(item, "auto", n) == 0);
}

static qp_error_t adopt(qp_deck_t *deck, const char *from, const char *line, size_t length)
{
    size_t n_path = strcspn(line, "=");
    QP_ASSERT(n_path < length);
    char *path = qp_format("%.*s", (int)n_path, line);
    char *text = qp_format("%.*s", (int)(length - n_path - 1), line + n_path + 1);
    qp_deck_value_t *value = qp_deck_find(deck, path);
    QP_ASSERT(value != NULL);
    qp_error_t error = NULL;
    if (is_open(value)) {
        char *what = qp_deck_value_parse(value, text);
        if (what != NULL)
            error = QP_ERROR(QP_INPUT, "%s: its %s: %s", from, path, what);
        qp_free(what);
        value->source = QP_DECK_ADOPTED;
        value->from = from;
    }
    qp_free(path);
    qp_free(text);
    return error;
}

qp_error_t qp_deck_adopt(qp_deck_t *deck, const char *from, const char *lines)
{
    while (*lines != '\0') {
        size_t length = strcspn(lines, "\n");
        QP_TRY(adopt(deck, from, lines, length));
        lines += length + (lines[length] == '\n');
    }
    return NULL;
}

static void find_method(qp_deck_t *deck)
{
    const qp_deck_value_t *method = qp_deck_find(deck, "job.method");
    if (method != NULL && method->source != QP_DECK_UNSET)
        deck->method = qp_deck_item(method->key->choices, (int)method->is.i, &deck->method_length);
}

/* Required keys, keys of groups that this method does not use, defaults. */
static void complete(reader_t *r)
{
    qp_deck_t *deck = r->deck;
    for (int i = 0; i < deck->n_value; i++) {
        qp_deck_value_t *value = &deck->value[i];
        bool given = value->source != QP_DECK_UNSET;
        const qp_deck_key_t *key = value->key;
        if (given && !qp_deck_applies(deck, value->group))
            add_owned(r, qp_deck_where(deck, key->path),
                      qp_format("group %s is for job.method = %s, not \"%.*s\"",
                                value->group->group, value->group->methods,
                                (int)deck->method_length, deck->method));
        bool certain = value->group->methods == NULL || deck->method != NULL;
        if (!value->named && (key->flags & QP_DECK_REQUIRED) && certain &&
            qp_deck_applies(deck, value->group))
            add_owned(r, qp_format("%s: %s", deck->name, key->path),
                      qp_format("required key is missing (%s)", key->help));
        if (!given && key->value != NULL) {
            char *what = qp_deck_value_parse(value, key->value);
            QP_ASSERT(what == NULL); /* the schema's own default */
            value->source = QP_DECK_DEFAULT;
        }
    }
}

/* --- files ------------------------------------------------------------------------------------ */

/* What is wrong with a file or folder that is to be read, or NULL. */
static char *path_problem(const qp_deck_key_t *key, const char *path)
{
    const bool folder = (key->flags & QP_DECK_FOLDER) != 0;
    struct stat status;
    if (stat(path, &status) != 0 || access(path, R_OK) != 0) {
        const int reason = errno;
        if (reason == ENOENT && lstat(path, &status) == 0)
            return qp_format("%s: is a link to what is not there", path);
        return reason == ENOENT ? qp_format("no such file: %s", path)
                                : qp_format("%s: %s", path, strerror(reason));
    }
    if (S_ISDIR(status.st_mode) == folder)
        return NULL;
    return qp_format("%s: is %s, expected %s", path, qp_file_kind(status.st_mode),
                     folder ? "a folder" : "a file");
}

static void check_path(reader_t *r, const qp_deck_value_t *value, const char *path)
{
    char *problem = path_problem(value->key, path);
    if (problem != NULL)
        add_owned(r, qp_deck_where(r->deck, value->key->path), problem);
}

static void check_paths(reader_t *r)
{
    for (int i = 0; i < r->deck->n_value; i++) {
        const qp_deck_value_t *value = &r->deck->value[i];
        if (!(value->key->flags & QP_DECK_PATH) || value->source == QP_DECK_UNSET)
            continue;
        if (value->key->type == QP_DECK_STRING)
            check_path(r, value, value->is.s);
        for (int k = 0; value->key->type == QP_DECK_STRINGS && k < value->is.strings.n; k++)
            check_path(r, value, value->is.strings.item[k]);
    }
}

static qp_error_t read_deck(const char *name, const char *text,
                            const qp_deck_group_t *const *groups, int n_group,
                            const char *const *sets, int n_set, bool files, qp_deck_t **deck)
{
    reader_t r = {new_deck(name, groups, n_group), groups, n_group, {0}};
    if (take_text(&r, text)) {
        for (int i = 0; i < n_set; i++)
            take_set(&r, sets[i]);
        find_method(r.deck);
        complete(&r);
        if (files)
            check_paths(&r);
    }
    qp_error_t error = NULL;
    if (r.problems.n > 0) {
        error = QP_ERROR(QP_INPUT, "%s", r.problems.data);
        qp_deck_destroy(&r.deck);
    }
    qp_str_fini(&r.problems);
    *deck = r.deck;
    return error;
}

qp_error_t qp_deck_parse(const char *name, const char *text, const qp_deck_group_t *const *groups,
                         int n_group, const char *const *sets, int n_set, qp_deck_t **deck)
{
    return read_deck(name, text, groups, n_group, sets, n_set, false, deck);
}

qp_error_t qp_deck_read(qp_comm_t *comm, const char *path, const qp_deck_group_t *const *groups,
                        int n_group, const char *const *sets, int n_set, qp_deck_t **deck)
{
    bool reader = comm == NULL || qp_comm_rank(comm) == 0;
    void *text = NULL;
    size_t n_bytes = 0;
    *deck = NULL;
    qp_error_t error = reader ? qp_file_read(path, &text, &n_bytes) : NULL;
    if (error == NULL && text != NULL && memchr(text, '\0', n_bytes) != NULL)
        error = QP_ERROR(QP_INPUT, "%s: not a text file", path);
    n_bytes++; /* with its NUL */
    if (comm != NULL)
        error = qp_comm_agree(comm, error);
    if (error == NULL && comm != NULL)
        qp_comm_bcast_block(comm, &text, &n_bytes, 0);
    if (error == NULL) {
        error = read_deck(path, text, groups, n_group, sets, n_set, reader, deck);
        if (comm != NULL)
            error = qp_comm_agree(comm, error);
    }
    qp_free(text);
    if (error != NULL)
        qp_deck_destroy(deck);
    return error;
}
