/* The block formats of ggml and their dequantisation. The order of the floating-point operations is
 * ggml's, so that the weights are the ones every other reader of the file sees. */
#include <string.h>

#include "base/dtype.h"
#include "formats/convert.h"
#include "formats/gguf.h"

/* Longest super-block of the K formats, and its sub-blocks. */
enum { QK = 32, QK_K = 256 };

static float half_at(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return qp_f16_to_f32(bits);
}

static void f32_blocks(const uint8_t *p, int64_t n, float *out)
{
    qp_convert_to_f32(QP_F32, p, n, out);
}

static void f16_blocks(const uint8_t *p, int64_t n, float *out)
{
    qp_convert_to_f32(QP_F16, p, n, out);
}

static void bf16_blocks(const uint8_t *p, int64_t n, float *out)
{
    qp_convert_to_f32(QP_BF16, p, n, out);
}

/* {fp16 d; int8 q[32]} */
static void q8_0_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 34, out += QK) {
        float d = half_at(p);
        for (int j = 0; j < QK; j++)
            out[j] = (float)(int8_t)p[2 + j] * d;
    }
}

/* {fp16 d; nibbles[16]}: low nibbles are the first 16 elements */
static void q4_0_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 18, out += QK) {
        float d = half_at(p);
        for (int j = 0; j < QK / 2; j++) {
            out[j] = (float)((p[2 + j] & 15) - 8) * d;
            out[j + QK / 2] = (float)((p[2 + j] >> 4) - 8) * d;
        }
    }
}

/* {fp16 d, m; nibbles[16]} */
static void q4_1_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 20, out += QK) {
        float d = half_at(p), m = half_at(p + 2);
        for (int j = 0; j < QK / 2; j++) {
            out[j] = (float)(p[4 + j] & 15) * d + m;
            out[j + QK / 2] = (float)(p[4 + j] >> 4) * d + m;
        }
    }
}

/* The fifth bits of a block of 32: bit j belongs to element j. */
static uint32_t high_bits(const uint8_t *p)
{
    uint32_t bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

/* {fp16 d; u32 high bits; nibbles[16]} */
static void q5_0_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 22, out += QK) {
        float d = half_at(p);
        uint32_t high = high_bits(p + 2);
        for (int j = 0; j < QK / 2; j++) {
            int low_q = (p[6 + j] & 15) | (int)((high >> j & 1) << 4);
            int high_q = (p[6 + j] >> 4) | (int)((high >> (j + QK / 2) & 1) << 4);
            out[j] = (float)(low_q - 16) * d;
            out[j + QK / 2] = (float)(high_q - 16) * d;
        }
    }
}

/* {fp16 d, m; u32 high bits; nibbles[16]} */
static void q5_1_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 24, out += QK) {
        float d = half_at(p), m = half_at(p + 2);
        uint32_t high = high_bits(p + 4);
        for (int j = 0; j < QK / 2; j++) {
            int low_q = (p[8 + j] & 15) | (int)((high >> j & 1) << 4);
            int high_q = (p[8 + j] >> 4) | (int)((high >> (j + QK / 2) & 1) << 4);
            out[j] = (float)low_q * d + m;
            out[j + QK / 2] = (float)high_q * d + m;
        }
    }
}

/* Six-bit scale and minimum of sub-block j of 8, packed in 12 bytes. */
static void k_scale_min(const uint8_t *p, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = p[j] & 63;
        *min = p[j + 4] & 63;
    } else {
        *scale = (p[j + 4] & 15) | (p[j - 4] >> 6) << 4;
        *min = p[j + 4] >> 4 | (p[j] >> 6) << 4;
    }
}

/* {fp16 d, dmin; scales[12]; nibbles[128]}: each 32 bytes hold two sub-blocks of 32 */
static void q4_k_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 144) {
        float d = half_at(p), dmin = half_at(p + 2);
        for (int j = 0; j < QK_K / 32; j++, out += 32) {
            int scale, min;
            k_scale_min(p + 4, j, &scale, &min);
            float ds = d * (float)scale, dm = dmin * (float)min;
            const uint8_t *q = p + 16 + 32 * (j / 2);
            int shift = 4 * (j % 2);
            for (int l = 0; l < 32; l++)
                out[l] = ds * (float)(q[l] >> shift & 15) - dm;
        }
    }
}

/* {fp16 d, dmin; scales[12]; high bits[32]; nibbles[128]}: bit j of high[l] belongs to sub-block j
 */
static void q5_k_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 176) {
        float d = half_at(p), dmin = half_at(p + 2);
        for (int j = 0; j < QK_K / 32; j++, out += 32) {
            int scale, min;
            k_scale_min(p + 4, j, &scale, &min);
            float ds = d * (float)scale, dm = dmin * (float)min;
            const uint8_t *high = p + 16, *q = p + 48 + 32 * (j / 2);
            int shift = 4 * (j % 2);
            for (int l = 0; l < 32; l++)
                out[l] = ds * (float)((q[l] >> shift & 15) | (high[l] >> j & 1) << 4) - dm;
        }
    }
}

/* {low nibbles[128]; high pairs[64]; int8 scales[16]; fp16 d}: two halves of 128, each as four runs
 * of 32 whose nibbles and bit pairs lie interleaved; one scale for 16 elements */
static void q6_k_blocks(const uint8_t *p, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++, p += 210) {
        const int8_t *scale = (const int8_t *)(p + 192);
        float d = half_at(p + 208);
        for (int run = 0; run < QK_K / 32; run++, out += 32) {
            int half = run / 4, quarter = run % 4;
            const uint8_t *low = p + 64 * half + 32 * (quarter % 2);
            const uint8_t *high = p + 128 + 32 * half;
            const float ds[2] = {d * (float)scale[2 * run], d * (float)scale[2 * run + 1]};
            for (int l = 0; l < 32; l++) {
                int q = (low[l] >> 4 * (quarter / 2) & 15) | (high[l] >> 2 * quarter & 3) << 4;
                out[l] = ds[l / 16] * (float)(q - 32);
            }
        }
    }
}

/*        ggml id, name, block length, block bytes, function */
static const qp_ggml_type_t types[] = {
    {0, "F32", 1, 4, f32_blocks},         {1, "F16", 1, 2, f16_blocks},
    {30, "BF16", 1, 2, bf16_blocks},      {8, "Q8_0", QK, 34, q8_0_blocks},
    {2, "Q4_0", QK, 18, q4_0_blocks},     {3, "Q4_1", QK, 20, q4_1_blocks},
    {6, "Q5_0", QK, 22, q5_0_blocks},     {7, "Q5_1", QK, 24, q5_1_blocks},
    {12, "Q4_K", QK_K, 144, q4_k_blocks}, {13, "Q5_K", QK_K, 176, q5_k_blocks},
    {14, "Q6_K", QK_K, 210, q6_k_blocks},
};

/* ggml's other type names, for messages only. */
static const struct {
    uint32_t id;
    const char *name;
} others[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},
};

const qp_ggml_type_t *qp_ggml_type(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}

const char *qp_ggml_type_name(uint32_t id)
{
    const qp_ggml_type_t *type = qp_ggml_type(id);
    if (type != NULL)
        return type->name;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i].id == id)
            return others[i].name;
    return "?";
}
