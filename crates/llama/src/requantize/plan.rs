//! Chooses the weights of a file that get another format on this machine.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::Path;

use llama_cpp_sys_2 as sys;

use super::RequantizeError;
use crate::gguf::{Format, Gguf, Tensor};
use crate::log::collect_errors;
use crate::shim::{self, guarded};

/// The new format. It takes half the size of 16-bit numbers and loses next to nothing against them.
const TARGET: Format = Format::Q8_0;
/// Numbers per block of the new format; rows must be whole blocks.
const TARGET_BLOCK: u64 = 32;
/// The least percentage of weights that must change for a copy to be worth it.
const SHARE_PERCENT_MIN: u64 = 10;
/// Formats that are slow with several tokens in llama.cpp 0.1.161 on x86-64 with AVX2: they have no kernel for several tokens, neither
/// in `llamafile/sgemm.cpp` (`Q8_0`, `Q4_0`, `Q5_0`, `IQ4_NL`) nor in `repack.cpp` (`Q4_K`, `MXFP4`). `Q5_K` and `Q6_K` have none
/// either, but are faster than `Q8_0` all the same (docs/decisions/0015); other formats weren't measured.
const SLOW_ON_X86_64: &[Format] = &[Format::Q4_1, Format::Q5_1];

#[derive(Debug)]
pub(super) struct Plan {
    /// Each tensor of the source, with its format in the copy.
    tensors: Vec<(Tensor, Format)>,
    /// The formats that change, such as `Q4_1 to Q8_0`.
    pub(super) formats: String,
    /// The approximate size of the copy, in bytes.
    pub(super) bytes: u64,
}

impl Plan {
    /// The error says why a copy isn't worth it, or isn't possible.
    pub(super) fn of(head: &Gguf) -> Result<Self, String> {
        if !cfg!(target_arch = "x86_64") {
            return Err("which formats are fast is only known of x86-64".to_owned());
        }
        if head.metadata.contains_key("split.count") {
            return Err("it is in several files".to_owned());
        }
        let tied = !head.has_tensor("output.weight");
        let of = |tensor: &Tensor| {
            if is_slow(tensor, tied) {
                TARGET
            } else {
                tensor.format
            }
        };
        let tensors: Vec<_> = head
            .tensors
            .iter()
            .map(|tensor| (tensor.clone(), of(tensor)))
            .collect();
        let changed = || tensors.iter().filter(|(tensor, to)| tensor.format != *to);
        let elements: u64 = changed().map(|(tensor, _)| tensor.elements()).sum();
        let all: u64 = tensors.iter().map(|(tensor, _)| tensor.elements()).sum();
        if elements == 0 || elements < all / 100 * SHARE_PERCENT_MIN {
            let formats = names(tensors.iter().map(|(tensor, _)| tensor));
            let percent = elements * 100 / all.max(1);
            return Err(format!(
                "{percent} % of its weights are in a format without a fast kernel here ({formats})"
            ));
        }
        let from = names(changed().map(|(tensor, _)| tensor));
        let formats = format!("{from} to {TARGET}");
        // `Format::bytes` can't fail: rows of changed tensors are whole target blocks, and other sizes were counted by `Gguf::read`.
        let bytes = tensors.iter().map(|(tensor, to)| to.bytes(tensor.shape));
        let bytes = bytes.flatten().fold(0, u64::saturating_add);
        Ok(Plan {
            tensors,
            formats,
            bytes,
        })
    }

    pub(super) fn quantize(
        &self,
        source: &Path,
        copy: &Path,
        threads: u32,
    ) -> Result<(), RequantizeError> {
        let failed = |reason| RequantizeError::Kernels {
            path: source.to_owned(),
            reason,
        };
        let text = |path: &Path| {
            CString::new(path.as_os_str().as_encoded_bytes())
                .map_err(|_| failed("its path has a NUL".to_owned()))
        };
        let (from, to) = (text(source)?, text(copy)?);
        // Every tensor has a rule of its own, so llama.cpp's own choices don't matter.
        let patterns: Vec<_> = self.tensors.iter().map(|(t, _)| exactly(&t.name)).collect();
        let mut rules: Vec<_> = patterns
            .iter()
            .zip(&self.tensors)
            .map(|(pattern, (_, to))| rule(pattern.as_ptr(), to.ggml()))
            .collect();
        rules.push(rule(std::ptr::null(), sys::GGML_TYPE_COUNT));

        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_model_quantize_default_params() };
        params.nthread = threads.cast_signed();
        params.ftype = sys::LLAMA_FTYPE_MOSTLY_Q8_0;
        params.allow_requantize = true;
        params.pure_ = true;
        params.tt_overrides = rules.as_ptr();
        let mut code = 0;
        let (quantized, errors) = collect_errors(|| {
            guarded(|what, size| {
                let (from, to) = (from.as_ptr(), to.as_ptr());
                // SAFETY: the texts end with NUL, the list of rules with an empty rule, and both outlive the call.
                unsafe {
                    shim::weir_quantize(from, to, &raw const params, &raw mut code, what, size)
                }
            })
        });
        quantized.map_err(|threw| failed(threw.to_string()))?;
        if code == 0 {
            Ok(())
        } else {
            Err(failed(errors))
        }
    }

    /// Checks that the copy has the planned tensors.
    pub(super) fn check(&self, copy: &Gguf) -> Result<(), String> {
        for (tensor, to) in &self.tensors {
            let found = copy.tensors.iter().find(|other| other.name == tensor.name);
            let found = found.ok_or_else(|| format!("{} is missing in the copy", tensor.name))?;
            if (found.format, found.shape) != (*to, tensor.shape) {
                let is = found.format;
                return Err(format!("{} became {is}, not {to}", tensor.name));
            }
        }
        Ok(())
    }
}

/// Whether tokens are multiplied with this tensor, and its format has no kernel for several tokens.
fn is_slow(tensor: &Tensor, tied: bool) -> bool {
    let [row, rows, matrices] = tensor.shape;
    // Experts, several matrices in one tensor, are computed by other kernels, which support even fewer formats. The token
    // embeddings are multiplied with only if the model has no output matrix of its own (`tied`).
    let multiplied = rows > 1 && matrices == 1 && tensor.name.ends_with(".weight");
    let embeddings = tensor.name == "token_embd.weight" && !tied;
    multiplied
        && !embeddings
        && row.is_multiple_of(TARGET_BLOCK)
        && SLOW_ON_X86_64.contains(&tensor.format)
}

fn names<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> String {
    let names: BTreeSet<_> = tensors.map(|tensor| tensor.format.to_string()).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// A regular expression that matches this name alone.
fn exactly(name: &str) -> CString {
    let escaped = name.chars().flat_map(|c| {
        let plain = c.is_alphanumeric() || c == '_';
        (!plain).then_some('\\').into_iter().chain([c])
    });
    let pattern: String = ['^'].into_iter().chain(escaped).chain(['$']).collect();
    CString::new(pattern).expect("names come from texts that end with NUL")
}

fn rule(pattern: *const std::ffi::c_char, to: sys::ggml_type) -> sys::llama_model_tensor_override {
    sys::llama_model_tensor_override { pattern, type_: to }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[cfg(target_arch = "x86_64")]
    fn plan(tensors: &[(&str, Format, [u64; 3])]) -> Result<String, String> {
        let tensors = tensors.iter().map(|&(name, format, shape)| Tensor {
            name: name.to_owned(),
            format,
            shape,
            offset: 0,
            bytes: 0,
        });
        let head = Gguf {
            version: 3,
            bytes: 0,
            data_offset: 0,
            metadata: BTreeMap::new(),
            tensors: tensors.collect(),
            head_sha256: String::new(),
        };
        Plan::of(&head).map(|plan| {
            let changed = plan.tensors.iter().filter(|(t, to)| t.format != *to);
            let names: Vec<_> = changed.map(|(t, _)| t.name.as_str()).collect();
            format!(
                "{}: {}, {} bytes",
                plan.formats,
                names.join(" "),
                plan.bytes
            )
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn check(tensors: &[(&str, Format, [u64; 3])], expected: Result<&str, &str>) {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(plan(tensors), expected);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_is_multiplied_with_and_has_no_fast_kernel() {
        let square = [256, 256, 1];
        let norm = ("norm.weight", Format::F32, [256, 1, 1]);
        let down = ("blk.0.ffn_down.weight", Format::Q4_1, square);
        let up = ("blk.0.ffn_up.weight", Format::Q5_1, square);
        let fast = ("blk.0.ffn_gate.weight", Format::Q4_K, square);
        let embeddings = ("token_embd.weight", Format::Q5_1, square);
        let output = ("output.weight", Format::Q4_K, square);
        let experts = ("blk.0.ffn_up_exps.weight", Format::Q4_1, [256, 256, 8]);
        let odd = ("blk.1.odd.weight", Format::Q4_1, [48, 4_096, 1]);
        check(
            &[norm, down, fast],
            Ok("Q4_1 to Q8_0: blk.0.ffn_down.weight, 107520 bytes"),
        );
        check(
            &[down, up, embeddings],
            Ok(
                "Q4_1, Q5_1 to Q8_0: blk.0.ffn_down.weight blk.0.ffn_up.weight token_embd.weight, 208896 bytes",
            ),
        );
        check(
            &[down, embeddings, output],
            Ok("Q4_1 to Q8_0: blk.0.ffn_down.weight, 155648 bytes"),
        );
        let none = "0 % of its weights are in a format without a fast kernel here";
        check(&[norm, fast], Err(&format!("{none} (F32, Q4_K)")));
        check(&[experts], Err(&format!("{none} (Q4_1)")));
        check(&[odd], Err(&format!("{none} (Q4_1)")));
        check(&[], Err(&format!("{none} ()")));
        let few = [("blk.9.ffn_up.weight", Format::Q4_K, [256, 4_096, 1]), up];
        check(
            &few,
            Err("5 % of its weights are in a format without a fast kernel here (Q4_K, Q5_1)"),
        );
    }

    #[test]
    fn a_rule_is_for_one_name() {
        for (name, expected) in [
            ("blk.1.ffn_up.weight", r"^blk\.1\.ffn_up\.weight$"),
            ("a.*|b", r"^a\.\*\|b$"),
        ] {
            assert_eq!(exactly(name).to_str(), Ok(expected));
        }
    }
}
