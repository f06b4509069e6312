#include "text/tokenizer_added.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"

struct qp_added_node {
    char byte;
    bool is_token;
    int32_t sibling, child; /* 0: none (node 0 is not used) */
    qp_added_t token;
};

void qp_added_fini(qp_added_set_t *set)
{
    QP_FREE(set->node);
    *set = (qp_added_set_t){0};
}

static int32_t new_node(qp_added_set_t *set, char byte, int32_t sibling)
{
    if (set->n_node == 0)
        set->n_node = 1;
    if (set->n_node >= set->capacity) {
        set->capacity = 2 * set->capacity + 64;
        set->node = qp_realloc("tokenizer", set->node, qp_bytes(set->capacity, sizeof *set->node));
    }
    set->node[set->n_node] = (qp_added_node_t){.byte = byte, .sibling = sibling};
    return set->n_node++;
}

static int32_t child_of(const qp_added_set_t *set, int32_t node, char byte)
{
    int32_t child = set->node[node].child;
    while (child != 0 && set->node[child].byte != byte)
        child = set->node[child].sibling;
    return child;
}

void qp_added_put(qp_added_set_t *set, const char *text, size_t n_bytes, qp_added_t token)
{
    QP_ASSERT(n_bytes > 0);
    int32_t *root = &set->first[(unsigned char)text[0]];
    if (*root == 0)
        *root = new_node(set, text[0], 0);
    int32_t at = *root;
    for (size_t i = 1; i < n_bytes; i++) {
        int32_t child = child_of(set, at, text[i]);
        if (child == 0) {
            child = new_node(set, text[i], set->node[at].child);
            set->node[at].child = child;
        }
        at = child;
    }
    set->node[at].is_token = true;
    set->node[at].token = token;
}

/* The longest token that starts at text[0]; its length, or 0. */
static size_t longest(const qp_added_set_t *set, const char *text, size_t n_bytes,
                      qp_added_t *token)
{
    size_t length = 0;
    int32_t at = set->first[(unsigned char)text[0]];
    for (size_t i = 1; at != 0; i++) {
        if (set->node[at].is_token) {
            *token = set->node[at].token;
            length = i;
        }
        at = i < n_bytes ? child_of(set, at, text[i]) : 0;
    }
    return length;
}

/* Moves back over white space, not before \a from. */
static size_t strip_left(const char *text, size_t from, size_t begin)
{
    while (begin > from) {
        size_t n, at = begin - 1;
        while (at > from && ((unsigned char)text[at] & 0xc0) == 0x80)
            at--;
        if (!qp_utf8_is_space(qp_utf8_decode(text + at, &n)))
            break;
        begin = at;
    }
    return begin;
}

static size_t strip_right(const char *text, size_t n_bytes, size_t end)
{
    size_t n;
    while (end < n_bytes && qp_utf8_is_space(qp_utf8_decode(text + end, &n)))
        end += n;
    return end;
}

bool qp_added_find(const qp_added_set_t *set, const char *text, size_t n_bytes, size_t from,
                   bool parse_special, qp_added_match_t *match)
{
    if (set->n_node == 0)
        return false;
    for (size_t i = from; i < n_bytes; i++) {
        if (set->first[(unsigned char)text[i]] == 0)
            continue;
        size_t length = longest(set, text + i, n_bytes - i, &match->token);
        if (length == 0)
            continue;
        if (match->token.special && !parse_special) { /* a special token shadows what it covers */
            i += length - 1;
            continue;
        }
        match->begin = match->token.lstrip ? strip_left(text, from, i) : i;
        match->end = match->token.rstrip ? strip_right(text, n_bytes, i + length) : i + length;
        return true;
    }
    return false;
}
