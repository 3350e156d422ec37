// Run an ExecuTorch file's forward method on inputs read from a file.
//
//   runner MODEL.pte INPUTS OUTPUTS SAMPLES
//
// INPUTS holds, sample after sample, the bytes of each input tensor in its memory order; OUTPUTS
// is written in the same manner. On failure one line on stderr says what failed and why.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::extension::make_tensor_ptr;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

namespace {

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) fail("it takes a model, inputs, outputs and a number", Error::InvalidArgument);
  Module module(argv[1]);
  if (auto error = module.load_forward(); error != Error::Ok) fail("cannot load", error);

  std::vector<std::vector<char>> bytes(module.method_meta("forward")->num_inputs());
  std::vector<TensorPtr> tensors;
  for (size_t i = 0; i < bytes.size(); ++i) tensors.push_back(input_tensor(module, i, bytes[i]));
  const std::vector<EValue> inputs(tensors.begin(), tensors.end());

  std::ifstream source(argv[2], std::ios::binary);
  std::ofstream target(argv[3], std::ios::binary);
  for (int sample = std::atoi(argv[4]); sample > 0; --sample) {
    for (auto& part : bytes) source.read(part.data(), part.size());
    if (!source) fail("the inputs are too short", Error::InvalidArgument);
    auto outputs = module.execute("forward", inputs);
    if (!outputs.ok()) fail("cannot run", outputs.error());
    for (const auto& output : *outputs) {
      if (!output.isTensor()) fail("an output is not a tensor", Error::InvalidType);
      const auto& tensor = output.toTensor();
      target.write(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    }
  }
  if (!target.flush()) fail("cannot write the outputs", Error::AccessFailed);
  return 0;
}
