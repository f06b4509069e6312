/* Looking into a deck. */
#include <string.h>

#include "deck/deck_impl.h"

qp_deck_value_t *qp_deck_find(const qp_deck_t *deck, const char *path)
{
    for (int i = 0; i < deck->n_value; i++)
        if (strcmp(deck->value[i].key->path, path) == 0)
            return &deck->value[i];
    return NULL;
}

bool qp_deck_applies(const qp_deck_t *deck, const qp_deck_group_t *group)
{
    return group->methods == NULL || deck->method == NULL ||
           qp_deck_find_item(group->methods, deck->method, deck->method_length) >= 0;
}

char *qp_deck_where(const qp_deck_t *deck, const char *path)
{
    const qp_deck_value_t *value = qp_deck_find(deck, path);
    if (value != NULL && value->source == QP_DECK_FILE)
        return qp_format("%s:%d: %s", deck->name, value->line, path);
    if (value != NULL && value->source == QP_DECK_SET)
        return qp_format("--set %s", path);
    return qp_format("%s (default)", path);
}
