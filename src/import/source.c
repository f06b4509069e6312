#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/minmax.h"
#include "base/str.h"
#include "formats/convert.h"
#include "import/source_impl.h"

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_hdf5(const char *path)
{
    static const char signature[8] = "\211HDF\r\n\032\n";
    char start[sizeof signature];
    int fd;
    qp_error_t error = qp_file_open(path, &fd);
    if (error != NULL) { /* said by who opens it as what it is taken for */
        qp_error_destroy(&error);
        return false;
    }
    bool same = read(fd, start, sizeof start) == sizeof start &&
                memcmp(start, signature, sizeof start) == 0;
    close(fd);
    return same;
}

/* What the tokenizer adds to the special tokens of the config. */
static qp_error_t complete_tokens(qp_source_t *source)
{
    qp_llama_config_t *c = &source->config;
    qp_eos_t eos;
    if (source->tokenizer.kind[0] == '\0')
        return NULL;
    QP_TRY(qp_error_context(qp_tokenizer_create(&source->tokenizer, &source->reader), "%s",
                            source->name));
    const int32_t bos = qp_tokenizer_bos(source->reader);
    const int32_t pad = qp_tokenizer_pad(source->reader);
    QP_TRY(qp_error_context(qp_llama_eos(c, source->reader, &eos), "%s", source->name));
    if (bos >= c->n_vocab)
        return QP_ERROR(QP_INPUT,
                        "%s: the tokenizer's BOS is token %d, the model has tokens 0 to %lld",
                        source->name, (int)bos, (long long)c->n_vocab - 1);
    c->eos = eos;
    c->bos_token_id = c->bos_token_id >= 0 ? c->bos_token_id : bos;
    if (c->pad_token_id < 0 && pad < c->n_vocab) /* one beyond the model only fills batches */
        c->pad_token_id = pad;
    return NULL;
}

qp_error_t qp_source_open(const char *path, qp_source_t **source)
{
    const qp_source_kind_t *kind = NULL;
    qp_error_t (*open)(const char *, qp_source_t *) = NULL;
    if (is_folder(path)) {
        kind = &qp_source_hf;
        open = qp_source_open_hf;
    } else if (qp_has_suffix(path, ".gguf")) {
        kind = &qp_source_gguf;
        open = qp_source_open_gguf;
    } else if (qp_has_suffix(path, ".h5") || is_hdf5(path)) {
        kind = &qp_source_base;
        open = qp_source_open_base;
    } else {
        return QP_ERROR(QP_INPUT,
                        "%s: expected an HF model folder, a .gguf file or a base .h5 file", path);
    }
    *source = QP_NEW("source", qp_source_t, 1);
    (*source)->kind = kind;
    (*source)->name = qp_strdup(path);
    qp_error_t error = open(path, *source);
    if (error == NULL)
        error = complete_tokens(*source);
    if (error != NULL)
        qp_source_close(source);
    return error;
}

void qp_source_close(qp_source_t **source)
{
    if (*source == NULL)
        return;
    (*source)->kind->close(*source);
    qp_tokenizer_destroy(&(*source)->reader);
    qp_tokenizer_files_fini(&(*source)->tokenizer);
    qp_free((*source)->generation);
    qp_free((*source)->score);
    qp_free((*source)->spec);
    qp_free((*source)->name);
    QP_FREE(*source);
}

const qp_llama_config_t *qp_source_config(const qp_source_t *source)
{
    return &source->config;
}

const qp_tokenizer_files_t *qp_source_tokenizer(const qp_source_t *source)
{
    return &source->tokenizer;
}

const qp_tokenizer_t *qp_source_reader(const qp_source_t *source)
{
    return source->reader;
}

const char *qp_source_generation(const qp_source_t *source)
{
    return source->generation;
}

const float *qp_source_score(const qp_source_t *source, int64_t *n_score)
{
    *n_score = source->n_score;
    return source->score;
}

const char *qp_source_name(const qp_source_t *source)
{
    return source->name;
}

const qp_tensor_spec_t *qp_source_tensors(const qp_source_t *source, int64_t *n_spec)
{
    *n_spec = source->n_spec;
    return source->spec;
}

int64_t qp_source_piece(const qp_tensor_spec_t *spec)
{
    const int64_t max_elements = (32 << 20) / (int64_t)sizeof(float);
    int64_t n_row = max_elements / spec->n_col;
    if (n_row < 1)
        n_row = 1;
    return qp_min_i64(n_row, spec->n_row);
}

int64_t qp_source_piece_max(const qp_source_t *source)
{
    int64_t max = 0;
    for (int64_t i = 0; i < source->n_spec; i++) {
        int64_t n = qp_source_piece(&source->spec[i]) * source->spec[i].n_col;
        max = qp_max_i64(n, max);
    }
    return max;
}

qp_error_t qp_source_rows(qp_source_t *source, int64_t spec, int64_t first, int64_t n_row,
                          float *rows)
{
    const qp_tensor_spec_t *s = &source->spec[spec];
    QP_ASSERT(first >= 0 && n_row >= 0 && first + n_row <= s->n_row);
    QP_TRY(source->kind->rows(source, spec, first, n_row, rows));
    int64_t bad = qp_find_not_finite(rows, n_row * s->n_col);
    if (bad >= 0)
        return QP_ERROR(QP_INPUT, "%s: tensor %s: the weight in row %ld, column %ld is %g",
                        source->kind->file(source, spec), s->name, (long)(first + bad / s->n_col),
                        (long)(bad % s->n_col), (double)rows[bad]);
    return NULL;
}
