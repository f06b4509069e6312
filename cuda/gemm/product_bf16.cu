/*
 * Products in bf16 with fp32 sums. A block makes a tile of the result, each warp a part of it in
 * registers, by mma.sync from tiles of both operands in shared memory: [rows or columns, DEPTH],
 * features together and in pairs (words). Rows are LD words apart, so that the lanes of a warp read
 * different banks. While one pair of tiles is multiplied the next one is on its way to registers.
 */
#include "cuda/core/ptx.h"
#include "cuda/gemm/product.cuh"

enum { DEPTH = 32, LD = 20, VECTORS = LD / 4, STAGE_LD = QP_WARP + 1 };

/* Two bf16, the lower feature first. */
static __device__ inline uint32_t pair(float low, float high)
{
    return qp_bf16_bits(low) | (uint32_t)qp_bf16_bits(high) << 16;
}

template <typename T> static __device__ inline uint32_t pair_of(const qp_eight_t<T> &x, int i)
{
    return pair(qp_element(x, 2 * i), qp_element(x, 2 * i + 1));
}

static __device__ inline uint32_t pair_of(const qp_eight_t<qp_bf16_t> &x, int i)
{
    return x.word[i];
}

/* Element i of each. */
template <typename T>
static __device__ inline uint32_t pair_across(const qp_eight_t<T> &low, const qp_eight_t<T> &high,
                                              int i)
{
    return pair(qp_element(low, i), qp_element(high, i));
}

static __device__ inline uint32_t pair_across(const qp_eight_t<qp_bf16_t> &low,
                                              const qp_eight_t<qp_bf16_t> &high, int i)
{
    const uint32_t x = low.word[i / 2], y = high.word[i / 2];
    return i % 2 == 0 ? (x & 0xffffu) | y << 16 : x >> 16 | (y & 0xffff0000u);
}

/*
 * A thread's part of an operand's tile of TILE rows, by 2 TILE threads: 16 elements. Features
 * together: eight of one row, and of a row TILE / 2 further. Else: eight rows of two features;
 * lanes stand so that both memory and the banks are well used.
 */
template <typename T, int TILE> struct part_t {
    qp_eight_t<T> x[2];

    __device__ inline void load(const qp_operand_t &from, int64_t first, int64_t feature,
                                int64_t end)
    {
        const int thread = (int)threadIdx.x, lane = thread % QP_WARP;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row =
                from.along ? thread / 4 + i * TILE / 2 : 16 * (thread / QP_WARP) + lane % 2 * 8;
            const int k = from.along ? thread % 4 * 8 : lane / 2 * 2 + i;
            qp_load_operand(&x[i], from, first + row, feature + k, end);
        }
    }

    __device__ inline void store(uint4 (*tile)[VECTORS], bool along) const
    {
        const int thread = (int)threadIdx.x, lane = thread % QP_WARP;
        if (along) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                tile[thread / 4 + i * TILE / 2][thread % 4] =
                    uint4{pair_of(x[i], 0), pair_of(x[i], 1), pair_of(x[i], 2), pair_of(x[i], 3)};
            return;
        }
        const int row = 16 * (thread / QP_WARP) + lane % 2 * 8;
#pragma unroll
        for (int i = 0; i < 8; i++)
            reinterpret_cast<uint32_t *>(tile[row + i])[lane / 2] = pair_across(x[0], x[1], i);
    }
};

/* A warp's part of the result: ROWS times 16 rows, a warp's lanes of columns. */
template <int ROWS> struct sums_t {
    enum { COLS = QP_WARP / 8 };
    float x[ROWS][COLS][4];

    /* n_used: how many times 16 rows there are within the result. */
    __device__ inline void add(const uint4 (*a)[VECTORS], const uint4 (*b)[VECTORS], int n_used)
    {
        const int lane = (int)threadIdx.x % QP_WARP, from = lane / 4 * LD + lane % 4;
        const uint32_t *in_a = reinterpret_cast<const uint32_t *>(a) + from;
        const uint32_t *in_b = reinterpret_cast<const uint32_t *>(b) + from;
#pragma unroll
        for (int k = 0; k < DEPTH / 2; k += 8) {
            uint32_t of_b[COLS][2];
#pragma unroll
            for (int j = 0; j < COLS; j++) {
                of_b[j][0] = in_b[j * 8 * LD + k];
                of_b[j][1] = in_b[j * 8 * LD + k + 4];
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                if (i >= n_used)
                    break;
                const uint32_t *row = in_a + i * 16 * LD + k;
                const uint32_t of_a[4] = {row[0], row[8 * LD], row[4], row[8 * LD + 4]};
#pragma unroll
                for (int j = 0; j < COLS; j++)
                    qp_mma_bf16(x[i][j], of_a, of_b[j]);
            }
        }
    }

    /* By way of shared memory, 16 rows at a time, so that lanes write what stands together. */
    __device__ inline void write(const qp_product_t &p, float *stage, int64_t row,
                                 int64_t col) const
    {
        const int lane = (int)threadIdx.x % QP_WARP, at = lane / 4 * STAGE_LD + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
#pragma unroll
            for (int j = 0; j < COLS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    stage[at + e / 2 * 8 * STAGE_LD + 8 * j + e % 2] = x[i][j][e];
            __syncwarp();
#pragma unroll 4
            for (int r = 0; r < 16; r++)
                qp_product_put(p, row + 16 * i + r, col + lane, stage[r * STAGE_LD + lane]);
            __syncwarp();
        }
    }
};

/* TILE x TILE of the result by 2 TILE threads, warps of 16 ROWS x 32. */
template <typename A, typename B, int TILE, int ROWS>
static __global__ void __launch_bounds__(2 * TILE, sizeof(A) + sizeof(B) <= 4 ? 2 : 1)
    bf16_kernel(const qp_product_t p)
{
    QP_SHARED(uint4, tile_a, [2][TILE][VECTORS]);
    QP_SHARED(uint4, tile_b, [2][TILE][VECTORS]);
    const int warp = (int)threadIdx.x / QP_WARP, per_row = TILE / QP_WARP;
    const int warp_row = warp / per_row * 16 * ROWS, warp_col = warp % per_row * QP_WARP;
    int64_t row, col;
    qp_tile_start(p, TILE, &row, &col);
    const int64_t left = p.m - row - warp_row + 15;
    const int n_used = left < 16 ? 0 : left / 16 < ROWS ? (int)(left / 16) : ROWS;
    const int64_t start = (int64_t)blockIdx.y * p.piece;
    const int64_t end = p.k - start < p.piece ? p.k : start + p.piece;
    sums_t<ROWS> sums = {};
    part_t<A, TILE> a;
    part_t<B, TILE> b;
    a.load(p.a, row, start, end);
    b.load(p.b, col, start, end);
    int now = 0;
    for (int64_t k = start; k < end; k += DEPTH, now ^= 1) {
        a.store(tile_a[now], p.a.along);
        b.store(tile_b[now], p.b.along);
        __syncthreads(); /* and the tiles before these have been read by all */
        if (k + DEPTH < end) {
            a.load(p.a, row, k + DEPTH, end);
            b.load(p.b, col, k + DEPTH, end);
        }
        sums.add(tile_a[now] + warp_row, tile_b[now] + warp_col, n_used);
    }
    __syncthreads(); /* the tiles have been read by all */
    float *stage = reinterpret_cast<float *>(tile_a) + warp * 16 * STAGE_LD;
    static_assert(TILE / QP_WARP * 2 * 16 * STAGE_LD * sizeof(float) <= sizeof tile_a, "stage");
    sums.write(p, stage, row + warp_row, col + warp_col);
}

template <typename A, typename B> static qp_error_t launch(qp_queue_t *q, qp_product_t *p)
{
    if (qp_product_wants_small(q, p)) {
        const dim3 grid = qp_product_grid(p, QP_SMALL_TILE);
        return QP_LAUNCH(q, (bf16_kernel<A, B, QP_SMALL_TILE, 2>), grid, 2 * QP_SMALL_TILE, *p);
    }
    const dim3 grid = qp_product_grid(p, QP_LARGE_TILE);
    return QP_LAUNCH(q, (bf16_kernel<A, B, QP_LARGE_TILE, 4>), grid, 2 * QP_LARGE_TILE, *p);
}

qp_error_t qp_product_bf16(qp_queue_t *q, qp_product_t *p)
{
    return qp_product_by_type(
        p, [&](auto a, auto b) { return launch<decltype(a), decltype(b)>(q, p); });
}
