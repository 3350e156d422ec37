"""What the messages of PyTorch and other runtimes mean, and the way out: the table of `explain`."""

ELSEWHERE = "compute it outside the exported model, or write it with other operators"
# What a message says (a regular expression) → what it means, and the way out. The first that is
# found counts; a group in it is the operator, and {line} the line of the author's code.
CAUSES = {
    r"with arguments from the 'CPU' backend": (
        "a quantized layer received ordinary floats: put a QuantStub before it, or wrap the "
        "model in QuantWrapper"
    ),
    r"'QuantizedCPU' backend": (
        "an operator that only knows floats received a quantized tensor: dequantize before it, "
        "or use FloatFunctional for an addition"
    ),
    r"quint8\).*should be the same": (
        "a float layer stands inside the quantized region: quantize it too, or put a "
        "DeQuantStub before it"
    ),
    r"got Float and Byte|'function' object has no attribute 'device'|has no .* 'in_proj_bias'": (
        "PyTorch's transformer layers read the float weights of the layers inside them: call "
        "torch.backends.mha.set_fastpath_enabled(False), or leave those layers in float"
    ),
    r"'(?:function|method)' object has no|must be Tensor, not \w*(?:method|function)|"
    r"Tensor dispatch: attempting to run unimplemented": (
        "a layer's weight is used outside that layer{line}, and a quantized layer holds it packed: "
        "leave that layer in float, or compute with a float copy of its weight"
    ),
    r"'padding_mode' (\w+) is not supported": (
        "an int8 convolution pads with zeros, and one has padding_mode='{0}': pad with a layer of "
        "its own before it, or leave that convolution in float"
    ),
    r"prepack\(\) is missing value for argument 'bias'": (
        "an int8 convolution that is called as a function needs a bias{line}: give it one, or use "
        "a layer such as nn.Conv2d"
    ),
    r"prepack\(\) Expected a value of type 'List\[int\]' for argument 'padding'": (
        "an int8 convolution pads both sides alike, which padding='same' with an even kernel does "
        "not: pad with nn.ZeroPad2d before it"
    ),
    r"on quantized tensors|Got QUInt8 and Float": (
        "an operator that only knows floats received a quantized tensor: dequantize before it"
    ),
    r"'Tensor' and 'NoneType'|'NoneType' object has no attribute 'numel'|an undefined Tensor|"
    r"must be Tensor, not NoneType": (
        "tracing takes an argument of its forward that is None for a tensor{line}: wrap the model "
        "in a module that takes one tensor and gives the others"
    ),
    r"'NoneType' object has no attribute 'weight'": (
        "FX mode cannot leave a PReLU in float, and its int8 form is wrong: put a LeakyReLU in its "
        "place, or quantize the model by PT2E"
    ),
    r"Dimension out of range": (
        "a weight or a tensor has fewer dimensions than an operator asks for{line}: quantize per "
        "tensor, or keep that layer in float"
    ),
    r"'tuple' object has no attribute 'numel'": (
        "eager mode cannot observe a layer that returns a tuple, such as a GRU: leave it in float "
        "(qconfig = None), or quantize it dynamically"
    ),
    r"no attribute 'activation_post_process'": (
        "quantization-aware training does not convert PyTorch's attention layers: leave them in "
        "float, or quantize the model without training"
    ),
    r"mod\.bias must be True": (
        "dynamic quantization takes an LSTM or a GRU with biases only: build it with bias=True, or "
        "leave it in float"
    ),
    r"rows in the packB": (
        "dynamic quantization does not know an LSTM's proj_size: put a Linear layer after an LSTM "
        "without it, or leave it in float"
    ),
    r"linalg\.cholesky": (
        "a layer's inputs are constant, or so large that their squares overflow, on these samples: "
        "give normalized real samples, or another scheme"
    ),
    r"not implemented for '?Complex": (
        "an operator or an observer is given complex numbers{line}: leave that layer in float, or "
        "compute with torch.view_as_real(x)"
    ),
    r"(?:Unsupported dtype|not implemented for) '?(BFloat16|Half)": (
        "an operator does not compute in {0}{line}: give it x.float() there, or keep float32"
    ),
    r"not implemented for '(?:Long|Int|Short|Char|Byte|Bool)'": (
        "an operator or an observer takes floats only, and is given integers{line}: give x.float()"
    ),
    r"should be the same|have the same dtype|expected scalar type|to have dtype|"
    r"input data type|set_inputs\(\).*0x12": (
        "weights and inputs are of different types: call float() on the model, and give it "
        "float32 inputs; a tensor that forward makes takes its type from another by x.new_zeros"
    ),
    r"required rank \d tensor to use (channels_last\w*)": (
        "the memory format {0} does not fit the number of a tensor's dimensions{line}: leave that "
        "memory format out"
    ),
    r"view size is not compatible": (
        "a convolution's output is channels_last here, as that of a quantized one always is: use "
        "flatten(1) instead of view"
    ),
    r"is not finite": (
        "weights or activations are not finite: look for a layer whose output is not isfinite()"
    ),
    r"[Pp]arametriz|as parameter 'weight'": (
        "a layer computes its weight anew in each call (weight_norm, spectral_norm): call "
        'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight") first'
    ),
    r"'\w*(?:Structured|Unstructured|PruningMethod|WeightNorm|SpectralNorm)' object|"
    r"no attribute '\w+_(?:mask|orig|g)'": (
        "a hook computes a layer's weight anew in each call: call torch.nn.utils.prune."
        'remove(layer, "weight") for a pruned layer, or torch.nn.utils.remove_weight_norm(layer) '
        "or remove_spectral_norm(layer), first"
    ),
    r"running_mean and \S*running_var must not be None": (
        "a batch norm without running statistics (track_running_stats=False) cannot be fused: "
        "build it with them, or use another norm such as GroupNorm"
    ),
    r"Expected more than 1 value per channel": (
        "batch norm cannot be trained on a batch of one sample: take larger batches, and leave a "
        "last batch of one out (drop_last=True)"
    ),
    r"does not require grad": (
        "no gradient reaches the model's parameters: leave torch.no_grad(), detach() and the like "
        "out of its forward"
    ),
    r"modified by an inplace operation|in-place operation": (
        "an operation in place, such as relu_() or x += y, overwrites what its gradient needs: "
        "write it in forward as one that gives a new tensor"
    ),
    r"Inference tensors cannot be": (
        "the model keeps a tensor that was made under torch.inference_mode(): build the model "
        "anew, and run it under torch.no_grad() before it is trained"
    ),
    r"backward through the graph a second time": (
        "the model keeps a tensor of its last call, such as a hidden state: keep its detach()"
    ),
    r"Calling (?:train|eval)\(\) is not supported": (
        "it is an exported graph, which has no training mode: train the model that was exported, "
        "or call torchao.quantization.pt2e.allow_exported_model_train_eval(model) first"
    ),
    r"Fusion only for eval": "the model is in training mode: call eval() on it first",
    r"on device meta|out of meta tensor|called on meta tensors": (
        "its weights are on the meta device, without values: load a checkpoint into it first"
    ),
    r"OptimizedModule|dynamo-optimized": (
        "it comes from torch.compile: give the model that was compiled"
    ),
    r"variable number of arguments|Proxy object cannot be iterated": (
        "its forward takes any number of arguments, as that of DataParallel does (give "
        "model.module), or loops over a tensor{line}: write it without that"
    ),
    r"method->set_inputs\(\)|Got invalid dimensions for input": (
        "the file was exported for another shape or batch size: export it with an example of the "
        "shape that it will get"
    ),
    r"method->execute\(\) failed": (
        "the runtime has no kernel for the shapes or types that an operator of this model is "
        "given, such as those of a Conv3d: " + ELSEWHERE
    ),
    r"Failed to load method": (
        "XNNPACK does not take a part of this graph, such as weights that several layers share: "
        "give each layer weights of its own"
    ),
    r"shapes cannot be multiplied|to have \d+ channels, but got": (
        "the example inputs do not have the shape that the model takes, or a layer's packed weight "
        "is used outside that layer"
    ),
    r"missing \d+ required positional argument": (
        "the model takes several inputs: wrap it in a module that takes one tensor and splits it"
    ),
    r"'len' is not supported in symbolic tracing": (
        "its forward takes len() of a tensor{line}: write x.shape[0] there"
    ),
    r"symbolically traced variables cannot be used|Proxy. object": (
        "its forward decides in Python by a value or by the size of a tensor{line}: write it "
        "without that, or quantize the layers in eager mode"
    ),
    r"quantized\.(\w+?)PackedParams.*__obj_flatten__": (
        "it was quantized by torch.ao.quantization, and torch.export cannot read the packed "
        "weights of {0}: give the float model, with calibration inputs for int8"
    ),
    r"Constraints violated \(batch\)": (
        "its forward holds a fixed batch size{line}: take it from the input, by x.shape[0]"
    ),
    r"[Dd]ata-dependent": (
        "it decides in Python by the values of a tensor{line}: use torch.where or torch.cond there"
    ),
    r"Operator torch\._ops\.([\w.]+) is not in Core ATen": (
        "ExecuTorch has no operator {0}{line}: " + ELSEWHERE
    ),
    r"Missing out variants: \{'quantized_decomposed": (
        "ExecuTorch computes Linear and convolutions of one or two dimensions in int8, and a "
        "quantized layer of this model is another: export the float model"
    ),
    r"Missing out variants: \{'([\w:]+)'": "ExecuTorch has no operator {0}: " + ELSEWHERE,
    r"Operator: <EdgeOpOverload: ([\w.]+?)>": (
        "ExecuTorch does not take the types that its operator {0} is given{line}: " + ELSEWHERE
    ),
    r"No ONNX function found for <OpOverload\(op='([\w.]+)'": (
        "ONNX has no operator for {0}{line}: " + ELSEWHERE
    ),
    r"Could not find an implementation for (\w+)": (
        "ONNX Runtime does not implement the operator {0} for these types: " + ELSEWHERE
    ),
    r"Unknown type (?:annotation: '|constructor )(\w+)": (
        "TorchScript does not know the type {0} of an argument{line}: write the method without "
        "it, or export the model to ExecuTorch or ONNX"
    ),
    r"single top-level function": "TorchScript cannot compile a lambda: write it as a function",
    r"Can't redefine method": (
        "TorchScript has failed at this class before, when it was handed in for example: restart "
        "the kernel and export it first to see why, or export it to ExecuTorch or ONNX"
    ),
    r"Exporting a ScriptModule|exist in \w*ScriptModule|on ScriptModules|"
    r"ScriptModules cannot be deepcopied|Tried to serialize object __torch__": (
        "it is TorchScript already: give the nn.Module that it was made from"
    ),
}
