// Checks that the kernels multiply correctly on this machine. A library of kernels is picked by the processor's feature flags,
// which some virtual machines report wrongly: then the check dies with SIGILL, or finds wrong products.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace {

// A multiple of all block sizes, and a size that AMX and the repacked kernels accept.
constexpr int64_t COLUMNS = 512;
constexpr int64_t OUTPUTS = 64;
// The batch sizes of one stream, several streams and a prompt, which different kernels compute.
constexpr int64_t ROWS[] = {1, 5, 32};
constexpr ggml_type TYPES[] = {
    GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0,   GGML_TYPE_Q5_1,  GGML_TYPE_Q8_0,
    GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,
    GGML_TYPE_MXFP4,
};
// The largest sum of squared errors, relative to the sum of the squared products. This is the limit of llama.cpp's own tests;
// errors arise since activations are rounded to 8 bits.
constexpr double ERROR_MAX = 5e-4;
// The largest error of a single output, relative to the root mean square of all outputs: a wrong one must not drown among the others.
constexpr double OUTPUT_ERROR_MAX = 0.1;
// More threads would only wait for each other.
constexpr int THREADS = 2;

template <auto Free>
struct Deleter {
    template <typename T> void operator()(T * value) const { Free(value); }
};
using Context = std::unique_ptr<ggml_context, Deleter<ggml_free>>;
using Buffer = std::unique_ptr<ggml_backend_buffer, Deleter<ggml_backend_buffer_free>>;
using Backend = std::unique_ptr<ggml_backend, Deleter<ggml_backend_free>>;

template <typename T> T there(T value, const char * what) {
    if (!value) {
        throw std::runtime_error(std::string("no ") + what);
    }
    return value;
}

Context new_context() {
    ggml_init_params params = {4 * ggml_tensor_overhead() + ggml_graph_overhead(), /* mem_buffer */ nullptr, /* no_alloc */ true};
    return Context(there(ggml_init(params), "context"));
}

// Numbers between -1 and 1, the same in every run.
std::vector<float> numbers(int64_t count, uint32_t state) {
    std::vector<float> found(count);
    for (float & number : found) {
        state = state * 1664525u + 1013904223u;
        number = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
    }
    return found;
}

std::vector<uint8_t> encode(ggml_type type, const std::vector<float> & weights) {
    std::vector<uint8_t> data(ggml_row_size(type, COLUMNS) * OUTPUTS);
    ggml_quantize_chunk(type, weights.data(), data.data(), 0, OUTPUTS, COLUMNS, nullptr);
    return data;
}

std::vector<float> decode(ggml_type type, const std::vector<uint8_t> & data, const std::vector<float> & weights) {
    if (type == GGML_TYPE_F32) {
        return weights;
    }
    std::vector<float> found(weights.size());
    ggml_get_type_traits(type)->to_float(data.data(), found.data(), OUTPUTS * COLUMNS);
    return found;
}

bool are_right(const std::vector<float> & found, const std::vector<float> & weights, const std::vector<float> & inputs, int64_t rows) {
    double wrong = 0, all = 0, worst = 0;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t output = 0; output < OUTPUTS; output++) {
            double expected = 0;
            for (int64_t column = 0; column < COLUMNS; column++) {
                expected += double(weights[output * COLUMNS + column]) * double(inputs[row * COLUMNS + column]);
            }
            const double difference = found[row * OUTPUTS + output] - expected;
            wrong += difference * difference;
            all += expected * expected;
            worst = std::max(worst, std::isnan(difference) ? INFINITY : std::fabs(difference));
        }
    }
    return wrong <= ERROR_MAX * all && worst <= OUTPUT_ERROR_MAX * std::sqrt(all / double(rows * OUTPUTS));
}

// Whether the device multiplies with these weights in this kind of memory, which determines the kernel.
bool is_supported(ggml_backend_dev_t device, ggml_backend_buffer_type_t memory, ggml_tensor * weights, ggml_tensor * product) {
    Buffer nothing(there(ggml_backend_buft_alloc_buffer(memory, 0), "buffer"));
    weights->buffer = nothing.get();
    const bool supported = ggml_backend_dev_supports_op(device, product);
    weights->buffer = nullptr;
    return supported;
}

// Checks a product of this type, memory and batch size. Returns false if the device doesn't support it.
bool check_product(ggml_backend_t backend, ggml_backend_buffer_type_t memory, ggml_type type, int64_t rows, bool spoil) {
    const Context kept = new_context();
    const Context passing = new_context();
    ggml_tensor * weights = ggml_new_tensor_2d(kept.get(), type, COLUMNS, OUTPUTS);
    ggml_tensor * inputs = ggml_new_tensor_2d(passing.get(), GGML_TYPE_F32, COLUMNS, rows);
    ggml_tensor * product = ggml_mul_mat(passing.get(), weights, inputs);
    if (!is_supported(ggml_backend_get_device(backend), memory, weights, product)) {
        return false;
    }
    const Buffer weights_memory(there(ggml_backend_alloc_ctx_tensors_from_buft(kept.get(), memory), "memory for weights"));
    const Buffer rest_memory(there(ggml_backend_alloc_ctx_tensors(passing.get(), backend), "memory"));

    const std::vector<float> exact = numbers(COLUMNS * OUTPUTS, 1);
    const std::vector<float> values = numbers(COLUMNS * rows, 2);
    const std::vector<uint8_t> data = encode(type, exact);
    ggml_backend_tensor_set(weights, data.data(), 0, data.size());
    ggml_backend_tensor_set(inputs, values.data(), 0, values.size() * sizeof(float));
    ggml_cgraph * graph = ggml_new_graph(passing.get());
    ggml_build_forward_expand(graph, product);
    const ggml_status status = ggml_backend_graph_compute(backend, graph);
    std::vector<float> found(OUTPUTS * rows);
    ggml_backend_tensor_get(product, found.data(), 0, found.size() * sizeof(float));

    if (spoil) {
        found.back() = 0;
    }
    if (status != GGML_STATUS_SUCCESS || !are_right(found, decode(type, data, exact), values, rows)) {
        throw std::runtime_error(std::string("wrong products of ") + ggml_type_name(type) + " in " + ggml_backend_buft_name(memory) + ", " +
                                 std::to_string(rows) + " rows");
    }
    return true;
}

// The device's plain memory, and the kinds in which kernels rearrange weights (repacked, AMX).
std::vector<ggml_backend_buffer_type_t> memories(ggml_backend_dev_t device) {
    std::vector<ggml_backend_buffer_type_t> found = {ggml_backend_dev_buffer_type(device)};
    const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    for (ggml_backend_buffer_type_t * next = extra ? extra(device) : nullptr; next && *next; next++) {
        found.push_back(*next);
    }
    return found;
}

} // namespace

int weir::check_kernels(bool spoil) {
    const Backend backend(there(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr), "kernels for the CPU"));
    ggml_backend_dev_t device = ggml_backend_get_device(backend.get());
    const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"));
    there(set_threads, "way to set threads")(backend.get(), THREADS);
    int products = 0;
    for (ggml_backend_buffer_type_t memory : memories(device)) {
        for (ggml_type type : TYPES) {
            for (int64_t rows : ROWS) {
                products += check_product(backend.get(), memory, type, rows, spoil);
            }
        }
    }
    return products;
}
