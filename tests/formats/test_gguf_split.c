/* A GGUF model in parts (golden/make_formats.py): whichever part is named, it is the whole model;
 * parts that are missing, misnamed, cut or of another model are refused by name. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/gguf.h"
#include "testing.h"

enum { N_PART = 3 };
static const char whole[] = "tests/golden/formats/blocks.gguf";

static char *part_path(const char *folder, int part)
{
    return qp_format("%s/blocks-%05d-of-%05d.gguf", folder, part + 1, N_PART);
}

static char *copy_path(int part)
{
    return part_path(qp_test_folder(), part);
}

/* Copies all golden parts into the test's folder. */
static void copy_parts(void)
{
    for (int i = 0; i < N_PART; i++) {
        char *from = part_path(qp_test_source("tests/golden/formats/split"), i), *to = copy_path(i);
        void *data = NULL;
        size_t n = 0;
        CHECK_OK(qp_file_read(from, &data, &n));
        CHECK_OK(qp_file_write(to, data, n));
        qp_free(data);
        qp_free(from);
        qp_free(to);
    }
}

static qp_error_t open_copy(int part)
{
    char *path = copy_path(part);
    qp_gguf_t *gguf = NULL;
    qp_error_t error = qp_gguf_open(path, &gguf);
    qp_gguf_close(&gguf);
    qp_free(path);
    return error;
}

static char *metadata_of(const qp_gguf_t *gguf)
{
    qp_str_t json = {0};
    CHECK_OK(qp_gguf_metadata_json(gguf, "test.", &json));
    return json.data;
}

static void check_same(const qp_gguf_t *a, const qp_gguf_t *b)
{
    char *in_a = metadata_of(a), *in_b = metadata_of(b);
    CHECK(strcmp(in_a, in_b) == 0);
    CHECK(qp_gguf_n_tensor(a) == 11 && qp_gguf_n_tensor(b) == 11);
    for (int64_t i = 0; i < qp_gguf_n_tensor(a); i++) {
        const qp_gguf_tensor_t *s = qp_gguf_tensor(a, i), *t = qp_gguf_find(b, s->name);
        CHECK_MSG(t != NULL && t->type == s->type && t->n_bytes == s->n_bytes &&
                      memcmp(t->data, s->data, s->n_bytes) == 0,
                  "%s", s->name);
    }
    qp_free(in_a);
    qp_free(in_b);
}

static void test_any_part_is_the_model(void)
{
    qp_gguf_t *expected = NULL;
    CHECK_OK(qp_gguf_open(qp_test_source(whole), &expected));
    for (int i = 0; i < N_PART; i++) {
        qp_gguf_t *gguf = NULL;
        char *path = part_path(qp_test_source("tests/golden/formats/split"), i);
        if (CHECK_OK(qp_gguf_open(path, &gguf)))
            check_same(expected, gguf);
        qp_gguf_close(&gguf);
        qp_free(path);
    }
    qp_gguf_close(&expected);
}

static void test_missing_and_misnamed(void)
{
    char *second = copy_path(1), *other = qp_format("%s/model.gguf", qp_test_folder());
    qp_gguf_t *gguf = NULL;
    copy_parts();
    CHECK(rename(second, other) == 0);
    CHECK_FAILS(open_copy(0), QP_INPUT,
                "00001-of-00003.gguf: is part 1 of 3 of a split model, and "
                "part 2 is missing: ");
    CHECK_FAILS(open_copy(2), QP_INPUT, "blocks-00002-of-00003.gguf");
    CHECK_FAILS(qp_gguf_open(other, &gguf), QP_INPUT,
                "model.gguf: is part 2 of 3 of a split model; the other parts are found only if "
                "its name ends in -00002-of-00003.gguf");
    char *first = copy_path(0);
    CHECK(link(first, second) == 0); /* a part under another's name */
    CHECK_FAILS(open_copy(2), QP_INPUT,
                "00002-of-00003.gguf: says that it is part 1 of 3 of a model of 11 tensors; by ");
    CHECK_FAILS(open_copy(1), QP_INPUT, "its name ends in -00001-of-00003.gguf");
    CHECK(unlink(second) == 0);
    qp_free(first);
    qp_free(second);
    qp_free(other);
}

/* Writes part 2 with the bytes at a text, and a distance behind it, replaced or cut there. */
static void damage(const char *text, size_t distance, const void *by, size_t n_by)
{
    char *path = copy_path(1), *data = NULL;
    size_t n = 0;
    copy_parts();
    CHECK_OK(qp_file_read(path, (void **)&data, &n));
    char *at = data != NULL ? (char *)memmem(data, n, text, strlen(text)) : NULL;
    CHECK(at != NULL);
    if (at != NULL) {
        at += distance;
        if (by != NULL)
            memcpy(at, by, n_by);
        CHECK_OK(qp_file_write(path, data, by != NULL ? n : (size_t)(at - data)));
    }
    qp_free(data);
    qp_free(path);
}

/* Behind a key stand 4 bytes of type and the value. */
static void test_contradictions(void)
{
    const uint16_t none = 0, two = 2, nine = 9;
    const int32_t ten = 10;
    damage("split.no", 12, &two, sizeof two);
    CHECK_FAILS(open_copy(0), QP_INPUT, "says that it is part 3 of 3 of a model of 11 tensors");
    damage("split.no", 12, &nine, sizeof nine);
    CHECK_FAILS(open_copy(0), QP_INPUT, "00002-of-00003.gguf: split.no is 9 and split.count 3");
    damage("split.count", 15, &two, sizeof two);
    CHECK_FAILS(open_copy(0), QP_INPUT, "says that it is part 2 of 2");
    damage("split.tensors.count", 23, &ten, sizeof ten);
    CHECK_FAILS(open_copy(0), QP_INPUT, "says that it is part 2 of 3 of a model of 10 tensors");
    damage("split.count", 0, "split.other", 11);
    CHECK_FAILS(open_copy(0), QP_INPUT, "says that it is part 1 of 1 of a model of 4 tensors");
    damage("split.tensors.count", 0, "split.tensors.other", 19);
    CHECK_FAILS(open_copy(0), QP_INPUT, "metadata key split.tensors.count is missing");
    damage("split.count", 15, &none, sizeof none); /* as llama.cpp writes what it has joined */
    CHECK_OK(open_copy(1));
    CHECK_FAILS(open_copy(0), QP_INPUT, "says that it is part 1 of 1 of a model of 4 tensors");
    damage("Q5_1", 0, "Q4_0", 4);
    CHECK_FAILS(open_copy(0), QP_INPUT, "tensor Q4_0 stands there twice");
    damage("split.count", 30, NULL, 0);
    CHECK_FAILS(open_copy(0), QP_INPUT, "00002-of-00003.gguf: the file is truncated");
    copy_parts();
    CHECK_OK(open_copy(0));
}

int main(void)
{
    test_any_part_is_the_model();
    test_missing_and_misnamed();
    test_contradictions();
    return qp_test_end();
}
