// llama.cpp's C API lets C++ exceptions through: the allocator's, or std::out_of_range from look-ups. An exception that
// reached Rust would abort the process, so every call that may throw is made here, and returns `false` with the
// exception's text.
//
// Failed assertions of ggml (GGML_ASSERT, GGML_ABORT) end the process and can't be caught: the caller checks sizes and ids.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <mutex>

#include "ggml-backend.h"
#include "kernels.h"
#include "llama.h"

namespace {

template <typename Call>
bool guarded(char * what, size_t what_size, Call && call) noexcept {
    try {
        call();
        return true;
    } catch (const std::exception & exception) {
        std::snprintf(what, what_size, "%s", exception.what());
    } catch (...) {
        std::snprintf(what, what_size, "unknown C++ exception");
    }
    return false;
}

// The kernels may be a library that was loaded by name, so functions that llama.h lacks are looked up by name. That is done
// when the first pool is made: a pool may be freed while the process ends, when ggml's list of libraries is gone already.
ggml_threadpool * (*new_threads)(ggml_threadpool_params *) = nullptr;
void (*free_threads)(ggml_threadpool *) = nullptr;
std::once_flag threads_found;

void find_threads() {
    if (ggml_backend_reg_t kernels = ggml_backend_reg_by_name("CPU")) {
        new_threads = reinterpret_cast<decltype(new_threads)>(ggml_backend_reg_get_proc_address(kernels, "ggml_threadpool_new"));
        free_threads = reinterpret_cast<decltype(free_threads)>(ggml_backend_reg_get_proc_address(kernels, "ggml_threadpool_free"));
    }
}

} // namespace

extern "C" {

bool weir_model_load(const char * path, const llama_model_params * params, llama_model ** model, char * what,
                     size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *model = llama_model_load_from_file(path, *params); });
}

bool weir_context_new(llama_model * model, const llama_context_params * params, llama_context ** context, char * what,
                      size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *context = llama_init_from_model(model, *params); });
}

// llama_decode only starts the computation; llama_synchronize waits for it here, so that its exceptions are caught too.
// `unwanted` is called between any two operations; if it returns `true`, the code is 2.
bool weir_decode(llama_context * context, const llama_batch * batch, ggml_abort_callback unwanted, void * data,
                 int32_t * code, char * what, size_t what_size) noexcept {
    llama_set_abort_callback(context, unwanted, data);
    const bool done = guarded(what, what_size, [&] {
        *code = llama_decode(context, *batch);
        llama_synchronize(context);
    });
    // From here on the caller may free what `data` points to.
    llama_set_abort_callback(context, nullptr, nullptr);
    return done;
}

bool weir_logits(llama_context * context, int32_t row, const float ** logits, char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *logits = llama_get_logits_ith(context, row); });
}

bool weir_embedding(llama_context * context, int32_t row, const float ** vector, char * what,
                    size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *vector = llama_get_embeddings_ith(context, row); });
}

bool weir_tokenize(const llama_vocab * vocab, const char * text, int32_t text_size, llama_token * tokens,
                   int32_t tokens_size, bool parse_special, int32_t * count, char * what,
                   size_t what_size) noexcept {
    return guarded(what, what_size, [&] {
        *count = llama_tokenize(vocab, text, text_size, tokens, tokens_size, /* add_special */ false, parse_special);
    });
}

bool weir_piece(const llama_vocab * vocab, llama_token token, char * bytes, int32_t bytes_size, int32_t * count,
                char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] {
        *count = llama_token_to_piece(vocab, token, bytes, bytes_size, /* lstrip */ 0, /* special */ false);
    });
}

bool weir_quantize(const char * from, const char * to, const llama_model_quantize_params * params, uint32_t * code,
                   char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *code = llama_model_quantize(from, to, params); });
}

// The bytes of the cache's content of a sequence. If that can't be read, the size is 0 and the log says why.
bool weir_state_size(llama_context * context, llama_seq_id sequence, size_t * bytes, char * what,
                     size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *bytes = llama_state_seq_get_size(context, sequence); });
}

bool weir_state_get(llama_context * context, llama_seq_id sequence, uint8_t * state, size_t size, size_t * bytes,
                    char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *bytes = llama_state_seq_get_data(context, state, size, sequence); });
}

// Replaces the cache's content of the sequence. `bytes` becomes 0 if there is no room for the state.
bool weir_state_set(llama_context * context, llama_seq_id sequence, const uint8_t * state, size_t size, size_t * bytes,
                    char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *bytes = llama_state_seq_set_data(context, state, size, sequence); });
}

// The following functions allocate a few bytes at most. If that fails they end the process, as Rust's allocations do:
// `noexcept` turns the exception into std::terminate.

void weir_sequence_copy(llama_context * context, llama_seq_id from, llama_seq_id to, llama_pos begin,
                        llama_pos end) noexcept {
    llama_memory_seq_cp(llama_get_memory(context), from, to, begin, end);
}

bool weir_sequence_remove(llama_context * context, llama_seq_id sequence, llama_pos begin) noexcept {
    return llama_memory_seq_rm(llama_get_memory(context), sequence, begin, -1);
}

// Empties all sequences. Does nothing for a model without a cache.
void weir_clear(llama_context * context) noexcept {
    if (llama_memory_t memory = llama_get_memory(context)) {
        llama_memory_clear(memory, /* data */ false);
    }
}

// Returns null if the kernels have no thread pools.
ggml_threadpool * weir_threads_new(int32_t threads, uint32_t polling) noexcept {
    std::call_once(threads_found, find_threads);
    ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    params.poll = polling;
    return new_threads && free_threads ? new_threads(&params) : nullptr;
}

void weir_threads_free(ggml_threadpool * threads) noexcept {
    free_threads(threads);
}

// Multiplies with weights of each kind that the loaded kernels support. The exception's text names the first wrong product.
// `spoil` falsifies an output of each, to test that this is noticed.
bool weir_kernels_check(bool spoil, int32_t * products, char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *products = weir::check_kernels(spoil); });
}

// Loads the kernels from a library. `loaded` is false if the library isn't for this processor; other errors are in the log.
bool weir_kernels_load(const char * path, bool * loaded, char * what, size_t what_size) noexcept {
    return guarded(what, what_size, [&] { *loaded = ggml_backend_load(path) != nullptr; });
}

} // extern "C"
