/* safetensors: what safetensors.torch wrote, round trips, sharded folders, damage. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/convert.h"
#include "formats/safetensors.h"
#include "testing.h"

static char *in_folder(const char *name)
{
    return qp_format("%s/%s", qp_test_folder(), name);
}

static void test_reads_torch(void)
{
    qp_safetensors_t *st = NULL;
    if (!CHECK_OK(
            qp_safetensors_open(qp_test_source("tests/golden/formats/blocks.safetensors"), &st)))
        return;
    const qp_tensor_t *f32 = qp_safetensors_find(st, "F32"), *f16 = qp_safetensors_find(st, "F16");
    const qp_tensor_t *bf16 = qp_safetensors_find(st, "BF16");
    if (CHECK(f32 != NULL && f16 != NULL && bf16 != NULL)) {
        float x[60], y[60], z[60];
        uint16_t half[60];
        CHECK(f16->dtype == QP_F16 && bf16->dtype == QP_BF16 && f16->dim[0] == 3 &&
              f16->dim[1] == 20);
        qp_convert_to_f32(QP_F32, f32->data, 60, x);
        qp_convert_to_f32(QP_F16, f16->data, 60, y);
        qp_convert_to_f32(QP_BF16, bf16->data, 60, z);
        CHECK(y[3] == 65504.0f && y[2] == 0x1p-24f && signbit(y[1]) && y[1] == 0.0f);
        qp_convert_from_f32(QP_F16, x, 60, half);
        CHECK(memcmp(half, f16->data, sizeof half) == 0);
        qp_convert_from_f32(QP_BF16, x, 60, half);
        CHECK(memcmp(half, bf16->data, sizeof half) == 0);
        CHECK(fabsf(z[10] - x[10]) <= fabsf(x[10]) / 256.0f);
    }
    CHECK(qp_safetensors_find(st, "none") == NULL);
    qp_safetensors_close(&st);
}

static void test_finds_what_is_not_finite(void)
{
    enum { N = 10000 };
    float *x = QP_NEW("test", float, N);
    CHECK(qp_find_not_finite(x, N) == -1);
    x[9001] = INFINITY;
    CHECK(qp_find_not_finite(x, N) == 9001);
    x[4096] = NAN;
    CHECK(qp_find_not_finite(x, N) == 4096);
    x[0] = -INFINITY;
    CHECK(qp_find_not_finite(x, N) == 0 && qp_find_not_finite(x, 0) == -1);
    qp_free(x);
}

static const float data[6] = {1.0f, -2.0f, 3.0f, 4.0f, 5.5f, -6.0f};

static void test_round_trip(void)
{
    const qp_tensor_t tensor[] = {
        {.name = "b.m", .dtype = QP_F32, .n_dim = 2, .dim = {2, 3}, .data = data, .n_bytes = 24},
        {.name = "a.v", .dtype = QP_F32, .n_dim = 1, .dim = {1}, .data = data, .n_bytes = 4},
        {.name = "c.empty", .dtype = QP_I64, .n_dim = 1, .dim = {0}}};
    char *path = in_folder("made.safetensors");
    qp_safetensors_t *st = NULL;
    CHECK_OK(qp_safetensors_write(path, tensor, 3));
    if (CHECK_OK(qp_safetensors_open(path, &st))) {
        CHECK(qp_safetensors_n(st) == 3 && strcmp(qp_safetensors_at(st, 0)->name, "a.v") == 0);
        const qp_tensor_t *m = qp_safetensors_find(st, "b.m");
        CHECK(m->n_dim == 2 && m->dim[1] == 3 && memcmp(m->data, data, sizeof data) == 0);
    }
    qp_safetensors_close(&st);
    CHECK_FAILS(qp_safetensors_write("/nowhere/x.safetensors", tensor, 3), QP_IO, "/nowhere/x");
    qp_free(path);
}

/* Writes a file with this header (its length as given, or the true one for -1) and 24 data bytes.
 */
static qp_error_t open_header(const char *header, int64_t length)
{
    char *path = in_folder("damaged.safetensors");
    qp_str_t bytes = {0};
    qp_safetensors_t *st = NULL;
    uint64_t n = length < 0 ? strlen(header) : (uint64_t)length;
    qp_str_append(&bytes, &n, sizeof n);
    qp_str_puts(&bytes, header);
    qp_str_append(&bytes, data, sizeof data);
    qp_error_t error = qp_file_write(path, bytes.data, bytes.n);
    if (error == NULL)
        error = qp_safetensors_open(path, &st);
    qp_safetensors_close(&st);
    qp_str_fini(&bytes);
    qp_free(path);
    return error;
}

/* The tensor that the data are. */
#define X "\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}"

/* What the safetensors library refuses too, but for the repeated name. */
static void test_damage(void)
{
    static const struct {
        const char *header;
        int64_t length;
        const char *message;
    } bad[] = {
        {"{}", 1000, "its header length is 1000"},
        {"{}", INT64_MAX, "header length"},
        {"{\"x\":", -1, "damaged header"},
        {"[1]", -1, "damaged header: is no JSON object"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6]}}", -1, "tensor x: damaged header entry"},
        {"{\"x\":{\"dtype\":\"F8_E4M3\",\"shape\":[24],\"data_offsets\":[0,24]}}", -1,
         "tensor x: unsupported dtype F8_E4M3"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[0,28]}}", -1,
         "truncated: tensor x ends at data byte 28, there are 24"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,24]}}", -1,
         "tensor x: its shape takes 5 x 4 bytes, the file gives it 24"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[8,20]}}", -1,
         "tensor x starts at data byte 8, expected 0"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}", -1,
         "4 bytes after the last tensor"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[-6],\"data_offsets\":[0,24]}}", -1,
         "impossible shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,8],\"data_offsets\":[0,24]}}",
         -1, "impossible shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,6],\"data_offsets\":[0,24]}}", -1,
         "at most 4 sizes"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[24,0]}}", -1,
         "damaged data_offsets"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]},\"x\":{}}", -1,
         "duplicate"},
        {"{\"__metadata__\":{\"a\":1}," X "}", -1, "__metadata__: a is 1, expected a string"},
        {"{\"__metadata__\":{\"a\":null}," X "}", -1, "a is null, expected a string"},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}," X "}", -1, "a is {\"b\":\"c\"}, expected"},
        {"{\"__metadata__\":[]," X "}", -1, "__metadata__ is [], expected an object"},
        {"{\"__metadata__\":\"x\"," X "}", -1, "__metadata__ is \"x\", expected an object"},
        {"{" X "}x", -1, "damaged header:1: "},
        {"{\"y\":null," X "}", -1, "tensor y: damaged header entry"},
        {"{\"x\\ud800\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}}", -1,
         "half of a surrogate pair"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6.0],\"data_offsets\":[0,24]}}", -1,
         "tensor x: impossible shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1000000000000000000000000],"
         "\"data_offsets\":[0,24]}}",
         -1, "tensor x: impossible shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6],"
         "\"data_offsets\":[0,18446744073709551616]}}",
         -1, "tensor x: damaged header entry"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24,24]}}", -1,
         "tensor x: damaged header entry"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
         "\"y\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]}}",
         -1, "tensor y starts at data byte 8, expected 12"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_FAILS(open_header(bad[i].header, bad[i].length), QP_INPUT, bad[i].message);
}

/* What the safetensors library reads. */
static void test_odd_headers(void)
{
    static const char *const good[] = {
        "{" X "}",
        " {" X "}\n  ",
        "{\"__metadata__\":{\"format\":\"pt\",\"\":\"\"}," X "}",
        "{\"__metadata__\":{}," X "}",
        "{\"__metadata__\":null," X "}",
        "{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        "{" X ",\"y\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[24,24]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24],\"more\":1}}",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_OK(open_header(good[i], -1));
}

static void write_text(const char *path, const char *text)
{
    CHECK_OK(qp_file_write(path, text, strlen(text)));
}

static void test_sharded_folder(void)
{
    static const struct {
        const char *index, *message;
    } bad[] = {
        {"{\"weight_map\": {\"m\": \"../1.safetensors\"}}",
         "weight_map: m is \"../1.safetensors\", expected the name of a file in this folder"},
        {"{\"weight_map\": {\"m\": \"/1.safetensors\"}}", "expected the name of a file in this"},
        {"{\"weight_map\": {\"m\": \"\"}}", "expected the name of a file in this folder"},
        {"{\"weight_map\": {\"m\": null}}", "weight_map: m is null, expected the name of a file"},
        {"{\"weight_map\": {\"m\": \"..\"}}", "regular file"},
        {"{\"weight_map\": {\"m\": \"1.safetensors\", \"m\": \"2.safetensors\"}}", "duplicate"},
        {"{}", "model.safetensors.index.json: weight_map is missing"},
        {"{\"weight_map\": []}", "weight_map is [], expected an object"},
        {"[]", "model.safetensors.index.json: is no JSON object"},
        {"", "model.safetensors.index.json:1: "},
    };
    const qp_tensor_t m = {
        .name = "m", .dtype = QP_F32, .n_dim = 2, .dim = {2, 3}, .data = data, .n_bytes = 24};
    const qp_tensor_t v = {
        .name = "v", .dtype = QP_F32, .n_dim = 1, .dim = {2}, .data = data, .n_bytes = 8};
    char *folder = in_folder("sharded"), *one = in_folder("sharded/1.safetensors");
    char *two = in_folder("sharded/2.safetensors"),
         *pickle = in_folder("sharded/pytorch_model.bin");
    char *index = in_folder("sharded/model.safetensors.index.json");
    qp_safetensors_t *st = NULL;
    mkdir(folder, 0777);
    CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT, "has neither model.safetensors nor");
    write_text(pickle, "x");
    CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT, "only PyTorch pickles");
    CHECK_OK(qp_safetensors_write(one, &m, 1));
    write_text(index, "{\"weight_map\": {\"m\": \"1.safetensors\", \"v\": \"2.safetensors\"}}");
    CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT,
                "2.safetensors is missing, which should hold tensor v");
    write_text(two, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 24\n");
    CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT,
                "2.safetensors: is a Git LFS pointer, not the file itself: run git lfs pull");
    CHECK_OK(qp_safetensors_write(two, &v, 1));
    if (CHECK_OK(qp_safetensors_open(folder, &st))) {
        CHECK(qp_safetensors_n(st) == 2);
        CHECK(strcmp(qp_safetensors_find(st, "v")->path, two) == 0);
    }
    qp_safetensors_close(&st);
    CHECK_OK(qp_safetensors_write(two, &m, 1));
    CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT, "tensor m also stands in");
    write_text(index, "{\"weight_map\": {\"m\": \"1.safetensors\", \"w\": \"1.safetensors\"}}");
    CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT, "tensor w is not in 1.safetensors");
    CHECK_OK(qp_safetensors_write(two, &v, 1));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text(index, bad[i].index);
        CHECK_FAILS(qp_safetensors_open(folder, &st), QP_INPUT, bad[i].message);
    }
    char *paths[] = {folder, one, two, pickle, index};
    for (int i = 0; i < 5; i++)
        qp_free(paths[i]);
}

int main(void)
{
    test_reads_torch();
    test_finds_what_is_not_finite();
    test_round_trip();
    test_damage();
    test_odd_headers();
    test_sharded_folder();
    return qp_test_end();
}
