/* GGUF: every block format as gguf-py dequantises it, metadata, damage (golden/make_formats.py). */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/gguf.h"
#include "formats/gguf_write.h"
#include "formats/safetensors.h"
#include "testing.h"

static const char golden[] = "tests/golden/formats/blocks.gguf";

/* Bit by bit: the weights must be those every other reader of the file sees. */
static void test_blocks_equal_gguf_py(const qp_gguf_t *gguf)
{
    qp_safetensors_t *expected = NULL;
    if (!CHECK_OK(qp_safetensors_open(qp_test_source("tests/golden/formats/blocks.safetensors"),
                                      &expected)))
        return;
    CHECK(qp_gguf_n_tensor(gguf) == 11 && qp_safetensors_n(expected) == 11);
    for (int64_t i = 0; i < qp_gguf_n_tensor(gguf); i++) {
        const qp_gguf_tensor_t *t = qp_gguf_tensor(gguf, i);
        const qp_tensor_t *e = qp_safetensors_find(expected, t->name);
        if (!CHECK(e != NULL) || !CHECK(e->dim[1] == t->dim[0] && e->dim[0] == t->dim[1]))
            continue;
        float found[512], wanted[512];
        for (int64_t row = 0; row < t->dim[1]; row++) {
            size_t row_bytes = e->n_bytes / (size_t)e->dim[0];
            qp_gguf_row(t, row, found);
            qp_convert_to_f32(e->dtype, (const char *)e->data + (size_t)row * row_bytes, e->dim[1],
                              wanted);
            CHECK_MSG(memcmp(found, wanted, (size_t)t->dim[0] * sizeof(float)) == 0, "%s row %ld",
                      t->name, (long)row);
        }
    }
    qp_safetensors_close(&expected);
}

static void test_metadata(const qp_gguf_t *gguf)
{
    static const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"test.u8", 200},          {"test.u16", 60000},       {"test.u32", 4000000000},
                    {"test.u64", 1L << 62},    {"test.i8", -100},         {"test.i16", -30000},
                    {"test.i32", -2000000000}, {"test.i64", -(1L << 62)}, {"test.bool", 1}};
    int64_t i64;
    double f64;
    char *text = NULL;
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        if (CHECK_OK(qp_gguf_get_i64(gguf, integers[i].key, &i64)))
            CHECK_MSG(i64 == integers[i].value, "%s", integers[i].key);
    CHECK_OK(qp_gguf_get_f64(gguf, "test.f32", &f64));
    CHECK(f64 == 0.25);
    CHECK_OK(qp_gguf_get_f64(gguf, "test.f64", &f64));
    CHECK(f64 == 1e-300);
    if (CHECK_OK(qp_gguf_get_str(gguf, "test.string", &text)))
        CHECK(strcmp(text, "naïve \"quoted\"\n") == 0);
    qp_free(text);
    CHECK_FAILS(qp_gguf_get_i64(gguf, "test.f32", &i64), QP_INPUT,
                "test.f32 is a float, expected an integer");
    CHECK_FAILS(qp_gguf_get_i64(gguf, "test.none", &i64), QP_INPUT, "test.none is missing");
    CHECK_FAILS(qp_gguf_get_str(gguf, "test.u8", &text), QP_INPUT,
                "test.u8 is an integer, expected a string");
    qp_str_t json = {0};
    CHECK_OK(qp_gguf_metadata_json(gguf, "test.array", &json));
    CHECK_MSG(json.data != NULL && strcmp(json.data, "{\"test.array_i\": [1,-2,3],\n"
                                                     "\"test.array_s\": [\"a\",\"ß\",\"\"]}") == 0,
              "%s", json.data);
    qp_str_fini(&json);
}

/* Opens a changed copy of the golden file. */
static qp_error_t open_bytes(const char *bytes, size_t n)
{
    char *path = qp_format("%s/damaged.gguf", qp_test_folder());
    qp_gguf_t *gguf = NULL;
    FILE *file = fopen(path, "wb"); /* thousands of them: not synced to the disk */
    CHECK(file != NULL && fwrite(bytes, 1, n, file) == n);
    fclose(file);
    qp_error_t error = qp_gguf_open(path, &gguf);
    qp_gguf_close(&gguf);
    qp_free(path);
    return error;
}

/* A file cut anywhere is refused; one with any byte changed is refused or read, never worse. */
static void test_damage(void)
{
    char *bytes = NULL;
    size_t n;
    if (!CHECK_OK(qp_file_read(qp_test_source(golden), (void **)&bytes, &n)))
        return;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    CHECK_FAILS(open_bytes(bytes, 0), QP_INPUT, "is not a GGUF file");
    CHECK_FAILS(open_bytes(pointer, strlen(pointer)), QP_INPUT, "is a Git LFS pointer");
    CHECK_FAILS(open_bytes("ggml", 4), QP_INPUT, "is not a GGUF file");
    for (size_t cut = 4; cut < n - 31; cut += 13)
        CHECK_FAILS(open_bytes(bytes, cut), QP_INPUT, "truncated");
    for (size_t at = 4; at < 1600; at++) {
        char kept = bytes[at];
        bytes[at] = (char)(kept ^ (1 << at % 8));
        qp_error_t error = open_bytes(bytes, n);
        CHECK(error == NULL || error->code == QP_INPUT);
        qp_error_destroy(&error);
        bytes[at] = kept;
    }
    bytes[4] = 1;
    CHECK_FAILS(open_bytes(bytes, n), QP_INPUT, "GGUF version 1");
    bytes[4] = 3;
    char *type = (char *)memmem(bytes, n, "Q8_0", 4) + 4 + 4 + 16; /* behind name and dimensions */
    type[-16] ^= 1;                                                /* the row's length */
    CHECK_FAILS(open_bytes(bytes, n), QP_INPUT, "elements, not a multiple of 32 (Q8_0)");
    type[-16] ^= 1;
    *type = 10;
    CHECK_FAILS(open_bytes(bytes, n), QP_INPUT, "tensor Q8_0 has type Q2_K (10)");
    qp_free(bytes);
}

static void test_writer_round_trip(void)
{
    const float data[6] = {1.0f, -2.0f, 3.0f, 4.0f, 5.5f, -6.0f};
    const qp_gguf_key_t key[] = {{"a.text", "x", 0.0f}, {"a.number", NULL, 2.5f}};
    const qp_tensor_t tensor[] = {
        {.name = "m", .dtype = QP_F32, .n_dim = 2, .dim = {2, 3}, .data = data, .n_bytes = 24},
        {.name = "v", .dtype = QP_F32, .n_dim = 1, .dim = {2}, .data = data, .n_bytes = 8}};
    char *path = qp_format("%s/made.gguf", qp_test_folder());
    qp_gguf_t *gguf = NULL;
    CHECK_OK(qp_gguf_write(path, key, 2, tensor, 2));
    if (CHECK_OK(qp_gguf_open(path, &gguf))) {
        double number = 0.0;
        float row[3];
        CHECK_OK(qp_gguf_get_f64(gguf, "a.number", &number));
        CHECK(number == 2.5);
        const qp_gguf_tensor_t *m = qp_gguf_find(gguf, "m");
        CHECK(m != NULL && m->dim[0] == 3 && m->dim[1] == 2);
        qp_gguf_row(m, 1, row);
        CHECK(memcmp(row, data + 3, sizeof row) == 0);
    }
    qp_gguf_close(&gguf);
    qp_free(path);
}

int main(void)
{
    qp_gguf_t *gguf = NULL;
    if (CHECK_OK(qp_gguf_open(qp_test_source(golden), &gguf))) {
        test_blocks_equal_gguf_py(gguf);
        test_metadata(gguf);
    }
    qp_gguf_close(&gguf);
    test_damage();
    test_writer_round_trip();
    return qp_test_end();
}
