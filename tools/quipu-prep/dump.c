/*
 * Posts.xml is a flat list of <row .../>, and no "<" can stand in an attribute: so the file is cut
 * before each "<", and each row is a little document of its own for the XML parser. Memory is that
 * of the longest row.
 */
#include "dump.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include <libxml/SAX2.h>
#include <libxml/parser.h>

#include "base/mem.h"
#include "formats/reader.h"
#include "base/utf8.h"

/* --- characters that XML forbids -------------------------------------------------------------- */

static bool is_xml_char(uint32_t c)
{
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0xd800) ||
           (c >= 0xe000 && c < 0xfffe) || (c >= 0x10000 && c < 0x110000);
}

/* The bytes of a reference "&#14;" or "&#xE;" at text, 0: there is none; *c gets its character. */
static size_t numeric_reference(const char *text, size_t n, uint32_t *c)
{
    enum { BEYOND = 0x110000 };
    const bool hex = n > 3 && text[2] == 'x';
    size_t i = hex ? 3 : 2;
    const size_t first = i;
    if (n < 4 || text[0] != '&' || text[1] != '#')
        return 0;
    for (*c = 0;
         i < n && (hex ? isxdigit((unsigned char)text[i]) : isdigit((unsigned char)text[i])); i++) {
        const uint32_t digit = isdigit((unsigned char)text[i])
                                   ? (uint32_t)(text[i] - '0')
                                   : (uint32_t)((text[i] | 32) - 'a') + 10;
        *c = *c >= BEYOND ? BEYOND : *c * (hex ? 16 : 10) + digit;
    }
    return i > first && i < n && text[i] == ';' ? i + 1 : 0;
}

/* The next character, as bytes or as a reference; *c is 0 for a byte that is none. */
static size_t next_character(const char *text, size_t n, uint32_t *c)
{
    size_t n_char = numeric_reference(text, n, c);
    if (n_char > 0)
        return n_char;
    n_char = qp_utf8_length(text[0]);
    if (n_char <= n && qp_utf8_valid_prefix(text, n_char) == n_char) {
        *c = qp_utf8_decode(text, &n_char);
        return n_char;
    }
    *c = 0;
    return 1;
}

/* How many bytes from text on are plain: ASCII that is allowed, and no reference. */
static size_t plain_run(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && text[i] != '&' && (unsigned char)text[i] >= 0x20 &&
           (unsigned char)text[i] < 0x80)
        i++;
    return i;
}

/* Drops what XML forbids; returns how much that was. */
static int64_t drop_forbidden(qp_str_t *text)
{
    int64_t n_dropped = 0;
    size_t to = 0, n;
    for (size_t at = 0; at < text->n; at += n) {
        uint32_t c = ' ';
        n = plain_run(text->data + at, text->n - at);
        if (n == 0)
            n = next_character(text->data + at, text->n - at, &c);
        if (!is_xml_char(c)) {
            n_dropped++;
            continue;
        }
        if (to != at)
            memmove(text->data + to, text->data + at, n);
        to += n;
    }
    text->n = to;
    text->data[to] = '\0';
    return n_dropped;
}

/* --- rows ------------------------------------------------------------------------------------- */

/* One walk through a file. The parser's callbacks cannot fail, so their first error is kept. */
typedef struct {
    const char *path;
    qp_error_t (*take)(void *owner, const dump_row_t *row);
    void *owner;
    xmlParserCtxtPtr parser;
    dump_row_t row; /* at hand */
    bool taken;
    char damage[128];
    int64_t line, n_row;
    bool in_comment;
    qp_str_t root; /* name of the element that all rows stand in */
    bool ended;    /* behind it */
    qp_str_t text;
    qp_error_t error;
} walk_t;

prep_text_t prep_dump_attribute(const dump_row_t *row, const char *name)
{
    const xmlChar *const *attribute = row->attributes;
    for (int i = 0; i < row->n_attribute; i++) { /* name, prefix, URI, value, its end */
        const xmlChar *const *a = &attribute[5 * i];
        if (strcmp((const char *)a[0], name) == 0)
            return (prep_text_t){(const char *)a[3], (size_t)(a[4] - a[3])};
    }
    return (prep_text_t){NULL, 0};
}

static void on_element(void *owner, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                       int n_namespace, const xmlChar **namespaces, int n_attribute, int n_default,
                       const xmlChar **attributes)
{
    (void)name, (void)prefix, (void)uri, (void)n_namespace, (void)namespaces, (void)n_default;
    walk_t *walk = ((xmlParserCtxtPtr)owner)->_private;
    if (walk->taken)
        return;
    static const xmlChar *none[1];
    walk->taken = true;
    walk->row.attributes = attributes != NULL ? attributes : none;
    walk->row.n_attribute = n_attribute;
    walk->error = walk->take(walk->owner, &walk->row);
}

/* What the parser says of common damage, in plain words. */
static const struct {
    const char *begin, *words;
} plain_words[] = {
    {"AttValue: \" or ' expected", "a value without quotes"},
    {"Specification mandates value", "an attribute without a value"},
    {"Unescaped '<' not allowed", "a value with a \"<\", or without its closing quote"},
    {"xmlParseEntityRef: no name", "an \"&\" that begins no entity"},
    {"EntityRef: expecting ';'", "an entity without its \";\""},
    {"attributes construct error", "no space behind a value, or a quote in it"},
    {"error parsing attribute name", "something that is no attribute"},
};

static void on_trouble(void *owner, xmlErrorPtr found)
{
    walk_t *walk = ((xmlParserCtxtPtr)owner)->_private;
    if (walk->damage[0] != '\0' || found->level < XML_ERR_ERROR)
        return;
    const char *message = found->message != NULL ? found->message : "malformed XML";
    for (size_t i = 0; i < sizeof plain_words / sizeof *plain_words; i++)
        if (qp_has_prefix(message, plain_words[i].begin))
            message = plain_words[i].words;
    snprintf(walk->damage, sizeof walk->damage, "%.*s", (int)strcspn(message, "\r\n"), message);
}

/* Cuts a text behind the tag that it begins with; false: the tag does not end. Where a value does
 * not end before the next "<", that one is put back: it is for the parser to say what is wrong. */
static bool cut_behind_tag(qp_str_t *text)
{
    char quote = '\0';
    for (size_t i = 0; i < text->n; i++) {
        const char c = text->data[i];
        if (quote != '\0') {
            quote = c == quote ? '\0' : quote;
        } else if (c == '>') {
            text->n = i + 1;
            return true;
        } else if (c == '"' || c == '\'') {
            quote = c;
        }
    }
    if (quote != '\0')
        qp_str_putc(text, '<');
    return quote != '\0';
}

/* The text of a row, from behind its "<" to before the next one. */
static qp_error_t take_row(walk_t *walk, prep_text_t piece)
{
    qp_str_clear(&walk->text);
    qp_str_putc(&walk->text, '<');
    qp_str_append(&walk->text, piece.data, piece.n);
    walk->row = (dump_row_t){.path = walk->path, .line = walk->line, .number = ++walk->n_row};
    walk->row.n_dropped = drop_forbidden(&walk->text);
    walk->taken = false;
    walk->damage[0] = '\0';
    if (cut_behind_tag(&walk->text))
        xmlFreeDoc(xmlCtxtReadMemory(walk->parser, walk->text.data, (int)walk->text.n, NULL,
                                     "UTF-8", XML_PARSE_HUGE | XML_PARSE_NONET | XML_PARSE_NOENT));
    else
        snprintf(walk->damage, sizeof walk->damage, "the row does not end");
    if (walk->taken)
        return walk->error;
    walk->row.damage = walk->damage;
    return walk->take(walk->owner, &walk->row);
}

/* --- the file --------------------------------------------------------------------------------- */

/* The encoding that the XML declaration names, where it is not what is read here. */
static qp_error_t check_encoding(const walk_t *walk, prep_text_t declaration)
{
    static const char key[] = "encoding=";
    const char *found = memmem(declaration.data, declaration.n, key, strlen(key));
    if (found == NULL)
        return NULL;
    const char *name = found + strlen(key) + 1, *end = declaration.data + declaration.n;
    size_t n = 0;
    while (name + n < end && strchr("\"'?>", name[n]) == NULL)
        n++;
    if ((n == 5 && strncasecmp(name, "utf-8", n) == 0) ||
        (n == 8 && strncasecmp(name, "us-ascii", n) == 0))
        return NULL;
    return QP_ERROR(QP_INPUT, "%s: is in %.*s, expected UTF-8", walk->path, (int)(n < 40 ? n : 40),
                    name);
}

static bool begins(prep_text_t piece, const char *with)
{
    const size_t n = strlen(with);
    return piece.n >= n && memcmp(piece.data, with, n) == 0;
}

/* The name behind "<" or "</". */
static prep_text_t name_of_tag(prep_text_t piece)
{
    prep_text_t name = {piece.data + begins(piece, "/"), 0};
    const char *end = piece.data + piece.n;
    while (name.data + name.n < end && strchr(" \t\r\n/>", name.data[name.n]) == NULL)
        name.n++;
    return name;
}

static bool is_named(prep_text_t name, const char *as)
{
    return name.n == strlen(as) && memcmp(name.data, as, name.n) == 0;
}

static qp_error_t refuse_behind_end(const walk_t *walk, prep_text_t piece)
{
    const char *end = memchr(piece.data, '>', piece.n);
    const size_t n = end != NULL ? (size_t)(end - piece.data) + 1 : piece.n;
    return QP_ERROR(QP_INPUT,
                    "%s:%lld: behind </%s>, after %lld rows, stands <%.*s: expected one dump, and "
                    "nothing behind it (question ids of two sites overlap)",
                    walk->path, (long long)walk->line, walk->root.data, (long long)walk->n_row,
                    (int)(n < 40 ? n : 40), piece.data);
}

/* What stands between two "<". */
static qp_error_t take_piece(walk_t *walk, prep_text_t piece)
{
    walk->in_comment = walk->in_comment || begins(piece, "!--");
    if (walk->in_comment) {
        walk->in_comment = memmem(piece.data, piece.n, "-->", 3) == NULL;
        return NULL;
    }
    const prep_text_t name = name_of_tag(piece);
    const bool closes = begins(piece, "/"), declares = is_named(name, "?xml");
    const bool opens = !closes && !begins(piece, "?") && !begins(piece, "!");
    if (walk->ended && (opens || declares))
        return refuse_behind_end(walk, piece);
    if (declares)
        return check_encoding(walk, piece);
    if (opens && is_named(name, "row"))
        return take_row(walk, piece);
    if (opens && walk->root.n == 0 && walk->n_row == 0)
        qp_str_append(&walk->root, name.data, name.n);
    walk->ended = walk->ended || (closes && walk->root.n > 0 && is_named(name, walk->root.data));
    return NULL;
}

static int64_t count_lines(prep_text_t text)
{
    int64_t n = 0;
    for (const char *at = text.data, *end = at + text.n;
         (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
        n++;
    return n;
}

static qp_error_t walk_file(walk_t *walk, qp_reader_t *reader)
{
    prep_text_t piece;
    for (bool first = true;; first = false) {
        QP_TRY(qp_reader_until(reader, '<', &piece.data, &piece.n));
        if (piece.data == NULL)
            break;
        if (piece.data[piece.n - 1] == '<')
            piece.n--;
        if (!first) /* what stands before the first tag is none */
            QP_TRY(take_piece(walk, piece));
        walk->line += count_lines(piece);
        QP_TRY(prep_check_interrupt());
    }
    if (walk->n_row == 0)
        return QP_ERROR(QP_INPUT,
                        "%s: no <row> in it; expected Posts.xml of a Stack Exchange dump, as it is "
                        "or gzipped",
                        walk->path);
    if (!walk->ended)
        return QP_ERROR(QP_INPUT, "%s:%lld: the XML ends early, after %lld rows: the file is cut",
                        walk->path, (long long)walk->line, (long long)walk->n_row);
    return NULL;
}

qp_error_t prep_dump_read(const char *path, qp_error_t (*take)(void *owner, const dump_row_t *row),
                          void *owner)
{
    walk_t walk = {.path = path, .take = take, .owner = owner, .line = 1};
    qp_reader_t *reader = NULL;
    QP_TRY(qp_reader_open(path, &reader));
    walk.parser = xmlNewParserCtxt();
    QP_ASSERT(walk.parser != NULL);
    *walk.parser->sax = (xmlSAXHandler){
        .initialized = XML_SAX2_MAGIC, .startElementNs = on_element, .serror = on_trouble};
    walk.parser->_private = &walk;
    qp_error_t error = walk_file(&walk, reader);
    xmlFreeParserCtxt(walk.parser);
    qp_str_fini(&walk.text);
    qp_str_fini(&walk.root);
    qp_reader_close(&reader);
    return error;
}
