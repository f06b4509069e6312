#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

enum { ALIGNMENT = 64, MAX_LABEL = 128 };

/* Stands in front of every block; as large as the alignment. */
typedef union {
    struct {
        size_t bytes;
        int label;
        uint32_t magic;
    } is;
    char pad[ALIGNMENT];
} header_t;

/* From here on a block has pages of its own: large ones where the system has them, given by the
 * memory next to the thread that first writes to them, and zero already. */
static const size_t LARGE = 4 << 20;

static const uint32_t MAGIC = 0x51555049u; /* "QUPI" */

static struct {
    pthread_mutex_t lock;
    int n_label;
    struct {
        const char *name;
        int64_t alive, peak, n_block;
    } label[MAX_LABEL];
    int64_t alive, peak;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Index of a label, made on first use; the caller holds the lock. */
static int find_label(const char *name)
{
    for (int i = 0; i < state.n_label; i++)
        if (state.label[i].name == name || strcmp(state.label[i].name, name) == 0)
            return i;
    QP_ASSERT(state.n_label < MAX_LABEL);
    state.label[state.n_label].name = name;
    return state.n_label++;
}

static void count(int label, int64_t bytes, int64_t n_block)
{
    state.label[label].alive += bytes;
    state.label[label].n_block += n_block;
    state.alive += bytes;
    if (state.label[label].alive > state.label[label].peak)
        state.label[label].peak = state.label[label].alive;
    if (state.alive > state.peak)
        state.peak = state.alive;
}

static header_t *header_of(void *pointer)
{
    header_t *header = (header_t *)pointer - 1;
    QP_ASSERT(header->is.magic == MAGIC);
    return header;
}

/* Zeroed memory, or NULL. */
static void *take(size_t bytes)
{
    void *block = NULL;
    if (bytes < LARGE)
        return posix_memalign(&block, ALIGNMENT, bytes) == 0 ? memset(block, 0, bytes) : NULL;
    block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return NULL;
    (void)madvise(block, bytes, MADV_HUGEPAGE); /* advice: failure is harmless */
    return block;
}

static void give_back(void *block, size_t bytes)
{
    if (bytes < LARGE) {
        free(block);
        return;
    }
    const int status = munmap(block, bytes);
    QP_ASSERT(status == 0);
}

void *qp_alloc(const char *label, size_t bytes)
{
    const size_t total = bytes + sizeof(header_t);
    header_t *header = total < bytes ? NULL : take(total);
    if (header == NULL) {
        qp_log_error_here("out of memory: %zu bytes for %s", bytes, label);
        abort();
    }
    header->is.bytes = bytes;
    header->is.magic = MAGIC;
    pthread_mutex_lock(&state.lock);
    header->is.label = find_label(label);
    count(header->is.label, (int64_t)bytes, 1);
    pthread_mutex_unlock(&state.lock);
    return header + 1;
}

void *qp_realloc(const char *label, void *pointer, size_t bytes)
{
    void *grown = qp_alloc(label, bytes);
    if (pointer != NULL) {
        size_t old = header_of(pointer)->is.bytes;
        memcpy(grown, pointer, old < bytes ? old : bytes);
        qp_free(pointer);
    }
    return grown;
}

void qp_free(void *pointer)
{
    if (pointer == NULL)
        return;
    header_t *header = header_of(pointer);
    pthread_mutex_lock(&state.lock);
    count(header->is.label, -(int64_t)header->is.bytes, -1);
    pthread_mutex_unlock(&state.lock);
    header->is.magic = 0;
    give_back(header, header->is.bytes + sizeof *header);
}

char *qp_strdup(const char *text)
{
    if (text == NULL)
        return NULL;
    size_t bytes = strlen(text) + 1;
    return memcpy(qp_alloc("string", bytes), text, bytes);
}

size_t qp_bytes(int64_t n, size_t size)
{
    size_t bytes;
    QP_ASSERT(n >= 0);
    bool overflow = __builtin_mul_overflow((size_t)n, size, &bytes);
    QP_ASSERT(!overflow);
    return bytes;
}

void qp_mem_account(const char *label, int64_t bytes)
{
    pthread_mutex_lock(&state.lock);
    count(find_label(label), bytes, bytes >= 0 ? 1 : -1);
    pthread_mutex_unlock(&state.lock);
}

int64_t qp_mem_alive(void)
{
    return state.alive;
}

void qp_mem_report(void)
{
    qp_log_stat("memory: %.1f MB alive, %.1f MB peak", (double)state.alive / 1e6,
                (double)state.peak / 1e6);
    for (int i = 0; i < state.n_label; i++)
        if (state.label[i].peak > 1000000)
            qp_log_stat("  %-20s %10.1f MB alive %10.1f MB peak", state.label[i].name,
                        (double)state.label[i].alive / 1e6, (double)state.label[i].peak / 1e6);
}

int qp_mem_check_leaks(void)
{
    int n_leak = 0;
    for (int i = 0; i < state.n_label; i++) {
        if (state.label[i].n_block == 0 && state.label[i].alive == 0)
            continue;
        qp_log_error_here("leak: %lld bytes in %lld blocks of %s", (long long)state.label[i].alive,
                          (long long)state.label[i].n_block, state.label[i].name);
        n_leak++;
    }
    return n_leak;
}

int qp_mem_exit_code(int code)
{
    return qp_mem_check_leaks() > 0 && code == QP_OK ? QP_INTERNAL : code;
}
