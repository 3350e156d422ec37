// Run the forward methods of ExecuTorch files on inputs read from a file, and time them.
//
//   runner THREADS ROUNDS SECONDS INPUTS SAMPLES MODEL.pte OUTPUTS [MODEL.pte OUTPUTS ...]
//
// INPUTS holds, sample after sample, the bytes of each input tensor in its memory order; OUTPUTS
// is written in the same manner. With ROUNDS above 0 each model is warmed up and then timed once a
// round, in random order, for about SECONDS in all; a line "MODEL'S PLACE, SECONDS A CALL" for each
// goes to stdout. THREADS is 0 for the runtime's own choice.
// On failure one line on stderr says what failed and why.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::extension::make_tensor_ptr;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

// The wheel has this in a library and lacks its header (extension/threadpool/threadpool.h).
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

constexpr double kWarmUp = 1;  // seconds for each model: clocks rise, caches fill

[[noreturn]] void fail(const char* what, Error error) {
  std::fprintf(stderr, "runner: %s: %s\n", what, executorch::runtime::to_string(error));
  std::exit(1);
}

// A tensor of the method's shape, type and memory order over bytes of its own.
TensorPtr input_tensor(Module& module, size_t index, std::vector<char>& bytes) {
  auto method = module.method_meta("forward");
  if (!method.ok()) fail("cannot read the method", method.error());
  auto info = method->input_tensor_meta(index);
  if (!info.ok()) fail("an input is not a tensor", info.error());
  bytes.resize(info->nbytes());
  return make_tensor_ptr(
      {info->sizes().begin(), info->sizes().end()},
      bytes.data(),
      {info->dim_order().begin(), info->dim_order().end()},
      {},
      info->scalar_type());
}

// A loaded file, and its inputs.
struct Model {
  Module module;
  std::vector<std::vector<char>> bytes;
  std::vector<EValue> inputs;
  std::vector<TensorPtr> tensors;

  explicit Model(const char* path) : module(path) {
    if (auto error = module.load_forward(); error != Error::Ok) fail("cannot load", error);
    bytes.resize(module.method_meta("forward")->num_inputs());
    for (size_t i = 0; i < bytes.size(); ++i) {
      tensors.push_back(input_tensor(module, i, bytes[i]));
    }
    inputs.assign(tensors.begin(), tensors.end());
  }

  std::vector<EValue> run() {
    auto outputs = module.execute("forward", inputs);
    if (!outputs.ok()) fail("cannot run", outputs.error());
    return *outputs;
  }

  // Seconds a call.
  double time(int calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) run();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return passed.count() / calls;
  }
};

void write_outputs(Model& model, const char* inputs, const char* outputs, int samples) {
  std::ifstream source(inputs, std::ios::binary);
  std::ofstream target(outputs, std::ios::binary);
  for (; samples > 0; --samples) {
    for (auto& part : model.bytes) source.read(part.data(), part.size());
    if (!source) fail("the inputs are too short", Error::InvalidArgument);
    for (const auto& output : model.run()) {
      if (!output.isTensor()) fail("an output is not a tensor", Error::InvalidType);
      const auto& tensor = output.toTensor();
      target.write(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    }
  }
  if (!target.flush()) fail("cannot write the outputs", Error::AccessFailed);
}

void time_in_turns(std::vector<std::unique_ptr<Model>>& models, int rounds, double seconds) {
  std::vector<int> calls;
  std::vector<size_t> order;
  for (auto& model : models) {
    double fastest = model->time(1);
    for (double spent = fastest; spent < kWarmUp;) {
      const double once = model->time(1);
      spent += once;
      fastest = std::min(fastest, once);
    }
    calls.push_back(std::max(1, static_cast<int>(std::lround(seconds / rounds / fastest))));
    order.push_back(order.size());
  }
  std::mt19937 chance(0);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), chance);
    for (const size_t i : order) {
      if (calls[i] > 1) models[i]->run();  // the model before has emptied the caches
      std::printf("%zu %.9g\n", i, models[i]->time(calls[i]));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 8 || argc % 2) fail("the arguments are wrong", Error::InvalidArgument);
  const int threads = std::atoi(argv[1]), rounds = std::atoi(argv[2]);
  if (threads > 0 &&
      !executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads)) {
    fail("cannot set the number of threads", Error::InvalidArgument);
  }
  std::vector<std::unique_ptr<Model>> models;
  for (int i = 6; i < argc; i += 2) {
    models.push_back(std::make_unique<Model>(argv[i]));
    write_outputs(*models.back(), argv[4], argv[i + 1], std::atoi(argv[5]));
  }
  if (rounds > 0) time_in_turns(models, rounds, std::atof(argv[3]));
  return 0;
}
