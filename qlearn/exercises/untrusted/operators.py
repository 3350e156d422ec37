"""Operators that a model of others may call: an allow-list.

Some operators trust the sizes and indices that they get, or give out memory as they find it: a
model that calls them reads and writes what is not its own. Of ATen are allowed the core operators,
those on single numbers, those that are made of others, those without a tensor, and a few by name.
"""

import functools
import re

import torch

# Of those that would be allowed: gradients trust what they get, and new memory is not wiped.
FORBIDDEN = re.compile(
    r".*(backward|empty|resize|from_file|fbgemm|sparse|nested|jagged|sobol|segment_reduce|_unsafe_"
    r"masked).*|save|set_.*|(un)?flatten_dense_tensors|_?test_.*|_rowwise_prune"
)
NAMED = set(
    """
    Bool Float FloatImplicit Int IntImplicit ScalarImplicit __interpolate __upsample
    __upsample_bilinear __upsample_nearest _list_to_tensor _tensor_to_list _add_relu
    _addmm_activation _aminmax _assert_async _assert_tensor_metadata
    _convert_weight_to_int4pack_for_cpu _dyn_quant_matmul_4bit _dyn_quant_pack_4bit_weight _int_mm
    _make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor
    _native_batch_norm_legit_functional _prelu_kernel _reshape_alias _safe_softmax
    _scaled_dot_product_flash_attention_for_cpu _stack _unsafe_view _weight_int4pack_mm_for_cpu
    _weight_int8pack_mm _weight_norm_interface addbmm addmv adaptive_max_pool2d allclose aminmax
    as_tensor baddbmm bernoulli bucketize channel_shuffle copy count_nonzero cpu cummax cummin
    cumprod dequantize detach diag_embed dist dot eye fake_quantize_per_channel_affine_cachemask
    fake_quantize_per_tensor_affine_cachemask fill floor_divide glu hardswish index_add index_copy
    index_fill int_repr isin lift lift_fresh lift_fresh_copy linspace logsumexp masked_select median
    mse_loss mv nansum native_batch_norm new_full new_ones new_zeros norm normal ones ones_like
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
    if FORBIDDEN.fullmatch(name):
        return False
    base = name.removesuffix("_")  # writes into its first input
    return (
        namespace != "aten"
        or base in NAMED
        or any(
            _only_computes(one, schema)
            for one in {name, base}
            for schema in torch._C._jit_get_schemas_for_operator(f"aten::{one}")
        )
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
