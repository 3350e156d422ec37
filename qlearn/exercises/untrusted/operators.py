"""Operators that a model of others may call: an allow-list.

Some operators trust the sizes and indices that they get, or give out memory as they find it: a
model that calls them reads and writes what is not its own. Of ATen are allowed the core operators,
those on single numbers, those that are made of others, those without a tensor, and a few by name;
of other libraries those that honest files were found to hold, and their like.
"""

import functools
import re

import torch

# Of those that would be allowed: gradients trust what they get, and new memory is not wiped. In the
# second half those that read or wrote beyond their tensors when they were tried with wrong ones, or
# gave out memory as it was.
FORBIDDEN = re.compile(
    r".*(backward|empty|resize|from_file|fbgemm|sparse|nested|jagged|sobol|segment_reduce|_unsafe_"
    r"masked).*|save|set_.*|(un)?flatten_dense_tensors|_?test_.*|_rowwise_prune|"
    r".*(ctc_loss|embedding_bag|native_batch_norm|weight_norm|grid_sampler|_batch_dim).*|"
    r"_pad_packed_sequence|slow_conv3d|thnn_conv2d|_upsample_.*_aa|"
    r"quantized_.*_cell|_wrapped_.*|_saturate_weight_to_fp16"
)
# Of TorchScript's own: what passes of its compiler put in, which trusts them.
COMPILED = re.compile(r".*(mkldnn|DNN|rpc|Python|Static|Var[CS]|Bail|Sizes|Fus|TensorExpr|MM).*")
FOUND = {
    "export": {"access_subclass_inner_tensor"},
    "quantized": set(
        """
        add add_relu add_scalar add_scalar_relu batch_norm batch_norm1d batch_norm1d_relu
        batch_norm2d batch_norm2d_relu batch_norm3d batch_norm3d_relu batch_norm_relu cat cat_relu
        celu clamp conv1d conv1d_dynamic conv1d_prepack conv1d_relu conv1d_unpack conv2d conv2d_add
        conv2d_add_relu conv2d_dynamic conv2d_prepack conv2d_relu conv2d_unpack conv3d
        conv3d_dynamic conv3d_prepack conv3d_relu conv3d_unpack conv_transpose1d
        conv_transpose1d_dynamic conv_transpose1d_prepack conv_transpose1d_unpack conv_transpose2d
        conv_transpose2d_dynamic conv_transpose2d_prepack conv_transpose2d_unpack conv_transpose3d
        conv_transpose3d_dynamic conv_transpose3d_prepack conv_transpose3d_unpack dropout elu
        embedding_4bit embedding_bag_prepack embedding_bag_unpack embedding_byte group_norm
        hardswish instance_norm layer_norm leaky_relu linear linear_dynamic linear_dynamic_fp16
        linear_leaky_relu linear_prepack linear_prepack_fp16 linear_relu linear_relu_dynamic
        linear_relu_dynamic_fp16 linear_tanh linear_unpack linear_unpack_fp16
        make_quantized_cell_params make_quantized_cell_params_dynamic
        make_quantized_cell_params_fp16 matmul max_pool1d max_pool2d mul mul_relu mul_scalar
        mul_scalar_relu prelu quantized_gru_cell_dynamic quantized_lstm_cell_dynamic
        quantized_rnn_relu_cell_dynamic quantized_rnn_tanh_cell_dynamic relu6 sigmoid softmax
        threshold
        """.split()
    ),
    "quantized_decomposed": set(
        """
        choose_qparams choose_qparams_per_token choose_qparams_per_token_asymmetric
        choose_qparams_symmetric dequantize_per_channel dequantize_per_channel_group
        dequantize_per_tensor dequantize_per_token quantize_per_channel quantize_per_channel_group
        quantize_per_tensor quantize_per_token
        """.split()
    ),
    "torchao": {"choose_qparams_affine", "dequantize_affine", "quantize_affine"},
}
NAMED = set(
    """
    Bool Float FloatImplicit Int IntImplicit ScalarImplicit __interpolate __upsample
    __upsample_bilinear __upsample_nearest _list_to_tensor _tensor_to_list _add_relu
    _addmm_activation _aminmax _assert_async _assert_tensor_metadata
    _convert_weight_to_int4pack_for_cpu _int_mm
    _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor
    _prelu_kernel _safe_softmax _stack _unsafe_view _weight_int4pack_mm_for_cpu
    _weight_int8pack_mm addbmm addmv adaptive_max_pool2d allclose aminmax
    as_tensor baddbmm bernoulli bucketize channel_shuffle copy count_nonzero cpu cummax cummin
    cumprod dequantize detach diag_embed dist dot eye fake_quantize_per_channel_affine_cachemask
    fake_quantize_per_tensor_affine_cachemask fill floor_divide glu hardswish index_add index_copy
    index_fill int_repr isin lift lift_fresh lift_fresh_copy linspace logsumexp masked_select median
    mse_loss mv nansum new_full new_ones new_zeros norm normal ones ones_like
    pixel_shuffle pixel_unshuffle q_per_channel_axis q_per_channel_scales q_per_channel_zero_points
    q_scale q_zero_point qscheme quantize_per_channel quantize_per_tensor
    quantize_per_tensor_dynamic quantized_batch_norm quantized_gru quantized_lstm
    quantized_max_pool1d quantized_max_pool2d rand_like randint randint_like randn_like range roll
    searchsorted smooth_l1_loss split_with_sizes stack t take tensor trace transpose tril triu
    unbind unfold uniform unsafe_split unsafe_split_with_sizes zero zeros zeros_like
    """.split()
)


@functools.cache
def is_harmless(namespace: str, name: str) -> bool:
    """Say whether an operator, such as "aten", "linear", only computes with what it is given."""
    if namespace == "prim":
        return not COMPILED.fullmatch(name)
    if namespace != "aten":
        return name in FOUND.get(namespace, ())
    if FORBIDDEN.fullmatch(name):
        return False
    base = name.removesuffix("_")  # writes into its first input
    return base in NAMED or any(
        _only_computes(one, schema)
        for one in {name, base}
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{one}")
    )


def _only_computes(name: str, schema: torch.FunctionSchema) -> bool:
    if "Tensor" not in str(schema):
        return True
    packet = getattr(torch.ops.aten, name)
    operator = getattr(packet, schema.overload_name or "default", None)
    tags = set(getattr(operator, "tags", ()))
    if tags & {torch.Tag.core, torch.Tag.pointwise}:
        return True
    whole = f"aten::{name}.{schema.overload_name}".removesuffix(".")
    # TorchScript has some that the dispatcher does not know.
    return torch._C._dispatch_has_kernel(whole) and torch._C._dispatch_has_kernel_for_dispatch_key(
        whole, "CompositeImplicitAutograd"
    )
