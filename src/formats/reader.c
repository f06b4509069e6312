#include "formats/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "base/mem.h"
#include "base/str.h"

enum { BUFFER = 1 << 18, PIECE_MAX = 1 << 30, GZIP_WINDOW = 15 + 16 };

struct qp_reader {
    char *path;
    int fd;
    bool gzip, in_member;
    int64_t n_member;
    z_stream z;
    unsigned char *raw; /* [BUFFER] of the file: [raw_at, raw_n) is to come */
    size_t raw_at, raw_n;
    char *text; /* [BUFFER] unpacked: [at, n) is to come */
    size_t at, n;
    qp_str_t piece;
};

/* --- what a file is --------------------------------------------------------------------------- */

/* How files begin that are not read here. */
static const struct {
    const char *magic;
    size_t n;
    const char *what;
} others[] = {
    {"7z\xbc\xaf\x27\x1c", 6, "a 7z archive: unpack it (7z x)"},
    {"BZh", 3, "packed with bzip2: unpack it (bunzip2)"},
    {"\xfd"
     "7zXZ",
     5, "packed with xz: unpack it (unxz)"},
    {"PK\3\4", 4, "a zip archive: unpack it (unzip)"},
    {"\x28\xb5\x2f\xfd", 4, "packed with zstd: unpack it (unzstd)"},
    {"PAR1", 4, "a Parquet file: write its rows as JSON lines"},
    {"\xff\xfe", 2, "UTF-16, expected UTF-8 (iconv)"},
    {"\xfe\xff", 2, "UTF-16, expected UTF-8 (iconv)"},
};

static qp_error_t refuse_others(const qp_reader_t *r)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (r->raw_n >= others[i].n && memcmp(r->raw, others[i].magic, others[i].n) == 0)
            return QP_ERROR(QP_INPUT, "%s: is %s", r->path, others[i].what);
    return NULL;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* More of the file behind what is there; *end: there is none. */
static qp_error_t read_raw(qp_reader_t *r, bool *end)
{
    if (r->raw_at == r->raw_n)
        r->raw_at = r->raw_n = 0;
    ssize_t n = -1;
    do
        n = read(r->fd, r->raw + r->raw_n, BUFFER - r->raw_n);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return QP_ERROR(QP_IO, "%s: cannot be read: %s", r->path, strerror(errno));
    r->raw_n += (size_t)n;
    *end = n == 0;
    return NULL;
}

/* Between gzip members: on to the next one, over zeros that fill up a block. */
static qp_error_t next_member(qp_reader_t *r, bool *end)
{
    *end = false;
    for (; !*end; r->raw_at++) {
        if (r->raw_at == r->raw_n)
            QP_TRY(read_raw(r, end));
        if (*end)
            return NULL;
        if (r->raw[r->raw_at] == 0 && r->n_member > 0)
            continue;
        if (r->raw[r->raw_at] != 0x1f)
            return QP_ERROR(QP_INPUT, "%s: behind gzip member %lld stands something else", r->path,
                            (long long)r->n_member);
        r->n_member++;
        r->in_member = true;
        return inflateReset(&r->z) == Z_OK ? NULL : QP_ERROR(QP_INTERNAL, "zlib: no reset");
    }
    return NULL;
}

/* Unpacks until there is text. */
static qp_error_t inflate_some(qp_reader_t *r)
{
    bool end = false;
    while (r->n == 0) {
        if (!r->in_member) {
            QP_TRY(next_member(r, &end));
            if (end)
                return NULL;
        }
        if (r->raw_at == r->raw_n)
            QP_TRY(read_raw(r, &end));
        if (end)
            return QP_ERROR(QP_INPUT, "%s: the gzip stream is cut (in member %lld)", r->path,
                            (long long)r->n_member);
        r->z.next_in = r->raw + r->raw_at;
        r->z.avail_in = (uInt)(r->raw_n - r->raw_at);
        r->z.next_out = (unsigned char *)r->text;
        r->z.avail_out = BUFFER;
        const int status = inflate(&r->z, Z_NO_FLUSH);
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
            return QP_ERROR(QP_INPUT, "%s: the gzip stream is damaged (in member %lld): %s",
                            r->path, (long long)r->n_member,
                            r->z.msg != NULL ? r->z.msg : zError(status));
        r->raw_at = r->raw_n - r->z.avail_in;
        r->n = BUFFER - r->z.avail_out;
        r->in_member = status != Z_STREAM_END;
    }
    return NULL;
}

/* New text into the buffer; none: the file ends. */
static qp_error_t fill(qp_reader_t *r)
{
    r->at = r->n = 0;
    if (r->gzip)
        return inflate_some(r);
    bool end = false;
    if (r->raw_at == r->raw_n)
        QP_TRY(read_raw(r, &end));
    r->n = r->raw_n - r->raw_at;
    if (r->n > 0)
        memcpy(r->text, r->raw + r->raw_at, r->n);
    r->raw_at = r->raw_n;
    return NULL;
}

/* Its other end may never be opened, and the program would wait for ever. Those of a shell's <(...)
 * have no name: realpath() finds none. */
static qp_error_t refuse_named_pipe(const char *path)
{
    struct stat status;
    char *name = stat(path, &status) == 0 && S_ISFIFO(status.st_mode) ? realpath(path, NULL) : NULL;
    if (name == NULL)
        return NULL;
    free(name);
    return QP_ERROR(QP_INPUT, "%s: not a regular file, but a pipe", path);
}

static qp_error_t begin(qp_reader_t *r)
{
    struct stat status;
    QP_TRY(refuse_named_pipe(r->path));
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return QP_ERROR(QP_INPUT, "%s: cannot be opened: %s", r->path, strerror(errno));
    if (fstat(r->fd, &status) == 0 && S_ISDIR(status.st_mode))
        return QP_ERROR(QP_INPUT, "%s: is a folder, expected a file", r->path);
    for (bool end = false; !end && r->raw_n < 6;)
        QP_TRY(read_raw(r, &end));
    QP_TRY(refuse_others(r));
    r->gzip = r->raw_n >= 2 && r->raw[0] == 0x1f && r->raw[1] == 0x8b;
    if (r->gzip && inflateInit2(&r->z, GZIP_WINDOW) != Z_OK)
        return QP_ERROR(QP_INTERNAL, "zlib: cannot start");
    return NULL;
}

qp_error_t qp_reader_open(const char *path, qp_reader_t **reader)
{
    qp_reader_t *r = QP_NEW("reader", qp_reader_t, 1);
    r->path = qp_strdup(path);
    r->raw = QP_NEW("reader", unsigned char, BUFFER);
    r->text = QP_NEW("reader", char, BUFFER);
    *reader = r;
    qp_error_t error = begin(r);
    if (error != NULL)
        qp_reader_close(reader);
    return error;
}

void qp_reader_close(qp_reader_t **reader)
{
    qp_reader_t *r = *reader;
    if (r == NULL)
        return;
    if (r->gzip)
        inflateEnd(&r->z);
    if (r->fd >= 0)
        close(r->fd);
    qp_str_fini(&r->piece);
    qp_free(r->path);
    qp_free(r->raw);
    qp_free(r->text);
    QP_FREE(*reader);
}

/* --- pieces ----------------------------------------------------------------------------------- */

qp_error_t qp_reader_until(qp_reader_t *r, char end, const char **text, size_t *n)
{
    bool whole = false;
    qp_str_clear(&r->piece);
    *text = NULL;
    *n = 0;
    while (!whole) {
        if (r->at == r->n)
            QP_TRY(fill(r));
        if (r->n == 0)
            break;
        const char *from = r->text + r->at;
        const char *found = memchr(from, end, r->n - r->at);
        const size_t n_more = found != NULL ? (size_t)(found - from) + 1 : r->n - r->at;
        if (r->piece.n + n_more > PIECE_MAX)
            return QP_ERROR(QP_INPUT, "%s: more than 1 GiB without a %s", r->path,
                            end == '\n' ? "line end" : "tag");
        r->at += n_more;
        whole = found != NULL;
        if (whole && r->piece.n == 0) {
            *text = from;
            *n = n_more;
            return NULL;
        }
        qp_str_append(&r->piece, from, n_more);
    }
    *n = r->piece.n;
    *text = *n > 0 ? r->piece.data : NULL;
    return NULL;
}

/* How many bytes the byte-order mark at the beginning of a text has. */
static size_t mark_bytes(const char *text, size_t n)
{
    return n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

qp_error_t qp_reader_line(qp_reader_t *r, const char **text, size_t *n)
{
    QP_TRY(qp_reader_until(r, '\n', text, n));
    if (*text == NULL)
        return NULL;
    const size_t mark = mark_bytes(*text, *n);
    *text += mark;
    *n -= mark;
    if (*n > 0 && (*text)[*n - 1] == '\n')
        --*n;
    return NULL;
}

qp_error_t qp_reader_whole(const char *path, void **data, size_t *n)
{
    qp_reader_t *r = NULL;
    qp_str_t whole = {0};
    qp_error_t error = NULL;
    *data = NULL;
    *n = 0;
    QP_TRY(qp_reader_open(path, &r));
    do {
        QP_TRY_DONE(fill(r));
        qp_str_append(&whole, r->text, r->n);
    } while (r->n > 0);
    const size_t mark = mark_bytes(whole.data, whole.n);
    *n = whole.n - mark;
    *data = QP_NEW("reader", char, (int64_t)*n + 1);
    memcpy(*data, whole.data + mark, *n);
done:
    qp_str_fini(&whole);
    qp_reader_close(&r);
    return error;
}
