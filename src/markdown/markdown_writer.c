#include "markdown/markdown_writer.h"

void qp_md_init(qp_md_t *w, qp_str_t *out)
{
    *w = (qp_md_t){.out = out, .start = out->n};
}

void qp_md_fini(qp_md_t *w)
{
    qp_str_fini(&w->prefix);
    qp_str_fini(&w->open);
    qp_str_fini(&w->marker);
}

bool qp_md_at_start(const qp_md_t *w)
{
    return w->out->n == w->start;
}

void qp_md_block(qp_md_t *w, int n)
{
    if (w->in_table > 0) {
        w->space = true;
        return;
    }
    w->space = false;
    if (w->marker.n > 0) /* right behind a list marker */
        return;
    if (w->n_newline == 0 || w->prefix.n < w->blank_prefix)
        w->blank_prefix = w->prefix.n;
    if (w->n_newline < n)
        w->n_newline = n;
}

static void put_prefix(qp_md_t *w, size_t n, bool blank)
{
    while (blank && n > 0 && w->prefix.data[n - 1] == ' ')
        n--;
    qp_str_append(w->out, w->prefix.data, n);
}

void qp_md_flush(qp_md_t *w)
{
    bool new_line = qp_md_at_start(w) || w->n_newline > 0;
    if (!qp_md_at_start(w)) {
        if (w->hard_break && w->n_newline == 1)
            qp_str_puts(w->out, "  ");
        for (int i = 0; i < w->n_newline; i++) {
            qp_str_putc(w->out, '\n');
            if (i + 1 < w->n_newline)
                put_prefix(w, w->blank_prefix, true);
        }
    }
    if (new_line) {
        put_prefix(w, w->prefix.n - w->marker.n, false);
        qp_str_append(w->out, w->marker.data, w->marker.n);
        qp_str_clear(&w->marker);
    } else if (w->space) {
        qp_str_putc(w->out, ' ');
    }
    w->n_newline = 0;
    w->hard_break = w->space = false;
    qp_str_append(w->out, w->open.data, w->open.n);
    qp_str_clear(&w->open);
}

static bool is_space(const char *text, size_t *n)
{
    *n = 1;
    if (*text == ' ' || *text == '\n' || *text == '\t' || *text == '\r' || *text == '\f')
        return true;
    *n = 2; /* U+00A0 */
    return (unsigned char)text[0] == 0xc2 && (unsigned char)text[1] == 0xa0;
}

void qp_md_text(qp_md_t *w, const char *text)
{
    while (*text != '\0') {
        size_t n;
        if (is_space(text, &n)) {
            w->space = w->space || (!qp_md_at_start(w) && w->n_newline == 0);
            text += n;
            continue;
        }
        const char *end = text;
        while (*end != '\0' && !is_space(end, &n))
            end++;
        qp_md_flush(w);
        for (const char *c = text; c < end; c++) {
            if (*c == '|' && w->in_table > 0)
                qp_str_putc(w->out, '\\');
            qp_str_putc(w->out, *c);
        }
        text = end;
    }
}

void qp_md_raw(qp_md_t *w, const char *text, size_t n)
{
    qp_md_flush(w);
    qp_str_append(w->out, text, n);
}

void qp_md_line(qp_md_t *w, const char *text, size_t n)
{
    qp_str_putc(w->out, '\n');
    put_prefix(w, w->prefix.n, n == 0);
    qp_str_append(w->out, text, n);
}

void qp_md_push(qp_md_t *w, const char *text)
{
    qp_str_puts(&w->prefix, text);
    if (w->marker.n > 0) /* the line of a list marker that was not written yet */
        qp_str_puts(&w->marker, text);
}

static void cut(qp_str_t *s, size_t n)
{
    s->n -= n;
    s->data[s->n] = '\0';
}

void qp_md_pop(qp_md_t *w, size_t n)
{
    cut(&w->prefix, n);
    if (w->marker.n > 0) /* nothing was written: an empty item leaves no trace */
        cut(&w->marker, n);
    if (w->n_newline > 0 && w->blank_prefix > w->prefix.n)
        w->blank_prefix = w->prefix.n;
}

void qp_md_push_item(qp_md_t *w, const char *marker)
{
    for (const char *c = marker; *c != '\0'; c++)
        qp_str_putc(&w->prefix, ' ');
    qp_str_puts(&w->marker, marker);
}
