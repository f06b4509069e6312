/* Device memory whose addresses nobody but an op can look behind. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compute/check/check.h"

/* Addresses are only reserved: pages come with the first write. */
static const size_t SPACE = (size_t)1 << 36, GAP = 4096;

/* One per process, as the handler of signals needs it. */
static qp_check_memory_t process_memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const qp_check_block_t *block_at(const qp_check_memory_t *memory, uintptr_t address)
{
    int64_t low = 0, high = memory->n_block;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (memory->block[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &memory->block[low - 1] : NULL;
}

static void name_place(const qp_check_memory_t *memory, uintptr_t address, char *text, size_t size)
{
    const qp_check_block_t *block = block_at(memory, address);
    if (block == NULL)
        snprintf(text, size, "address %#lx, which is in no allocation", (unsigned long)address);
    else
        snprintf(text, size, "byte %zu of '%s' (%zu bytes%s)", (size_t)(address - block->address),
                 block->label, block->bytes, block->alive ? "" : ", released");
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    char place[160], text[256];
    const uintptr_t address = (uintptr_t)info->si_addr;
    (void)context;
    signal(number, SIG_DFL); /* what caused it happens again on return, and ends the process */
    const uintptr_t start = (uintptr_t)process_memory.address;
    if (start == 0 || address < start || address >= start + SPACE)
        return;
    name_place(&process_memory, address, place, sizeof place);
    const int n = snprintf(
        text, sizeof text,
        "device.backend = \"check\": host code reads or writes device memory: %s\n", place);
    if (write(STDERR_FILENO, text, (size_t)n) != n)
        _exit(1);
    abort();
}

__attribute__((noreturn)) static void complain(const qp_check_memory_t *memory, const char *op,
                                               uintptr_t address, size_t bytes)
{
    char place[160];
    name_place(memory, address, place, sizeof place);
    fprintf(stderr, "device.backend = \"check\": %s is given %zu bytes at %s\n", op, bytes, place);
    abort();
}

static qp_error_t reserve(qp_check_memory_t *memory)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *address = mmap(NULL, SPACE, PROT_NONE, flags, -1, 0);
    void *data = mmap(NULL, SPACE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (address == MAP_FAILED || data == MAP_FAILED)
        return QP_ERROR(QP_INTERNAL,
                        "device.backend = \"check\": cannot reserve %zu bytes of "
                        "addresses",
                        SPACE);
    memory->address = address;
    memory->data = data;
    const struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    return NULL;
}

qp_error_t qp_check_memory_open(qp_check_memory_t **out)
{
    qp_check_memory_t *memory = &process_memory;
    *out = NULL;
    if (memory->n_open == 0)
        QP_TRY(reserve(memory));
    memory->n_open++;
    *out = memory;
    return NULL;
}

void qp_check_memory_close(qp_check_memory_t **out)
{
    qp_check_memory_t *memory = *out;
    if (memory == NULL || --memory->n_open > 0)
        return;
    munmap(memory->address, SPACE);
    munmap(memory->data, SPACE);
    qp_free(memory->block);
    memory->address = memory->data = NULL;
    memory->block = NULL;
    memory->used = 0;
    memory->n_block = memory->capacity = 0;
    *out = NULL;
}

/* What lies behind the block. */
static char *behind(const qp_check_memory_t *memory, const qp_check_block_t *block)
{
    return memory->data + (block->address - (uintptr_t)memory->address);
}

qp_error_t qp_check_memory_alloc(qp_check_memory_t *memory, const char *label, size_t bytes,
                                 qp_dptr_t *out)
{
    if (bytes > SPACE - memory->used - 2 * GAP)
        return QP_ERROR(QP_INTERNAL,
                        "device.backend = \"check\": no addresses left for %zu bytes "
                        "(%s)",
                        bytes, label);
    pthread_mutex_lock(&memory->lock);
    if (memory->n_block == memory->capacity) {
        memory->capacity = 2 * memory->capacity + 64;
        memory->block =
            qp_realloc("device", memory->block, qp_bytes(memory->capacity, sizeof *memory->block));
    }
    qp_check_block_t *block = &memory->block[memory->n_block++];
    *block = (qp_check_block_t){.label = label,
                                .address = (uintptr_t)memory->address + memory->used,
                                .bytes = bytes,
                                .alive = true};
    memory->used += (bytes + 2 * GAP - 1) / GAP * GAP;
    memset(behind(memory, block), 0xff, bytes);
    *out = (qp_dptr_t){block->address};
    pthread_mutex_unlock(&memory->lock);
    if (bytes > 0)
        qp_mem_account(label, (int64_t)bytes);
    return NULL;
}

size_t qp_check_memory_release(qp_check_memory_t *memory, qp_dptr_t p, const char **label)
{
    if (qp_dptr_is_null(p))
        return 0;
    pthread_mutex_lock(&memory->lock);
    qp_check_block_t *block = (qp_check_block_t *)block_at(memory, p.address);
    if (block == NULL || !block->alive || block->address != p.address)
        complain(memory, "release", p.address, 0);
    block->alive = false;
    if (block->bytes > 0) {
        qp_mem_account(block->label, -(int64_t)block->bytes);
        madvise(behind(memory, block), (block->bytes + GAP - 1) / GAP * GAP, MADV_DONTNEED);
    }
    const size_t bytes = block->bytes;
    *label = block->label;
    pthread_mutex_unlock(&memory->lock);
    return bytes;
}

qp_dptr_t qp_check_behind(qp_check_memory_t *memory, const char *op, qp_dptr_t p, size_t bytes)
{
    if (qp_dptr_is_null(p))
        return p;
    pthread_mutex_lock(&memory->lock);
    const qp_check_block_t *block = block_at(memory, p.address);
    if (block == NULL || !block->alive || p.address - block->address > block->bytes ||
        bytes > block->bytes - (p.address - block->address))
        complain(memory, op, p.address, bytes);
    pthread_mutex_unlock(&memory->lock);
    return (qp_dptr_t){(uintptr_t)memory->data + (p.address - (uintptr_t)memory->address)};
}
