//! The table of parameters, from vLLM, SGLang, llama-server, text-generation-inference, Ollama and clients of theirs.

use super::Plain::{Bool, Empty, Number, Text};
use super::{Foreign, Plain};

const OFF: &[Plain] = &[Bool(false)];
const ZERO: &[Plain] = &[Number(0.0)];
const ONE: &[Plain] = &[Number(1.0)];
const NONE: &[Plain] = &[Empty, Text("")];
const UNLIMITED: &[Plain] = &[Number(-1.0)];
const LIMIT: &str = "max_tokens";
const THINKING: &str = "enable_thinking or reasoning_effort";

#[rustfmt::skip]
pub(super) const EVERYWHERE: &[Foreign] = &[
    // Sampling.
    row("use_beam_search",            OFF, ""),
    row("early_stopping",             OFF, ""),
    row("length_penalty",             ONE, ""),
    row("do_sample",                  &[Bool(true)], "temperature"),
    row("typical_p",                  ONE, "top_p or min_p"),
    row("typ_p",                      ONE, "top_p or min_p"),
    row("tfs",                        ONE, "top_p or min_p"),
    row("tfs_z",                      ONE, "top_p or min_p"),
    row("top_a",                      ZERO, "min_p"),
    row("top_n_sigma",                &[Number(-1.0), Number(0.0)], "min_p"),
    row("nsigma",                     &[Number(-1.0), Number(0.0)], "min_p"),
    row("eta_cutoff",                 ZERO, "min_p"),
    row("epsilon_cutoff",             ZERO, "min_p"),
    row("xtc_probability",            ZERO, ""),
    row("mirostat",                   ZERO, ""),
    row("mirostat_mode",              ZERO, ""),
    row("adaptive_target",            UNLIMITED, ""),
    row("dynatemp_range",             ZERO, "temperature"),
    row("dynamic_temperature",        OFF, "temperature"),
    row("smoothing_factor",           ZERO, "temperature"),
    row("skew",                       ZERO, "temperature"),
    row("temperature_last",           OFF, ""),
    row("samplers",                   NONE, ""),
    row("sampler_order",              NONE, ""),
    row("sampler_priority",           NONE, ""),
    row("min_keep",                   ZERO, ""),
    row("penalty_alpha",              ZERO, ""),
    row("guidance_scale",             ONE, ""),
    row("negative_prompt",            NONE, ""),
    row("watermark",                  OFF, ""),
    row("watermarking",               OFF, ""),
    row("logits_processors",          NONE, "logit_bias"),
    row("custom_logit_processor",     NONE, "logit_bias"),
    row("custom_params",              NONE, ""),
    row("vllm_xargs",                 NONE, ""),
    // Penalties for repetition.
    row("repeat_penalty",             ONE, "repetition_penalty"),
    row("encoder_repetition_penalty", ONE, "repetition_penalty"),
    row("repetition_penalty_range",   ZERO, "repetition_penalty"),
    row("no_repeat_ngram_size",       ZERO, "repetition_penalty"),
    row("dry_multiplier",             ZERO, "repetition_penalty"),
    row("repetition_detection",       NONE, ""),
    // Restrictions of tokens.
    row("banned_tokens",              NONE, "logit_bias"),
    row("custom_token_bans",          NONE, "logit_bias"),
    row("token_ban",                  NONE, "logit_bias"),
    row("banned_strings",             NONE, "bad_words"),
    // Length of the answer.
    row("max_new_tokens",             UNLIMITED, LIMIT),
    row("max_length",                 UNLIMITED, LIMIT),
    row("n_predict",                  UNLIMITED, LIMIT),
    row("num_predict",                UNLIMITED, LIMIT),
    row("min_length",                 ZERO, "min_tokens"),
    row("min_new_tokens",             ZERO, "min_tokens"),
    row("ban_eos_token",              OFF, "ignore_eos"),
    row("stop_regex",                 NONE, "stop"),
    row("no_stop_trim",               OFF, "include_stop_str_in_output"),
    row("t_max_predict_ms",           &[Number(-1.0), Number(0.0)], LIMIT),
    row("n_indent",                   ZERO, ""),
    // The prompt.
    row("prompt_embeds",              NONE, ""),
    row("input_embeds",               NONE, ""),
    row("input_ids",                  NONE, ""),
    row("truncate",                   NONE, "truncate_prompt_tokens"),
    row("transforms",                 NONE, "truncate_prompt_tokens"),
    row("system",                     NONE, "a message of role system"),
    row("template",                   NONE, ""),
    row("chat_template",              NONE, ""),
    row("context",                    NONE, ""),
    row("images",                     NONE, ""),
    row("raw",                        OFF, ""),
    row("session_params",             NONE, ""),
    row("plugins",                    NONE, ""),
    row("task",                       NONE, ""),
    row("guideline",                  NONE, ""),
    row("tool_prompt",                NONE, "tools"),
    row("add_bos_token",              &[Bool(true)], "add_special_tokens"),
    row("options",                    NONE, "its entries by the names of this list"),
    // Adapters.
    row("lora",                       NONE, ""),
    row("lora_path",                  NONE, ""),
    row("adapter_id",                 NONE, ""),
    // Contents of the answer.
    row("logprob_token_ids",          NONE, "logprobs"),
    row("return_logprob",             OFF, "logprobs"),
    row("top_logprobs_num",           ZERO, "logprobs"),
    row("top_n_tokens",               ZERO, "logprobs"),
    row("n_probs",                    ZERO, "logprobs"),
    row("post_sampling_probs",        OFF, "logprobs"),
    row("decoder_input_details",      OFF, "prompt_logprobs"),
    row("details",                    OFF, "logprobs"),
    row("return_tokens",              OFF, "return_token_ids"),
    row("return_prompt_token_ids",    OFF, "return_token_ids"),
    row("return_prompt_text",         OFF, "POST tokenize"),
    row("return_token_offsets",       OFF, ""),
    row("return_full_text",           OFF, "echo"),
    row("return_hidden_states",       OFF, ""),
    row("return_routed_experts",      OFF, ""),
    row("return_meta_info",           OFF, ""),
    row("return_cached_tokens_details", OFF, ""),
    row("response_fields",            NONE, ""),
    row("verbosity",                  &[Text("medium")], ""),
];

#[rustfmt::skip]
pub(super) const CHAT: &[Foreign] = &[
    row("echo",                       OFF, "continue_final_message"),
    row("best_of",                    ONE, "n"),
    row("suffix",                     NONE, ""),
    row("documents",                  NONE, "messages with their texts"),
    row("add_special_tokens",         OFF, ""),
    row("parse_special",              OFF, ""),
    row("reasoning",                  NONE, THINKING),
    row("think",                      NONE, THINKING),
    row("thinking",                   NONE, THINKING),
    row("thinking_budget",            UNLIMITED, "thinking_token_budget"),
    row("thinking_budget_tokens",     UNLIMITED, "thinking_token_budget"),
    row("reasoning_budget",           UNLIMITED, "thinking_token_budget"),
    row("reasoning_format",           &[Text("none"), Text("raw")], "separate_reasoning"),
    row("thinking_forced_open",       OFF, ""),
    row("parse_tool_calls",           &[Bool(true)], ""),
];

#[rustfmt::skip]
pub(super) const COMPLETIONS: &[Foreign] = &[
    row("continue_final_message",     OFF, "POST chat/completions"),
    row("thinking_token_budget",      UNLIMITED, "POST chat/completions"),
];

const fn row(name: &'static str, neutral: &'static [Plain], instead: &'static str) -> Foreign {
    Foreign {
        name,
        neutral,
        instead,
    }
}
