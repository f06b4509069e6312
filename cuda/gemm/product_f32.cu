/*
 * Products in fp32, by fused multiply-adds. A block makes a tile of the result, each thread a part
 * of it in registers, from tiles of both operands in shared memory: [DEPTH, rows or columns]. While
 * one pair of tiles is multiplied the next one is on its way to registers.
 */
#include "cuda/gemm/product.cuh"

enum { DEPTH = 16, THREADS_ACROSS = 16, GAP = 4 };

/*
 * A thread's part of an operand's tile, by 2 TILE threads: eight features of a row, or eight rows
 * of a feature.
 */
template <typename T, int TILE> struct part_t {
    qp_eight_t<T> x;

    __device__ inline void load(const qp_operand_t &from, int64_t first, int64_t feature,
                                int64_t end)
    {
        const int thread = (int)threadIdx.x;
        const int row = from.along ? thread % TILE : thread % (TILE / 8) * 8;
        const int k = from.along ? thread / TILE * 8 : thread / (TILE / 8);
        qp_load_operand(&x, from, first + row, feature + k, end);
    }

    __device__ inline void store(float4 (*tile)[(TILE + GAP) / 4], bool along) const
    {
        const int thread = (int)threadIdx.x;
        if (!along) {
            float4 *to = tile[thread / (TILE / 8)] + thread % (TILE / 8) * 2;
#pragma unroll
            for (int i = 0; i < 8; i += 4)
                to[i / 4] = float4{qp_element(x, i), qp_element(x, i + 1), qp_element(x, i + 2),
                                   qp_element(x, i + 3)};
            return;
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            reinterpret_cast<float *>(tile[thread / TILE * 8 + i])[thread % TILE] =
                qp_element(x, i);
    }
};

/* A thread's rows (or columns) of the result: fours that are STEP apart. */
template <int FOURS, int STEP> struct fours_t {
    float x[4 * FOURS];

    __device__ inline void load(const float4 *from, int first)
    {
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const float4 four = from[(first + i * STEP) / 4];
            x[4 * i] = four.x;
            x[4 * i + 1] = four.y;
            x[4 * i + 2] = four.z;
            x[4 * i + 3] = four.w;
        }
    }
};

/* TILE x TILE of the result by 2 TILE threads, 8 x 4 COLS of them each. */
template <typename A, typename B, int TILE, int COLS>
static __global__ void __launch_bounds__(2 * TILE) f32_kernel(const qp_product_t p)
{
    QP_SHARED(float4, tile_a, [2][DEPTH][(TILE + GAP) / 4]);
    QP_SHARED(float4, tile_b, [2][DEPTH][(TILE + GAP) / 4]);
    const int first_row = (int)threadIdx.x / THREADS_ACROSS * 4;
    const int first_col = (int)threadIdx.x % THREADS_ACROSS * 4;
    int64_t row, col;
    qp_tile_start(p, TILE, &row, &col);
    /* Rows of a warp; where there are none it has nothing to multiply. */
    const bool used = row + (int)threadIdx.x / QP_WARP * 8 < p.m;
    const int64_t start = (int64_t)blockIdx.y * p.piece;
    const int64_t end = p.k - start < p.piece ? p.k : start + p.piece;
    float sum[8][4 * COLS] = {};
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
        const int depth = end - k < DEPTH ? (int)(end - k) : (int)DEPTH;
        for (int f = 0; used && f < depth; f++) {
            fours_t<2, TILE / 2> of_a;
            fours_t<COLS, TILE / COLS> of_b;
            of_a.load(tile_a[now][f], first_row);
            of_b.load(tile_b[now][f], first_col);
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 4 * COLS; j++)
                    sum[i][j] = fmaf(of_a.x[i], of_b.x[j], sum[i][j]);
        }
    }
    /* By way of shared memory, two rows of a warp at a time, so that lanes write what stands
     * together. */
    __syncthreads(); /* the tiles have been read by all */
    static_assert(TILE / 16 * 2 * TILE * sizeof(float) <= sizeof tile_a, "stage");
    const int lane = (int)threadIdx.x % QP_WARP;
    float *stage = reinterpret_cast<float *>(tile_a) + (int)threadIdx.x / QP_WARP * 2 * TILE;
    row += (int)threadIdx.x / QP_WARP * 8;
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
        for (int j = 0; j < 4 * COLS; j++)
            stage[lane / 16 * TILE + first_col + j / 4 * (TILE / COLS) + j % 4] = sum[i][j];
        __syncwarp();
#pragma unroll 2
        for (int at = lane; at < 2 * TILE; at += QP_WARP)
            qp_product_put(p, row + at / TILE * 4 + i / 4 * (TILE / 2) + i % 4, col + at % TILE,
                           stage[at]);
        __syncwarp();
    }
}

template <typename A, typename B> static qp_error_t launch(qp_queue_t *q, qp_product_t *p)
{
    if (qp_product_wants_small(q, p)) {
        const dim3 grid = qp_product_grid(p, QP_SMALL_TILE);
        return QP_LAUNCH(q, (f32_kernel<A, B, QP_SMALL_TILE, 1>), grid, 2 * QP_SMALL_TILE, *p);
    }
    const dim3 grid = qp_product_grid(p, QP_LARGE_TILE);
    return QP_LAUNCH(q, (f32_kernel<A, B, QP_LARGE_TILE, 2>), grid, 2 * QP_LARGE_TILE, *p);
}

qp_error_t qp_product_f32(qp_queue_t *q, qp_product_t *p)
{
    return qp_product_by_type(
        p, [&](auto a, auto b) { return launch<decltype(a), decltype(b)>(q, p); });
}
