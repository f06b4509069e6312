/* The safetensors reader on any bytes: refused or read, and what is read is inside the file. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", 0);
    char path[64], link_path[64];
    /* The reader tells a file from a folder by its name. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(link_path, sizeof link_path, "/tmp/quipu-fuzz-%d.safetensors", (int)getpid());
    unlink(link_path);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || symlink(path, link_path) != 0)
        abort();
    qp_safetensors_t *st = NULL;
    qp_error_t error = qp_safetensors_open(link_path, &st);
    for (int64_t i = 0; error == NULL && i < qp_safetensors_n(st); i++) {
        const qp_tensor_t *t = qp_safetensors_at(st, i);
        (void)qp_hash_bytes(t->data, t->n_bytes);
        if (qp_safetensors_find(st, t->name) != t)
            abort();
    }
    qp_error_destroy(&error);
    qp_safetensors_close(&st);
    unlink(link_path);
    close(fd);
    return qp_mem_alive() == 0 ? 0 : (abort(), 0);
}
