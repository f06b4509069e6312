#include "base/utf8.h"

#include <string.h>

/* Well-formed sequences by lead byte (Unicode, table 3-7): length and range of the second byte. */
typedef struct {
    unsigned char first, last, n_bytes, low, high;
} lead_t;

static const lead_t LEADS[] = {
    {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf}, {0xe1, 0xec, 3, 0x80, 0xbf},
    {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf}, {0xf0, 0xf0, 4, 0x90, 0xbf},
    {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};

static const lead_t *find_lead(unsigned char byte)
{
    for (size_t i = 0; i < sizeof LEADS / sizeof LEADS[0]; i++)
        if (byte >= LEADS[i].first && byte <= LEADS[i].last)
            return &LEADS[i];
    return NULL;
}

/* Bytes of the non-ASCII sequence at text that fit together; *whole if they are a character. */
static size_t sequence(const unsigned char *text, size_t n_bytes, bool *whole)
{
    const lead_t *lead = find_lead(text[0]);
    *whole = false;
    if (lead == NULL || n_bytes < 2 || text[1] < lead->low || text[1] > lead->high)
        return 1;
    size_t n = 2;
    while (n < lead->n_bytes && n < n_bytes && (text[n] & 0xc0) == 0x80)
        n++;
    *whole = n == lead->n_bytes;
    return n;
}

uint32_t qp_utf8_decode(const char *text, size_t *n_bytes)
{
    const unsigned char *t = (const unsigned char *)text;
    *n_bytes = qp_utf8_length(text[0]);
    switch (*n_bytes) {
    case 1:
        return t[0];
    case 2:
        return (t[0] & 0x1fu) << 6 | (t[1] & 0x3fu);
    case 3:
        return (t[0] & 0xfu) << 12 | (t[1] & 0x3fu) << 6 | (t[2] & 0x3fu);
    default:
        return (t[0] & 7u) << 18 | (t[1] & 0x3fu) << 12 | (t[2] & 0x3fu) << 6 | (t[3] & 0x3fu);
    }
}

void qp_utf8_put(qp_str_t *s, uint32_t code)
{
    if (code < 0x80) {
        qp_str_putc(s, (char)code);
    } else if (code < 0x800) {
        qp_str_putc(s, (char)(0xc0 | code >> 6));
        qp_str_putc(s, (char)(0x80 | (code & 0x3f)));
    } else if (code < 0x10000) {
        qp_str_putc(s, (char)(0xe0 | code >> 12));
        qp_str_putc(s, (char)(0x80 | (code >> 6 & 0x3f)));
        qp_str_putc(s, (char)(0x80 | (code & 0x3f)));
    } else {
        qp_str_putc(s, (char)(0xf0 | code >> 18));
        qp_str_putc(s, (char)(0x80 | (code >> 12 & 0x3f)));
        qp_str_putc(s, (char)(0x80 | (code >> 6 & 0x3f)));
        qp_str_putc(s, (char)(0x80 | (code & 0x3f)));
    }
}

size_t qp_utf8_valid_prefix(const char *text, size_t n_bytes)
{
    size_t i = 0;
    while (i < n_bytes) {
        uint64_t eight;
        if (i + sizeof eight <= n_bytes) { /* runs of ASCII, the common case, go by words */
            memcpy(&eight, text + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        if ((unsigned char)text[i] < 0x80) {
            i++;
            continue;
        }
        bool whole;
        size_t n = sequence((const unsigned char *)text + i, n_bytes - i, &whole);
        if (!whole)
            return i;
        i += n;
    }
    return i;
}

void qp_utf8_repair(qp_str_t *s, const char *text, size_t n_bytes)
{
    while (n_bytes > 0) {
        size_t n = qp_utf8_valid_prefix(text, n_bytes);
        qp_str_append(s, text, n);
        text += n;
        n_bytes -= n;
        if (n_bytes > 0) {
            bool whole;
            n = sequence((const unsigned char *)text, n_bytes, &whole);
            qp_str_puts(s, "\xef\xbf\xbd");
            text += n;
            n_bytes -= n;
        }
    }
}

bool qp_utf8_is_space(uint32_t code)
{
    static const uint32_t ranges[][2] = {
        {0x9, 0xd},       {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1])
            return true;
    return false;
}
