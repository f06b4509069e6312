/* Attributes, and the two that every Quipu file carries. */
#include <string.h>

#include "base/mem.h"
#include "h5/h5_impl.h"

/* Longer strings are blobs (the format allows 64 KB for all attributes' headers). */
enum { MAX_STRING = 60000 };

static qp_error_t open_object(const qp_h5_t *file, const char *object, hid_t *id)
{
    return QP_H5(file, object, *id = H5Oopen(file->id, object, H5P_DEFAULT));
}

qp_error_t qp_h5_attr_store(const qp_h5_t *file, const char *object, const char *name, hid_t type,
                            const void *value)
{
    hid_t id = -1, space = -1, attribute = -1;
    qp_error_t error;
    QP_TRY_DONE(open_object(file, object, &id));
    htri_t exists;
    QP_TRY_DONE(QP_H5(file, object, exists = H5Aexists(id, name)));
    if (exists > 0)
        QP_TRY_DONE(QP_H5(file, object, H5Adelete(id, name)));
    QP_TRY_DONE(QP_H5(file, object, space = H5Screate(H5S_SCALAR)));
    QP_TRY_DONE(QP_H5(file, object,
                      attribute = H5Acreate2(id, name, type, space, H5P_DEFAULT, H5P_DEFAULT)));
    QP_TRY_DONE(QP_H5(file, object, H5Awrite(attribute, type, value)));
done:
    error = qp_h5_release(file, object, attribute, error);
    error = qp_h5_release(file, object, space, error);
    error = qp_h5_release(file, object, id, error);
    return qp_h5_latched(file, qp_error_context(error, "attribute %s", name));
}

qp_error_t qp_h5_attr_write(qp_h5_t *file, const char *object, const char *name, hid_t type,
                            const void *value)
{
    QP_TRY(qp_h5_enter_structure(file));
    return qp_h5_agree(
        file, qp_h5_is_builder(file) ? qp_h5_attr_store(file, object, name, type, value) : NULL);
}

/* Opens a scalar attribute of the expected class; *stored is its type. */
static qp_error_t open_attribute(const qp_h5_t *file, const char *object, const char *name,
                                 H5T_class_t type_class, const char *expected, hid_t *attribute,
                                 hid_t *stored)
{
    hid_t id = -1, space = -1;
    qp_error_t error;
    if (!qp_h5_attr_exists(file, object, name))
        return QP_ERROR(QP_INPUT, "%s: %s: no attribute %s", file->path, object, name);
    QP_TRY_DONE(open_object(file, object, &id));
    QP_TRY_DONE(QP_H5(file, object, *attribute = H5Aopen(id, name, H5P_DEFAULT)));
    QP_TRY_DONE(QP_H5(file, object, *stored = H5Aget_type(*attribute)));
    QP_TRY_DONE(QP_H5(file, object, space = H5Aget_space(*attribute)));
    if (H5Tget_class(*stored) != type_class || H5Sget_simple_extent_npoints(space) != 1)
        error = QP_ERROR(QP_INPUT, "%s: %s: attribute %s is not %s", file->path, object, name,
                         expected);
done:
    error = qp_h5_release(file, object, space, error);
    return qp_h5_release(file, object, id, error);
}

qp_error_t qp_h5_attr_read(const qp_h5_t *file, const char *object, const char *name,
                           H5T_class_t type_class, const char *expected, hid_t type, void *value)
{
    hid_t attribute = -1, stored = -1;
    qp_error_t error =
        open_attribute(file, object, name, type_class, expected, &attribute, &stored);
    if (error == NULL)
        error = QP_H5(file, object, H5Aread(attribute, type, value));
    error = qp_h5_release(file, object, stored, error);
    return qp_h5_release(file, object, attribute, error);
}

bool qp_h5_attr_exists(const qp_h5_t *file, const char *object, const char *name)
{
    QP_H5_LOCKED();
    return qp_h5_exists(file, object) && H5Aexists_by_name(file->id, object, name, H5P_DEFAULT) > 0;
}

qp_error_t qp_h5_attr_set_i64(qp_h5_t *file, const char *object, const char *name, int64_t value)
{
    QP_H5_LOCKED();
    return qp_h5_attr_write(file, object, name, H5T_STD_I64LE, &value);
}

qp_error_t qp_h5_attr_set_f64(qp_h5_t *file, const char *object, const char *name, double value)
{
    QP_H5_LOCKED();
    return qp_h5_attr_write(file, object, name, H5T_IEEE_F64LE, &value);
}

qp_error_t qp_h5_attr_get_i64(const qp_h5_t *file, const char *object, const char *name,
                              int64_t *value)
{
    QP_H5_LOCKED();
    return qp_h5_attr_read(file, object, name, H5T_INTEGER, "one integer", H5T_NATIVE_INT64, value);
}

qp_error_t qp_h5_attr_get_f64(const qp_h5_t *file, const char *object, const char *name,
                              double *value)
{
    QP_H5_LOCKED();
    return qp_h5_attr_read(file, object, name, H5T_FLOAT, "one real number", H5T_NATIVE_DOUBLE,
                           value);
}

qp_error_t qp_h5_attr_store_str(const qp_h5_t *file, const char *object, const char *name,
                                const char *value)
{
    size_t n_bytes = strlen(value) + 1;
    if (n_bytes > MAX_STRING)
        return QP_ERROR(QP_INTERNAL, "%s: %s: attribute %s of %zu bytes: use a blob", file->path,
                        object, name, n_bytes);
    hid_t type = -1;
    qp_error_t error;
    QP_TRY_DONE(QP_H5(file, object, type = H5Tcopy(H5T_C_S1)));
    QP_TRY_DONE(QP_H5(file, object, H5Tset_size(type, n_bytes)));
    QP_TRY_DONE(QP_H5(file, object, H5Tset_cset(type, H5T_CSET_UTF8)));
    QP_TRY_DONE(qp_h5_attr_store(file, object, name, type, value));
done:
    return qp_h5_release(file, object, type, error);
}

qp_error_t qp_h5_attr_set_str(qp_h5_t *file, const char *object, const char *name,
                              const char *value)
{
    QP_H5_LOCKED();
    QP_TRY(qp_h5_enter_structure(file));
    return qp_h5_agree(
        file, qp_h5_is_builder(file) ? qp_h5_attr_store_str(file, object, name, value) : NULL);
}

/* Strings of other writers may have variable length. */
static qp_error_t read_variable(const qp_h5_t *file, const char *object, hid_t attribute,
                                hid_t stored, char **value)
{
    char *text = NULL;
    QP_TRY(QP_H5(file, object, H5Aread(attribute, stored, &text)));
    *value = qp_strdup(text != NULL ? text : "");
    return QP_H5(file, object, H5free_memory(text));
}

static qp_error_t read_fixed(const qp_h5_t *file, const char *object, hid_t attribute, hid_t stored,
                             char **value)
{
    size_t n_bytes = H5Tget_size(stored);
    char *text = qp_alloc("h5", n_bytes + 1); /* the stored one may lack its NUL */
    qp_error_t error = QP_H5(file, object, H5Aread(attribute, stored, text));
    if (error == NULL)
        *value = text;
    else
        qp_free(text);
    return error;
}

qp_error_t qp_h5_attr_get_str(const qp_h5_t *file, const char *object, const char *name,
                              char **value)
{
    QP_H5_LOCKED();
    hid_t attribute = -1, stored = -1;
    *value = NULL;
    qp_error_t error =
        open_attribute(file, object, name, H5T_STRING, "a string", &attribute, &stored);
    if (error == NULL)
        error = H5Tis_variable_str(stored) > 0
                    ? read_variable(file, object, attribute, stored, value)
                    : read_fixed(file, object, attribute, stored, value);
    error = qp_h5_release(file, object, stored, error);
    return qp_h5_release(file, object, attribute, error);
}

qp_error_t qp_h5_format_set(qp_h5_t *file, const char *format, int64_t version)
{
    QP_TRY(qp_h5_attr_set_str(file, "/", "quipu_format", format));
    return qp_h5_attr_set_i64(file, "/", "format_version", version);
}

qp_error_t qp_h5_format_check(const qp_h5_t *file, const char *format, int64_t version)
{
    if (!qp_h5_attr_exists(file, "/", "quipu_format"))
        return QP_ERROR(QP_INPUT, "%s: an HDF5 file, but not one of Quipu's (expected a %s)",
                        file->path, format);
    char *found = NULL;
    int64_t found_version = 0;
    qp_error_t error;
    QP_TRY_DONE(qp_h5_attr_get_str(file, "/", "quipu_format", &found));
    QP_TRY_DONE(qp_h5_attr_get_i64(file, "/", "format_version", &found_version));
    if (found == NULL || strcmp(found, format) != 0)
        error = QP_ERROR(QP_INPUT, "%s: is a %s, expected a %s", file->path, found, format);
    else if (found_version > version)
        error = QP_ERROR(QP_INPUT, "%s: %s of format version %lld, this program reads up to %lld",
                         file->path, format, (long long)found_version, (long long)version);
done:
    qp_free(found);
    return error;
}
