/* What becomes of the values: config structs, used.cfg, hash and fingerprint. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "deck/deck_impl.h"

static void fill(const qp_deck_value_t *value, void *field)
{
    switch (value->key->type) {
    case QP_DECK_BOOL:
        *(bool *)field = value->is.b;
        break;
    case QP_DECK_INT:
        *(int64_t *)field = value->is.i;
        break;
    case QP_DECK_FLOAT:
        *(double *)field = value->is.f;
        break;
    case QP_DECK_STRING:
        *(const char **)field = value->is.s;
        break;
    case QP_DECK_CHOICE:
        *(int *)field = (int)value->is.i;
        break;
    case QP_DECK_STRINGS:
        *(qp_deck_strings_t *)field =
            (qp_deck_strings_t){value->is.strings.n, (const char *const *)value->is.strings.item};
        break;
    case QP_DECK_INTS:
        *(qp_deck_ints_t *)field = (qp_deck_ints_t){value->is.ints.n, value->is.ints.item};
        break;
    }
}

void qp_deck_fill(const qp_deck_t *deck, const qp_deck_group_t *group, void *config)
{
    for (int i = 0; i < deck->n_value; i++)
        if (deck->value[i].group == group) /* absent ones have zero in their union */
            fill(&deck->value[i], (char *)config + deck->value[i].key->offset);
}

static void print_source(const qp_deck_t *deck, const qp_deck_value_t *value, qp_str_t *out)
{
    if (value->source == QP_DECK_FILE)
        qp_str_printf(out, "%s:%d", deck->name, value->line);
    else if (value->source == QP_DECK_ADOPTED)
        qp_str_puts(out, value->from);
    else
        qp_str_puts(out, value->source == QP_DECK_SET ? "--set" : "default");
}

static const char *key_name(const qp_deck_value_t *value)
{
    return value->key->path + strlen(value->group->group) + 1;
}

/* One line: name = value; # source */
static void echo_value(const qp_deck_t *deck, const qp_deck_value_t *value, qp_str_t *out)
{
    enum { COMMENT_COLUMN = 48 };
    if (value->source == QP_DECK_UNSET) {
        qp_str_printf(out, "    # %s is not given\n", key_name(value));
        return;
    }
    size_t start = out->n;
    qp_str_printf(out, "    %s = ", key_name(value));
    qp_deck_value_print(value, out);
    qp_str_putc(out, ';');
    size_t width = out->n - start;
    int blanks = width < COMMENT_COLUMN ? (int)(COMMENT_COLUMN - width) : 1;
    qp_str_printf(out, "%*s# ", blanks, "");
    print_source(deck, value, out);
    qp_str_putc(out, '\n');
}

void qp_deck_echo(const qp_deck_t *deck, const char *header, qp_str_t *out)
{
    for (const char *line = header; line != NULL && *line != '\0';) {
        size_t n = strcspn(line, "\n");
        qp_str_printf(out, "# %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
    const qp_deck_value_t *previous = NULL;
    for (int i = 0; i < deck->n_value; i++) {
        const qp_deck_value_t *value = &deck->value[i];
        if (!qp_deck_applies(deck, value->group))
            continue;
        if (previous == NULL || value->group != previous->group)
            qp_str_printf(out, "%s\n%s = {\n", previous != NULL ? "};\n" : "", value->group->group);
        previous = value;
        echo_value(deck, value, out);
    }
    qp_str_puts(out, previous != NULL ? "};\n" : "");
}

static int by_path(const void *a, const void *b)
{
    const qp_deck_value_t *x = a, *y = b;
    return strcmp(x->key->path, y->key->path);
}

/* Whether a checkpoint remembers the value. */
static bool is_kept(const qp_deck_t *deck, const qp_deck_value_t *value)
{
    return value->source != QP_DECK_UNSET && !(value->key->flags & QP_DECK_RESTART_OK) &&
           qp_deck_applies(deck, value->group);
}

void qp_deck_fingerprint(const qp_deck_t *deck, qp_str_t *out)
{
    qp_deck_value_t *sorted = QP_NEW("deck", qp_deck_value_t, deck->n_value); /* own nothing */
    size_t n = 0;
    for (int i = 0; i < deck->n_value; i++)
        if (is_kept(deck, &deck->value[i]))
            sorted[n++] = deck->value[i];
    qsort(sorted, n, sizeof sorted[0], by_path);
    for (size_t i = 0; i < n; i++) {
        qp_str_printf(out, "%s = ", sorted[i].key->path);
        qp_deck_value_print(&sorted[i], out);
        qp_str_putc(out, '\n');
    }
    qp_free(sorted);
}

/* Whoever gave it. */
static bool is_default(const qp_deck_value_t *value)
{
    if (value->key->value == NULL)
        return false;
    qp_deck_value_t standard = {.key = value->key, .group = value->group};
    char *what = qp_deck_value_parse(&standard, value->key->value);
    QP_ASSERT(what == NULL); /* the schema's own default */
    qp_str_t is = {0}, would_be = {0};
    qp_deck_value_print(value, &is);
    qp_deck_value_print(&standard, &would_be);
    const bool same = strcmp(is.data, would_be.data) == 0;
    qp_str_fini(&is);
    qp_str_fini(&would_be);
    qp_deck_value_fini(&standard);
    return same;
}

void qp_deck_at_default(const qp_deck_t *deck, qp_str_t *out)
{
    qp_str_putc(out, ' ');
    for (int i = 0; i < deck->n_value; i++)
        if (is_kept(deck, &deck->value[i]) && is_default(&deck->value[i]))
            qp_str_printf(out, "%s ", deck->value[i].key->path);
}

uint64_t qp_deck_hash(const qp_deck_t *deck)
{
    qp_str_t text = {0};
    qp_deck_fingerprint(deck, &text);
    uint64_t hash = qp_hash_bytes(text.data, text.n);
    qp_str_fini(&text);
    return hash;
}
