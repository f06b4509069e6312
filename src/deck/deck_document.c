/* The deck reference, from the schema tables alone. */
#include <string.h>

#include "base/mem.h"
#include "deck/deck_impl.h"

static const char *const type_name[] = {
    [QP_DECK_BOOL] = "bool",     [QP_DECK_INT] = "integer",   [QP_DECK_FLOAT] = "number",
    [QP_DECK_STRING] = "string", [QP_DECK_CHOICE] = "one of", [QP_DECK_STRINGS] = "strings",
    [QP_DECK_INTS] = "integers",
};

/* "one of "a", "b"" or the type's name; \a quote stands around each choice. */
static void print_type(const qp_deck_key_t *key, const char *quote, qp_str_t *out)
{
    qp_str_puts(out, type_name[key->type]);
    size_t length;
    const char *item;
    for (int i = 0; (item = qp_deck_item(key->choices, i, &length)) != NULL; i++)
        qp_str_printf(out, "%s%s\"%.*s\"%s", i == 0 ? " " : ", ", quote, (int)length, item, quote);
    if (key->min != 0.0 || key->max != 0.0)
        qp_str_printf(out, ", %.15g to %.15g", key->min, key->max);
    if (key->unit != NULL && key->unit[0] != '\0')
        qp_str_printf(out, ", %s", key->unit);
}

static void print_default(const qp_deck_key_t *key, const char *quote, qp_str_t *out)
{
    if (key->value != NULL)
        qp_str_printf(out, "%s%s%s", quote, key->value, quote);
    else
        qp_str_puts(out, key->flags & QP_DECK_REQUIRED ? "required" : "none");
}

static void print_methods(const qp_deck_group_t *group, qp_str_t *out)
{
    size_t length;
    const char *item;
    for (int i = 0; (item = qp_deck_item(group->methods, i, &length)) != NULL; i++)
        qp_str_printf(out, "%s\"%.*s\"", i == 0 ? "Only with job.method = " : " or ", (int)length,
                      item);
    if (group->methods != NULL)
        qp_str_puts(out, ".\n");
}

static void help_group(const qp_deck_group_t *group, qp_str_t *out)
{
    qp_str_printf(out, "%s: %s\n", group->group, group->help);
    print_methods(group, out);
    for (int i = 0; i < group->n_key; i++) {
        const qp_deck_key_t *key = &group->keys[i];
        qp_str_printf(out, "  %s  (", key->path);
        print_type(key, "", out);
        qp_str_puts(out, key->value != NULL ? "; default " : "; ");
        print_default(key, "", out);
        qp_str_printf(out, "%s)\n      %s\n",
                      key->flags & QP_DECK_RESTART_OK ? "; may change on restart" : "", key->help);
    }
}

qp_error_t qp_deck_help(const qp_deck_group_t *const *groups, int n_group, const char *group,
                        qp_str_t *out)
{
    bool found = false;
    for (int g = 0; g < n_group; g++) {
        if (group != NULL && strcmp(groups[g]->group, group) != 0)
            continue;
        qp_str_puts(out, found ? "\n" : "");
        help_group(groups[g], out);
        found = true;
    }
    if (found)
        return NULL;
    qp_str_t known = {0};
    for (int g = 0; g < n_group; g++)
        qp_str_printf(&known, " %s", groups[g]->group);
    qp_error_t error = QP_ERROR(QP_INPUT, "no deck group \"%s\"; there are:%s",
                                group != NULL ? group : "", known.n > 0 ? known.data : " none");
    qp_str_fini(&known);
    return error;
}

/* A cell of a table ends at a bar. */
static void print_cell(const char *text, qp_str_t *out)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            qp_str_putc(out, '\\');
        qp_str_putc(out, *text);
    }
}

void qp_deck_document(const qp_deck_group_t *const *groups, int n_group, qp_str_t *out)
{
    qp_str_puts(out,
                "# Deck reference\n\n"
                "Generated from the tables that read the deck, by `quipu --deck-markdown`.\n\n");
    for (int g = 0; g < n_group; g++) {
        const qp_deck_group_t *group = groups[g];
        qp_str_printf(out, "## %s\n\n%s\n", group->group, group->help);
        print_methods(group, out);
        qp_str_puts(out,
                    "\n| key | value | default | restart | meaning |\n|---|---|---|---|---|\n");
        for (int i = 0; i < group->n_key; i++) {
            const qp_deck_key_t *key = &group->keys[i];
            qp_str_printf(out, "| `%s` | ", key->path);
            print_type(key, "`", out);
            qp_str_puts(out, " | ");
            print_default(key, key->value != NULL ? "`" : "", out);
            qp_str_puts(out, key->flags & QP_DECK_RESTART_OK ? " | may change | " : " | fixed | ");
            print_cell(key->help, out);
            qp_str_puts(out, " |\n");
        }
        qp_str_puts(out, g + 1 < n_group ? "\n" : "");
    }
}
