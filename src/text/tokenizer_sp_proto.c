#include "text/tokenizer_sp_proto.h"

#include <string.h>

#include "base/mem.h"

/* --- the wire format of protocol buffers ------------------------------------------------------ */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

typedef struct {
    const unsigned char *at, *end;
} wire_t;

typedef struct {
    uint64_t number; /* of the field */
    uint64_t value;  /* varint, or the bits of a 32- or 64-bit field */
    wire_t bytes;    /* of a length-delimited field */
} field_t;

static bool read_varint(wire_t *wire, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && wire->at < wire->end; shift += 7) {
        const unsigned char byte = *wire->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool read_fixed(wire_t *wire, size_t n, uint64_t *value)
{
    if ((size_t)(wire->end - wire->at) < n)
        return false;
    *value = 0;
    memcpy(value, wire->at, n); /* little-endian on both sides */
    wire->at += n;
    return true;
}

static bool read_field(wire_t *wire, field_t *field)
{
    uint64_t key;
    if (!read_varint(wire, &key))
        return false;
    *field = (field_t){.number = key >> 3};
    switch (key & 7) {
    case VARINT:
        return read_varint(wire, &field->value);
    case FIXED64:
        return read_fixed(wire, 8, &field->value);
    case FIXED32:
        return read_fixed(wire, 4, &field->value);
    case BYTES:
        if (!read_varint(wire, &field->value) || field->value > (uint64_t)(wire->end - wire->at))
            return false;
        field->bytes = (wire_t){wire->at, wire->at + field->value};
        wire->at = field->bytes.end;
        return true;
    default:
        return false;
    }
}

static void put_varint(qp_str_t *s, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        qp_str_putc(s, (char)(value | 0x80));
    qp_str_putc(s, (char)value);
}

static void put_number(qp_str_t *s, unsigned field, int64_t value)
{
    put_varint(s, field << 3 | VARINT);
    put_varint(s, (uint64_t)value);
}

static void put_bytes(qp_str_t *s, unsigned field, const char *bytes, size_t n)
{
    put_varint(s, field << 3 | BYTES);
    put_varint(s, n);
    qp_str_append(s, bytes, n);
}

static void put_float(qp_str_t *s, unsigned field, float value)
{
    put_varint(s, field << 3 | FIXED32);
    qp_str_append(s, &value, sizeof value); /* little-endian on both sides */
}

/* Puts the message into the field and empties it. */
static void put_message(qp_str_t *s, unsigned field, qp_str_t *message)
{
    put_bytes(s, field, message->data, message->n);
    qp_str_clear(message);
}

/* --- field numbers ---------------------------------------------------------------------------- */

/* ModelProto, SentencePiece, TrainerSpec, NormalizerSpec. */
enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { MODEL_TYPE = 3, WHITESPACE_AS_SUFFIX = 24, BYTE_FALLBACK = 35 };
enum { UNK_ID = 40, BOS_ID = 41, EOS_ID = 42, PAD_ID = 43 };
enum { NAME = 1, CHARSMAP = 2, DUMMY_PREFIX = 3, REMOVE_EXTRA = 4, ESCAPE = 5 };

/* --- messages --------------------------------------------------------------------------------- */

void qp_sp_proto_push(qp_sp_proto_t *proto, qp_sp_piece_t piece)
{
    if (proto->n_piece == proto->capacity) {
        proto->capacity = 2 * proto->capacity + 1024;
        proto->piece =
            qp_realloc("tokenizer", proto->piece, qp_bytes(proto->capacity, sizeof *proto->piece));
    }
    proto->piece[proto->n_piece++] = piece;
}

static bool read_piece(wire_t wire, qp_sp_proto_t *proto)
{
    field_t field;
    qp_sp_piece_t piece = {.text = "", .type = QP_SP_NORMAL};
    while (wire.at < wire.end) {
        if (!read_field(&wire, &field))
            return false;
        if (field.number == PIECE_TEXT && field.bytes.at != NULL) {
            piece.text = (const char *)field.bytes.at;
            piece.n_text = (size_t)(field.bytes.end - field.bytes.at);
        } else if (field.number == PIECE_SCORE) {
            memcpy(&piece.score, &field.value, sizeof piece.score);
        } else if (field.number == PIECE_TYPE) {
            piece.type = (int64_t)field.value;
        }
    }
    qp_sp_proto_push(proto, piece);
    return true;
}

static bool read_trainer(wire_t wire, qp_sp_proto_t *proto)
{
    field_t field;
    while (wire.at < wire.end) {
        if (!read_field(&wire, &field))
            return false;
        if (field.number == MODEL_TYPE)
            proto->model_type = (int64_t)field.value;
        else if (field.number == WHITESPACE_AS_SUFFIX)
            proto->whitespace_as_suffix = field.value != 0;
        else if (field.number == BYTE_FALLBACK)
            proto->byte_fallback = field.value != 0;
    }
    return true;
}

static bool read_normalizer(wire_t wire, qp_sp_proto_t *proto)
{
    field_t field;
    while (wire.at < wire.end) {
        if (!read_field(&wire, &field))
            return false;
        if (field.number == CHARSMAP)
            proto->charsmap = field.bytes.at != field.bytes.end;
        else if (field.number == DUMMY_PREFIX)
            proto->dummy_prefix = field.value != 0;
        else if (field.number == REMOVE_EXTRA)
            proto->remove_extra_whitespaces = field.value != 0;
        else if (field.number == ESCAPE)
            proto->escape_whitespaces = field.value != 0;
    }
    return true;
}

void qp_sp_proto_fini(qp_sp_proto_t *proto)
{
    QP_FREE(proto->piece);
    proto->n_piece = proto->capacity = 0;
}

qp_error_t qp_sp_proto_read(const void *model, size_t n_bytes, qp_sp_proto_t *proto)
{
    wire_t wire = {model, (const unsigned char *)model + n_bytes};
    field_t field;
    *proto = (qp_sp_proto_t){.dummy_prefix = true, /* the format's defaults */
                             .remove_extra_whitespaces = true,
                             .escape_whitespaces = true};
    bool ok = true;
    while (ok && wire.at < wire.end) {
        ok = read_field(&wire, &field);
        if (ok && field.number == PIECES)
            ok = read_piece(field.bytes, proto);
        else if (ok && field.number == TRAINER)
            ok = read_trainer(field.bytes, proto);
        else if (ok && field.number == NORMALIZER)
            ok = read_normalizer(field.bytes, proto);
    }
    return ok ? NULL : QP_ERROR(QP_INPUT, "not a SentencePiece model: damaged at its end");
}

void qp_sp_proto_write(const qp_sp_proto_t *proto, qp_str_t *model)
{
    qp_str_t part = {0};
    for (int64_t i = 0; i < proto->n_piece; i++) {
        const qp_sp_piece_t *piece = &proto->piece[i];
        put_bytes(&part, PIECE_TEXT, piece->text, piece->n_text);
        put_float(&part, PIECE_SCORE, piece->score);
        put_number(&part, PIECE_TYPE, piece->type);
        put_message(model, PIECES, &part);
    }
    put_number(&part, MODEL_TYPE, proto->model_type);
    put_number(&part, WHITESPACE_AS_SUFFIX, proto->whitespace_as_suffix);
    put_number(&part, BYTE_FALLBACK, proto->byte_fallback);
    put_number(&part, UNK_ID, proto->unk_id);
    put_number(&part, BOS_ID, proto->bos_id);
    put_number(&part, EOS_ID, proto->eos_id);
    put_number(&part, PAD_ID, -1);
    put_message(model, TRAINER, &part);
    put_bytes(&part, NAME, "identity", strlen("identity"));
    put_number(&part, DUMMY_PREFIX, proto->dummy_prefix);
    put_number(&part, REMOVE_EXTRA, proto->remove_extra_whitespaces);
    put_number(&part, ESCAPE, proto->escape_whitespaces);
    put_message(model, NORMALIZER, &part);
    qp_str_fini(&part);
}
