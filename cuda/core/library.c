#include "cuda/core/library.h"

#include <dlfcn.h>
#include <string.h>

qp_error_t qp_library_open(qp_library_t *library)
{
    for (int i = 0; i < library->n_name && library->handle == NULL; i++)
        library->handle = dlopen(library->name[i], RTLD_NOW | RTLD_LOCAL);
    if (library->handle == NULL)
        return QP_ERROR(QP_INPUT,
                        "device.backend = \"cuda\": %s is not there (a module of the cluster, or "
                        "LD_LIBRARY_PATH): %s",
                        library->what, dlerror());
    return NULL;
}

qp_error_t qp_library_find(const qp_library_t *library, const char *function, void *to,
                           size_t bytes)
{
    void *found = dlsym(library->handle, function);
    if (found == NULL)
        return QP_ERROR(QP_INPUT, "device.backend = \"cuda\": %s has no %s, it is too old",
                        library->what, function);
    memcpy(to, &found, bytes); /* ISO C has no cast from an object to a function */
    return NULL;
}

void qp_library_close(qp_library_t *library)
{
    if (library->handle != NULL)
        (void)dlclose(library->handle);
    library->handle = NULL;
}
