/* What a path is, known before anything is opened that could wait or give a library's message. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "inspect.h"

static const char *const shown = "quipu-inspect shows .h5 files of Quipu and PEFT adapter folders";

/* Files that people have beside Quipu's, by their first bytes. */
static const struct {
    const char *begin, *what;
} others[] = {
    {"version https://git-lfs.github.com/spec/",
     "a Git LFS pointer, not the file itself: run git lfs pull"},
    {"GGUF", "a GGUF model: import it"},
    {"PK\3\4", "a zip archive, as PyTorch's pickles are"},
    {"\x1f\x8b", "compressed with gzip"},
};
enum { N_BEGIN = 64 };

static qp_error_t read_begin(const char *path, char begin[N_BEGIN], size_t *n)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return QP_ERROR(QP_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    *n = fread(begin, 1, N_BEGIN, file);
    fclose(file);
    return NULL;
}

static qp_error_t check_begin(const char *path)
{
    static const char hdf5[] = "\x89HDF\r\n\x1a\n";
    char begin[N_BEGIN];
    size_t n;
    QP_TRY(read_begin(path, begin, &n));
    if (n == 0)
        return QP_ERROR(QP_INPUT, "%s: is empty", path);
    if (n >= sizeof hdf5 - 1 && memcmp(begin, hdf5, sizeof hdf5 - 1) == 0)
        return NULL;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (n >= strlen(others[i].begin) &&
            memcmp(begin, others[i].begin, strlen(others[i].begin)) == 0)
            return QP_ERROR(QP_INPUT, "%s: is %s; %s", path, others[i].what, shown);
    return QP_ERROR(QP_INPUT, "%s: is no HDF5 file; %s", path, shown);
}

qp_error_t qp_inspect_kind(const char *path, bool *is_folder)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return QP_ERROR(QP_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    *is_folder = S_ISDIR(status.st_mode);
    if (*is_folder)
        return NULL;
    if (!S_ISREG(status.st_mode))
        return QP_ERROR(QP_INPUT, "%s: is neither a file nor a folder; %s", path, shown);
    return check_begin(path);
}

qp_error_t qp_inspect_check_h5(const char *path)
{
    bool is_folder;
    QP_TRY(qp_inspect_kind(path, &is_folder));
    return is_folder ? QP_ERROR(QP_INPUT, "%s: is a folder, expected a .h5 file", path) : NULL;
}
