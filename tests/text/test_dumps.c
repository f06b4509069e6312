/* QP_TEST: labels=shared
 * Every title and body of both dumps gives the ids of HF tokenizers and SentencePiece: their number
 * and a hash over all of them stand in tests/golden/tokenizers/dumps.txt (make_tokenizers.py).
 *
 * With arguments it is the C half of compare_dumps.py:
 *     test_text_dumps MODEL DUMP IDS
 * writes the ids of every text to IDS (int32, -1 after each text) and prints the best of three
 * times.
 */
#include <inttypes.h>
#include <libxml/xmlreader.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "formats/gguf.h"
#include "testing.h"
#include "text/tokenizer.h"

/* --- texts of a dump -------------------------------------------------------------------------- */

typedef struct {
    qp_str_t bytes;
    size_t *end; /* of text i in bytes */
    int64_t n, capacity;
} texts_t;

static void texts_fini(texts_t *texts)
{
    qp_str_fini(&texts->bytes);
    qp_free(texts->end);
    *texts = (texts_t){0};
}

static void add_attribute(texts_t *texts, xmlTextReaderPtr reader, const char *name)
{
    xmlChar *value = xmlTextReaderGetAttribute(reader, (const xmlChar *)name);
    if (value == NULL)
        return;
    if (texts->n == texts->capacity) {
        texts->capacity = 2 * texts->capacity + 1024;
        texts->end = qp_realloc("texts", texts->end, qp_bytes(texts->capacity, sizeof(size_t)));
    }
    qp_str_puts(&texts->bytes, (const char *)value);
    texts->end[texts->n++] = texts->bytes.n;
    xmlFree(value);
}

static bool read_dump(const char *path, texts_t *texts)
{
    xmlTextReaderPtr reader = xmlReaderForFile(path, NULL, XML_PARSE_HUGE);
    if (!CHECK_MSG(reader != NULL, "%s cannot be opened", path))
        return false;
    int status;
    while ((status = xmlTextReaderRead(reader)) == 1) {
        if (xmlTextReaderNodeType(reader) != XML_READER_TYPE_ELEMENT)
            continue;
        add_attribute(texts, reader, "Title");
        add_attribute(texts, reader, "Body");
    }
    xmlFreeTextReader(reader);
    return CHECK_MSG(status == 0 && texts->n > 0, "%s is no dump", path);
}

/* --- encoding all of them --------------------------------------------------------------------- */

static bool read_whole(const char *path, void **data, size_t *n_bytes)
{
    qp_str_t text = {0};
    char block[65536];
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        qp_str_append(&text, block, n);
    fclose(file);
    *data = text.data;
    *n_bytes = text.n;
    return true;
}

static bool read_gguf(const char *path, qp_tokenizer_files_t *files)
{
    qp_gguf_t *gguf = NULL;
    qp_str_t json = {0};
    if (!CHECK_OK(qp_gguf_open(path, &gguf)))
        return false;
    bool ok = CHECK_OK(qp_gguf_metadata_json(gguf, "tokenizer.", &json));
    qp_gguf_close(&gguf);
    files->model = json.data;
    files->model_bytes = json.n;
    return ok;
}

/* A tokenizer.json, a SentencePiece .model, GGUF metadata (.gguf.json) or a GGUF. */
static bool open_tokenizer(const char *path, qp_tokenizer_t **tokenizer)
{
    qp_tokenizer_files_t files = {0};
    const bool gguf = qp_has_suffix(path, ".gguf"), json = qp_has_suffix(path, ".json");
    const char *kind = gguf || qp_has_suffix(path, ".gguf.json") ? "gguf"
                       : json                                    ? "tokenizer.json"
                                                                 : "tokenizer.model";
    snprintf(files.kind, sizeof files.kind, "%s", kind);
    bool ok = gguf ? read_gguf(path, &files)
                   : CHECK_MSG(read_whole(path, &files.model, &files.model_bytes),
                               "%s cannot be read", path);
    ok = ok && CHECK_OK(qp_tokenizer_create(&files, tokenizer));
    qp_tokenizer_files_fini(&files);
    return ok;
}

/* All ids, -1 after each text. */
static bool encode_all(const qp_tokenizer_t *tokenizer, const texts_t *texts, qp_tokens_t *ids)
{
    ids->n = 0;
    for (int64_t i = 0; i < texts->n; i++) {
        const size_t begin = i > 0 ? texts->end[i - 1] : 0;
        if (!CHECK_OK(qp_tokenizer_encode(tokenizer, texts->bytes.data + begin,
                                          texts->end[i] - begin, 0, ids)))
            return false;
        qp_tokens_push(ids, -1);
    }
    return true;
}

static int write_ids(char **argument)
{
    qp_tokenizer_t *tokenizer = NULL;
    texts_t texts = {0};
    qp_tokens_t ids = {0};
    double best = 1e30;
    if (!open_tokenizer(argument[1], &tokenizer) || !read_dump(argument[2], &texts))
        return 1;
    for (int repeat = 0; repeat < 3; repeat++) {
        const double start = qp_time();
        if (!encode_all(tokenizer, &texts, &ids))
            return 1;
        best = qp_time() - start < best ? qp_time() - start : best;
    }
    FILE *out = fopen(argument[3], "wb");
    if (out == NULL || fwrite(ids.id, sizeof(int32_t), (size_t)ids.n, out) != (size_t)ids.n ||
        fclose(out) != 0)
        return 1;
    printf("%.6f seconds, %zu bytes, %" PRId64 " texts\n", best, texts.bytes.n, texts.n);
    qp_tokenizer_destroy(&tokenizer);
    texts_fini(&texts);
    qp_tokens_fini(&ids);
    return 0;
}

/* --- against the goldens ---------------------------------------------------------------------- */

/* FNV-1a over the ids as 32-bit words. */
static uint64_t hash_ids(const qp_tokens_t *ids)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < ids->n; i++)
        value = (value ^ (uint32_t)ids->id[i]) * 0x100000001b3u;
    return value;
}

/* One line of dumps.txt. */
typedef struct {
    char dump[64], model[128];
    int64_t n_text, n_id;
    uint64_t hash;
} golden_t;

static void check_golden(const golden_t *golden, const texts_t *texts)
{
    const char *real = getenv("QUIPU_REAL");
    const bool is_real = qp_has_prefix(golden->model, "real/");
    if (is_real && real == NULL)
        return;
    char *path = is_real ? qp_format("%s/%s", real, golden->model + strlen("real/"))
                         : qp_format("%s/%s", qp_test_source("tests"), golden->model);
    qp_tokenizer_t *tokenizer = NULL;
    qp_tokens_t ids = {0};
    if (open_tokenizer(path, &tokenizer) && encode_all(tokenizer, texts, &ids)) {
        CHECK_MSG(texts->n == golden->n_text, "%s: %" PRId64 " texts", golden->dump, texts->n);
        CHECK_MSG(ids.n - texts->n == golden->n_id && hash_ids(&ids) == golden->hash,
                  "%s, %s: %" PRId64 " ids, %016" PRIx64, golden->dump, golden->model,
                  ids.n - texts->n, hash_ids(&ids));
    }
    qp_tokens_fini(&ids);
    qp_tokenizer_destroy(&tokenizer);
    qp_free(path);
}

static void test_all_texts_of_the_dumps(void)
{
    FILE *file = fopen(qp_test_source("tests/golden/tokenizers/dumps.txt"), "r");
    if (!CHECK(file != NULL))
        return;
    char line[512], now[64] = "";
    texts_t texts = {0};
    int n_line = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        golden_t golden;
        if (sscanf(line, "%63s %127s %" SCNd64 " %" SCNd64 " %" SCNx64, golden.dump, golden.model,
                   &golden.n_text, &golden.n_id, &golden.hash) != 5)
            continue; /* the heading */
        if (strcmp(now, golden.dump) != 0) {
            texts_fini(&texts);
            char *relative = qp_format("data/stackexchange/%s", golden.dump);
            bool ok = read_dump(qp_test_shared(relative), &texts);
            qp_free(relative);
            if (!ok)
                break;
            snprintf(now, sizeof now, "%s", golden.dump);
        }
        check_golden(&golden, &texts);
        n_line++;
    }
    CHECK_MSG(n_line == 20, "%d lines of goldens", n_line);
    texts_fini(&texts);
    fclose(file);
}

int main(int n_argument, char **argument)
{
    if (n_argument == 4)
        return write_ids(argument);
    if (qp_test_shared("data/stackexchange/beer.Posts.xml.gz") == NULL)
        return QP_TEST_SKIP;
    test_all_texts_of_the_dumps();
    return qp_test_end();
}
