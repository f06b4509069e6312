/* Code in Markdown: between backticks, and in fenced blocks. */
#include <string.h>

#include "markdown/markdown_writer.h"

/* One backtick more than the longest run inside. */
static int fence_length(const char *text, int least)
{
    int longest = least - 1, run = 0;
    for (; *text != '\0'; text++) {
        run = *text == '`' ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest + 1;
}

static void put_fence(qp_md_t *w, int n)
{
    for (int i = 0; i < n; i++)
        qp_str_putc(w->out, '`');
}

void qp_md_code(qp_md_t *w, char *code)
{
    for (char *c = code; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    const size_t n = strlen(code);
    if (n == 0)
        return;
    const int fence = fence_length(code, 1);
    const bool pad = code[0] == '`' || code[n - 1] == '`';
    qp_md_flush(w);
    put_fence(w, fence);
    qp_str_puts(w->out, pad ? " " : "");
    qp_str_append(w->out, code, n);
    qp_str_puts(w->out, pad ? " " : "");
    put_fence(w, fence);
}

/* The language in "lang-c ..." or "language-c" of one of the classes, the first that has one. */
static qp_str_t language_of(const char *const classes[2])
{
    static const char *const marks[] = {"language-", "lang-"};
    qp_str_t language = {0};
    for (size_t i = 0; i < 4 && language.n == 0; i++) {
        const char *found = strstr(classes[i / 2], marks[i % 2]);
        if (found == NULL)
            continue;
        found += strlen(marks[i % 2]);
        qp_str_append(&language, found, strcspn(found, " \t\n`"));
    }
    if (language.n == 0 || strcmp(language.data, "none") == 0)
        qp_str_clear(&language);
    return language;
}

/* Lines [code, code + n), each behind the prefix. */
static void put_lines(qp_md_t *w, const char *code, size_t n)
{
    for (const char *line = code; line < code + n;) {
        size_t length = strcspn(line, "\n");
        if (line + length > code + n)
            length = (size_t)(code + n - line);
        const size_t shown = length > 0 && line[length - 1] == '\r' ? length - 1 : length;
        qp_md_line(w, line, shown);
        line += length + 1;
    }
}

void qp_md_code_block(qp_md_t *w, const char *text, const char *class_of_pre,
                      const char *class_of_code)
{
    const char *code = text + strspn(text, "\r\n");
    size_t n = strlen(code);
    while (n > 0 && strchr(" \t\r\n", code[n - 1]) != NULL)
        n--;
    if (n == 0)
        return;
    const int fence = fence_length(code, 3);
    qp_str_t language = language_of((const char *const[]){class_of_pre, class_of_code});
    qp_md_block(w, 2);
    qp_md_flush(w);
    put_fence(w, fence);
    qp_str_append(w->out, language.data, language.n);
    put_lines(w, code, n);
    qp_md_line(w, "```", 3);
    put_fence(w, fence - 3);
    qp_md_block(w, 2);
    qp_str_fini(&language);
}
