#include "text/sentencepiece_shim.h"

#include <sentencepiece_processor.h>

#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

struct qp_sp {
    sentencepiece::SentencePieceProcessor processor;
};

namespace
{

char *message_of(const std::string &text)
{
    char *copy = new char[text.size() + 1];
    std::memcpy(copy, text.c_str(), text.size() + 1);
    return copy;
}

/* Runs body(), which returns a Status; NULL or the message of what went wrong. */
template <typename Body> char *guarded(const Body &body)
{
    try {
        const sentencepiece::util::Status status = body();
        return status.ok() ? nullptr : message_of(status.ToString());
    } catch (const std::exception &e) {
        return message_of(e.what());
    } catch (...) {
        return message_of("unknown exception");
    }
}

} // namespace

char *qp_sp_create(const void *model, size_t n_bytes, qp_sp_t **sp)
{
    return guarded([&] {
        auto made = std::make_unique<qp_sp>();
        const auto status = made->processor.LoadFromSerializedProto(
            absl::string_view(static_cast<const char *>(model), n_bytes));
        if (status.ok())
            *sp = made.release();
        return status;
    });
}

void qp_sp_destroy(qp_sp_t *sp)
{
    delete sp;
}

void qp_sp_message_free(char *message)
{
    delete[] message;
}

char *qp_sp_encode(const qp_sp_t *sp, const char *text, size_t n_bytes,
                   void (*push)(void *owner, int32_t id, size_t begin, size_t end), void *owner)
{
    return guarded([&] {
        sentencepiece::ImmutableSentencePieceText pieces;
        const auto status =
            sp->processor.Encode(absl::string_view(text, n_bytes), pieces.mutable_proto());
        for (size_t i = 0; i < pieces.pieces_size(); i++) {
            const auto piece = pieces.pieces(static_cast<int>(i));
            push(owner, static_cast<int32_t>(piece.id()), piece.begin(), piece.end());
        }
        return status;
    });
}

char *qp_sp_decode(const qp_sp_t *sp, const int32_t *id, size_t n,
                   void (*put)(void *owner, const char *text, size_t n_bytes), void *owner)
{
    return guarded([&] {
        std::string text;
        const auto status = sp->processor.Decode(std::vector<int>(id, id + n), &text);
        if (status.ok())
            put(owner, text.data(), text.size());
        return status;
    });
}

int32_t qp_sp_n_vocab(const qp_sp_t *sp)
{
    return sp->processor.GetPieceSize();
}

int32_t qp_sp_bos(const qp_sp_t *sp)
{
    return sp->processor.bos_id();
}

int32_t qp_sp_eos(const qp_sp_t *sp)
{
    return sp->processor.eos_id();
}

const char *qp_sp_piece(const qp_sp_t *sp, int32_t id)
{
    return sp->processor.IdToPiece(id).c_str();
}

int32_t qp_sp_unk(const qp_sp_t *sp)
{
    return sp->processor.unk_id();
}

int qp_sp_is_control(const qp_sp_t *sp, int32_t id)
{
    return sp->processor.IsControl(id);
}
