/* The GGUF reader on any bytes: refused or read, and what is read is inside the file. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "formats/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Dequantises a few rows of every tensor and prints all metadata. */
static void use(const qp_gguf_t *gguf)
{
    for (int64_t i = 0; i < qp_gguf_n_tensor(gguf); i++) {
        const qp_gguf_tensor_t *t = qp_gguf_tensor(gguf, i);
        float *row = QP_NEW("fuzz", float, t->dim[0]);
        for (int64_t j = 0; j < t->dim[1] && j < 4; j++)
            qp_gguf_row(t, j, row);
        qp_free(row);
    }
    qp_str_t json = {0};
    qp_error_t error = qp_gguf_metadata_json(gguf, "", &json);
    qp_error_destroy(&error);
    qp_str_fini(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    qp_gguf_t *gguf = NULL;
    qp_error_t error = qp_gguf_open(path, &gguf);
    if (error == NULL)
        use(gguf);
    qp_error_destroy(&error);
    qp_gguf_close(&gguf);
    close(fd);
    return qp_mem_alive() == 0 ? 0 : (abort(), 0);
}
