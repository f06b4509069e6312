#include "markdown/markdown.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/HTMLparser.h>
#include <libxml/parser.h>
#include <libxml/tree.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "markdown/markdown_writer.h"

enum { MAX_DEPTH = 400 }; /* what nests deeper is written as its plain text */

/* --- elements --------------------------------------------------------------------------------- */

typedef struct element element_t;
typedef void render_t(qp_md_t *w, const xmlNode *node, const element_t *element);
struct element {
    const char *name;
    render_t *render;
    const char *open, *close; /* marks around the contents */
};

static void children(qp_md_t *w, const xmlNode *node);
static void render_node(qp_md_t *w, const xmlNode *node);

/* Attribute value (qp_free), "" when absent. */
static char *attribute(const xmlNode *node, const char *name)
{
    xmlChar *value = xmlGetProp(node, BAD_CAST name);
    char *copy = qp_strdup(value != NULL ? (const char *)value : "");
    xmlFree(value);
    return copy;
}

static const char *attribute_view(const xmlNode *node, const char *name)
{
    const xmlAttr *found = xmlHasProp(node, BAD_CAST name);
    return found != NULL && found->children != NULL ? (const char *)found->children->content : NULL;
}

static void skip(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)w, (void)node, (void)element;
}

/* Puts marks around what is inside; nothing inside: no marks. White space stays outside of them. */
static void mark(qp_md_t *w, const xmlNode *node, const char *open, const char *close)
{
    size_t waiting = w->open.n;
    qp_str_puts(&w->open, open);
    children(w, node);
    if (w->open.n == waiting + strlen(open)) { /* still pending: it was empty */
        w->open.n = waiting;
        w->open.data[waiting] = '\0';
    } else {
        qp_str_puts(w->out, close);
    }
}

static void render_mark(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    mark(w, node, element->open, element->close);
}

static void render_block(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    qp_md_block(w, 2);
    children(w, node);
    qp_md_block(w, 2);
}

static void render_heading(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    qp_md_block(w, 2);
    mark(w, node, element->open, "");
    qp_md_block(w, 2);
}

static void render_break(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)node, (void)element;
    if (!qp_md_at_start(w) && w->n_newline < 2 && w->open.n == 0) {
        bool second = w->hard_break;
        qp_md_block(w, second ? 2 : 1);
        w->hard_break = !second && w->in_table == 0;
    }
}

static void render_rule(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)node, (void)element;
    qp_md_block(w, 2);
    qp_md_raw(w, "---", 3);
    qp_md_block(w, 2);
}

static void render_quote(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    qp_md_block(w, 2);
    qp_md_push(w, "> ");
    children(w, node);
    qp_md_pop(w, 2);
    qp_md_block(w, 2);
}

static int list_depth(const xmlNode *node)
{
    int depth = 0;
    for (node = node->parent; node != NULL; node = node->parent)
        depth += node->name != NULL && (strcmp((const char *)node->name, "ul") == 0 ||
                                        strcmp((const char *)node->name, "ol") == 0);
    return depth;
}

static void render_item(qp_md_t *w, const xmlNode *node, const char *marker)
{
    qp_md_block(w, 1);
    qp_md_push_item(w, marker);
    children(w, node);
    qp_md_pop(w, strlen(marker));
    qp_md_block(w, 1);
}

static void render_list(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    int gap = list_depth(node) > 0 ? 1 : 2;
    bool ordered = strcmp(element->name, "ol") == 0;
    const char *start = ordered ? attribute_view(node, "start") : NULL;
    long number = start != NULL ? strtol(start, NULL, 10) : 1;
    qp_md_block(w, gap);
    for (const xmlNode *item = node->children; item != NULL; item = item->next) {
        if (item->type != XML_ELEMENT_NODE) {
            render_node(w, item); /* text between the items */
            continue;
        }
        char marker[32] = "- ";
        if (ordered)
            snprintf(marker, sizeof marker, "%ld. ", number++);
        render_item(w, item, marker);
    }
    qp_md_block(w, gap);
}

static void render_term(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    qp_md_block(w, 2);
    children(w, node);
    qp_md_block(w, 1);
}

static void render_definition(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    render_item(w, node, ": ");
}

static bool has_scheme(const char *url)
{
    size_t n = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return (n > 1 && url[n] == ':') || strncmp(url, "//", 2) == 0;
}

static void render_link(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    const char *href = attribute_view(node, "href");
    if (href == NULL || !has_scheme(href)) {
        children(w, node);
        return;
    }
    xmlChar *text = xmlNodeGetContent(node);
    if (strcmp((const char *)text, href) == 0) {
        qp_md_raw(w, "<", 1);
        qp_str_puts(w->out, href);
        qp_str_putc(w->out, '>');
    } else {
        char *close = qp_format("](%s)", href);
        mark(w, node, "[", close);
        qp_free(close);
    }
    xmlFree(text);
}

static void render_image(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    const char *source = attribute_view(node, "src");
    if (source == NULL || !has_scheme(source))
        return;
    char *alt = attribute(node, "alt");
    char *image = qp_format("![%s](%s)", alt, source);
    qp_md_raw(w, image, strlen(image));
    qp_free(image);
    qp_free(alt);
}

/* --- code: how it is written, markdown_code.c ------------------------------------------------- */

static void render_code(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    xmlChar *text = xmlNodeGetContent(node);
    qp_md_code(w, (char *)text);
    xmlFree(text);
}

/* The language may stand at pre, or at the code inside. */
static void render_pre(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    if (w->in_table > 0) {
        render_code(w, node, element);
        return;
    }
    const xmlNode *inside = node->children;
    const bool whole = inside != NULL && inside->type == XML_ELEMENT_NODE;
    char *of_pre = attribute(node, "class");
    char *of_code = whole ? attribute(inside, "class") : qp_strdup("");
    xmlChar *text = xmlNodeGetContent(node);
    qp_md_code_block(w, (const char *)text, of_pre, of_code);
    xmlFree(text);
    qp_free(of_pre);
    qp_free(of_code);
}

/* --- tables ----------------------------------------------------------------------------------- */

static bool is_named(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

/* "| a | b |", and under the first row "| --- | --- |". */
static void render_row(qp_md_t *w, const xmlNode *row, int *n_row)
{
    int n_cell = 0;
    qp_md_block(w, 1);
    qp_md_flush(w);
    qp_str_putc(w->out, '|');
    w->in_table++;
    for (const xmlNode *cell = row->children; cell != NULL; cell = cell->next) {
        w->space = true;
        if (!is_named(cell, "td") && !is_named(cell, "th")) {
            render_node(w, cell); /* text between the cells */
            continue;
        }
        children(w, cell);
        w->space = false;
        qp_str_puts(w->out, " |");
        n_cell++;
    }
    w->in_table--;
    if ((*n_row)++ == 0) {
        qp_md_block(w, 1);
        qp_md_flush(w);
        qp_str_putc(w->out, '|');
        for (int i = 0; i < n_cell; i++)
            qp_str_puts(w->out, " --- |");
    }
}

static void render_rows(qp_md_t *w, const xmlNode *node, int *n_row)
{
    for (const xmlNode *child = node->children; child != NULL; child = child->next) {
        if (is_named(child, "tr"))
            render_row(w, child, n_row);
        else if (is_named(child, "thead") || is_named(child, "tbody") || is_named(child, "tfoot"))
            render_rows(w, child, n_row);
        else
            render_node(w, child); /* a caption, text between the rows */
    }
}

static void render_table(qp_md_t *w, const xmlNode *node, const element_t *element)
{
    (void)element;
    int n_row = 0;
    if (w->in_table > 0) { /* a table in a cell */
        children(w, node);
        return;
    }
    qp_md_block(w, 2);
    render_rows(w, node, &n_row);
    qp_md_block(w, 2);
}

/* --- the table of elements; what is not in it shows its contents ------------------------------ */

static const element_t elements[] = {
    {"p", render_block, NULL, NULL},
    {"div", render_block, NULL, NULL},
    {"section", render_block, NULL, NULL},
    {"article", render_block, NULL, NULL},
    {"caption", render_block, NULL, NULL},
    {"dl", render_block, NULL, NULL},
    {"dt", render_term, NULL, NULL},
    {"dd", render_definition, NULL, NULL},
    {"h1", render_heading, "# ", NULL},
    {"h2", render_heading, "## ", NULL},
    {"h3", render_heading, "### ", NULL},
    {"h4", render_heading, "#### ", NULL},
    {"h5", render_heading, "##### ", NULL},
    {"h6", render_heading, "###### ", NULL},
    {"em", render_mark, "*", "*"},
    {"i", render_mark, "*", "*"},
    {"strong", render_mark, "**", "**"},
    {"b", render_mark, "**", "**"},
    {"del", render_mark, "~~", "~~"},
    {"s", render_mark, "~~", "~~"},
    {"strike", render_mark, "~~", "~~"},
    {"sub", render_mark, "<sub>", "</sub>"},
    {"sup", render_mark, "<sup>", "</sup>"},
    {"kbd", render_mark, "<kbd>", "</kbd>"},
    {"a", render_link, NULL, NULL},
    {"img", render_image, NULL, NULL},
    {"br", render_break, NULL, NULL},
    {"hr", render_rule, NULL, NULL},
    {"blockquote", render_quote, NULL, NULL},
    {"ul", render_list, NULL, NULL},
    {"ol", render_list, NULL, NULL},
    {"code", render_code, NULL, NULL},
    {"tt", render_code, NULL, NULL},
    {"pre", render_pre, NULL, NULL},
    {"table", render_table, NULL, NULL},
    {"head", skip, NULL, NULL},
    {"script", skip, NULL, NULL},
    {"style", skip, NULL, NULL},
};

static const element_t *find_element(const xmlChar *name)
{
    for (size_t i = 0; i < sizeof elements / sizeof elements[0]; i++)
        if (strcmp((const char *)name, elements[i].name) == 0)
            return &elements[i];
    return NULL;
}

static void render_node(qp_md_t *w, const xmlNode *node)
{
    if (node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE) {
        qp_md_text(w, (const char *)node->content);
    } else if (node->type == XML_ELEMENT_NODE) {
        const element_t *element = find_element(node->name);
        if (element != NULL)
            element->render(w, node, element);
        else
            children(w, node);
    }
}

/* The next node in the order of the document, in or behind this one; NULL behind \a root. */
static const xmlNode *next_node(const xmlNode *node, const xmlNode *root, bool enter)
{
    if (enter && node->type == XML_ELEMENT_NODE && node->children != NULL)
        return node->children;
    while (node != root && node->next == NULL)
        node = node->parent;
    return node != root ? node->next : NULL;
}

/* The text alone, without a call per element. */
static void plain_text(qp_md_t *w, const xmlNode *root)
{
    bool enter = true;
    for (const xmlNode *node = root; node != NULL; node = next_node(node, root, enter)) {
        const element_t *element = node->type == XML_ELEMENT_NODE ? find_element(node->name) : NULL;
        enter = element == NULL || element->render != skip;
        if (node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE)
            qp_md_text(w, (const char *)node->content);
        else if (element != NULL && element->render != render_mark)
            w->space = w->space || !qp_md_at_start(w); /* no word runs into the one before */
    }
}

static void children(qp_md_t *w, const xmlNode *node)
{
    if (w->depth == MAX_DEPTH) {
        plain_text(w, node);
        return;
    }
    w->depth++;
    for (const xmlNode *child = node->children; child != NULL; child = child->next)
        render_node(w, child);
    w->depth--;
}

/* *document is NULL when there is nothing but white space. */
static qp_error_t parse_html(const char *html, int n_bytes, htmlDocPtr *document)
{
    htmlParserCtxtPtr parser = htmlNewParserCtxt();
    qp_error_t error = NULL;
    QP_ASSERT(parser != NULL);
    parser->options |= XML_PARSE_HUGE; /* else text beyond 10 MB would be lost without a word */
    *document = htmlCtxtReadMemory(parser, html, n_bytes, NULL, "UTF-8",
                                   HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                       HTML_PARSE_NONET);
    if (parser->disableSAX != 0) { /* it gave up, and the rest is missing */
        const char *why = parser->lastError.message;
        error = QP_ERROR(QP_INPUT, "the HTML cannot be read to its end: %.*s",
                         why != NULL ? (int)strcspn(why, "\n") : 0, why != NULL ? why : "");
        xmlFreeDoc(*document);
    }
    htmlFreeParserCtxt(parser);
    return error;
}

qp_error_t qp_markdown_from_html(const char *html, size_t n_bytes, qp_str_t *markdown)
{
    qp_str_t repaired = {0};
    htmlDocPtr document = NULL;
    qp_error_t error = NULL;
    if (qp_utf8_valid_prefix(html, n_bytes) < n_bytes) { /* libxml2 would pass it on as it is */
        qp_utf8_repair(&repaired, html, n_bytes);
        html = repaired.data;
        n_bytes = repaired.n;
    }
    if (n_bytes > INT_MAX)
        error = QP_ERROR(QP_INPUT, "an HTML text of %zu bytes is too large", n_bytes);
    else if (n_bytes > 0)
        error = parse_html(html, (int)n_bytes, &document);
    if (error == NULL && document != NULL) {
        qp_md_t w;
        qp_md_init(&w, markdown);
        children(&w, (const xmlNode *)document);
        qp_md_fini(&w);
        xmlFreeDoc(document);
    }
    qp_str_fini(&repaired);
    return error;
}
