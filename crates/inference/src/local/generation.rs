//! A request that is being generated: its choices' samplers and texts, its channel, its allowance.

use std::sync::Arc;
use std::time::Duration;

use weir_engine::event::{Channel, Event, EventSender, TokenLogprob};
use weir_engine::request::{Invalid, Logprobs};
use weir_engine::{EngineError, FinishReason, Request, Token};

use crate::constraint::{Failure, Next, Walk};
use crate::local::budget::ThinkingBudget;
use crate::local::masks::MasksOf;
use crate::local::score::{self, Echo};
use crate::local::token_limits::{AllowedTokens, BannedTokens};
use crate::local::{AccountMasks, Speculation};
use crate::model::Tokenizer;
use crate::prepared::PreparedRequest;
use crate::prepared::{ShownTokens, TokenLimits};
use crate::sampler::{self, Sampler, Scratch};
use crate::scheduler::Job;
use crate::text::TextStream;

/// The `logit_bias` that forbids a token.
const BIAS_MIN: f32 = -100.0;

pub(crate) struct Generation {
    prepared: PreparedRequest,
    sender: EventSender,
    choices: Vec<Choice>,
    unfinished: u32,
    /// Whether each prompt was computed and counted.
    prompts_computed: Vec<bool>,
    /// Log-probabilities of each prompt's tokens after the first, as far as they are computed.
    prompt_scores: Vec<Vec<TokenLogprob>>,
    generated: u64,
    quota: u32,
    /// The time since which the channel has been full, if it is.
    full_since: Option<Duration>,
    bytes: Vec<u8>,
    /// The number of prompt events that have yet to be sent.
    prompts_unsaid: u32,
    allowed: AllowedTokens,
}

enum Choice {
    Waiting,
    Begun(Box<Begun>),
    Ended,
}

struct Begun {
    sampler: Sampler,
    guide: Option<Guide>,
    banned: BannedTokens,
    budget: Option<ThinkingBudget>,
    text: TextStream,
    generated: u32,
    /// The number of tokens whose text hasn't been sent.
    unsent: u32,
    wants_scores: bool,
    /// The log-probabilities of tokens that haven't been sent, if asked for, each with the byte of the text at which
    /// its token begins.
    scored: Vec<(usize, TokenLogprob)>,
    /// The ids of tokens that haven't been sent, if asked for.
    ids: Vec<Token>,
    /// The echoed prompt, which goes before the first text.
    echo: Echo,
}

/// The state of a choice's grammar.
struct Guide {
    walk: Walk,
    /// Logits that came before the token mask for them.
    parked: Option<Box<[f32]>>,
}

/// The parts of the engine's thread that sampling needs.
pub(crate) struct Tools<'a> {
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) tokenizer: &'a dyn Tokenizer,
    pub(crate) masks: &'a mut dyn AccountMasks,
}

/// The outcome of sampling a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The choice continues with this token.
    Token(Token),
    /// The token mask isn't there yet: the choice's logits are kept until it is.
    Parked,
    /// The choice has ended.
    Ended,
    /// The choice has ended, and with it the whole generation.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep {
    GoesOn,
    /// The receiver is closed, or the last event is sent.
    Over,
}

impl Generation {
    pub(crate) fn new(prepared: PreparedRequest, sender: EventSender) -> Self {
        let unfinished =
            u32::try_from(prepared.choices()).expect("events number choices with a u32");
        Generation {
            choices: (0..unfinished).map(|_| Choice::Waiting).collect(),
            unfinished,
            prompts_computed: vec![false; prepared.prompts.len()],
            prompt_scores: vec![Vec::new(); prepared.prompts.len()],
            prompts_unsaid: match tells_prompts(&prepared.request) {
                true => u32::try_from(prepared.prompts.len()).expect("prompts are few"),
                false => 0,
            },
            allowed: AllowedTokens::default(),
            prepared,
            sender,
            generated: 0,
            quota: 0,
            full_since: None,
            bytes: Vec::new(),
        }
    }

    pub(crate) fn job(&self, cache_salt: Option<Arc<str>>, speculation: Speculation) -> Job {
        Job {
            cache_salt,
            // With a format, the mask for the token after a draft token is computed beside the model, and isn't there
            // at once.
            drafts: speculation == Speculation::Ngram
                && self.prepared.constraint.is_none()
                && !self.prepared.request.repeatable,
            repeatable: self.prepared.request.repeatable,
            account: Arc::clone(&self.prepared.account),
            weight: self.prepared.weight,
            prompts: self.prepared.prompts.clone(),
            choices: self.prepared.request.choices.get(),
            output_max: self.prepared.output_max,
            scored: scores_wanted(&self.prepared.request).is_some(),
        }
    }

    /// The account that pays.
    pub(crate) fn account(&self) -> &Arc<str> {
        &self.prepared.account
    }

    /// Tokens that can be sampled now, as of the last [`sweep`](Self::sweep).
    pub(crate) fn quota(&self) -> u32 {
        self.quota
    }

    /// The request's expected number of tokens, for queue times: its prompts and up to `output_expected` for each
    /// choice.
    pub(crate) fn tokens_expected(&self, output_expected: u32) -> u64 {
        let output = u64::from(self.prepared.output_max.min(output_expected));
        self.prepared.prompt_tokens() + self.prepared.choices() * output
    }

    /// Whether the receiver is still open.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Checks what changes from outside, once a step: the reader and the allowance.
    pub(crate) fn sweep(&mut self, now: Duration, write_timeout: Duration) -> Sweep {
        if !self.is_wanted() {
            return Sweep::Over;
        }
        let allowance_is_used_up =
            self.prepared.output_max > 0 && self.prepared.allowance.is_used_up(self.generated);
        // Text that was held back takes one event of each choice.
        let events = if allowance_is_used_up {
            u64::from(self.unfinished)
        } else {
            1
        };
        if self.room() < events {
            self.quota = 0;
            let since = *self.full_since.get_or_insert(now);
            if now.saturating_sub(since) < write_timeout {
                return Sweep::GoesOn;
            }
            // There is always room for the last event.
            self.sender.send(Event::Failed(EngineError::SlowReader));
            return Sweep::Over;
        }
        self.full_since = None;
        self.quota = self.quota_now();
        if allowance_is_used_up {
            for choice in
                0..u32::try_from(self.choices.len()).expect("events number choices with a u32")
            {
                self.finish(choice, FinishReason::Length);
            }
            return Sweep::Over;
        }
        Sweep::GoesOn
    }

    /// Records the log-probability of the token that follows `position` in the prompt of a choice.
    pub(crate) fn score_prompt(
        &mut self,
        choice: u32,
        position: u32,
        logits: &[f32],
        scratch: &mut Scratch,
        tokenizer: &dyn Tokenizer,
    ) {
        let prompt = self.prompt_of(choice);
        let next = self.prepared.prompts[prompt][position as usize + 1];
        let scores = &mut self.prompt_scores[prompt];
        assert_eq!(
            scores.len(),
            position as usize,
            "a prompt is scored in order, each token once"
        );
        if let Some(wanted) = scores_wanted(&self.prepared.request) {
            let mut score = score::token(next, logits, wanted, scratch, tokenizer);
            if self.prepared.request.prompt_logprobs.is_some() {
                score.rank = Some(sampler::rank(logits, next));
            }
            scores.push(score);
        }
    }

    /// Samples the next token of a choice and sends its text.
    pub(crate) fn sample(&mut self, choice: u32, logits: &[f32], tools: &mut Tools<'_>) -> Outcome {
        self.begin(choice, tools.tokenizer);
        if self.prepared.output_max == 0 {
            return self.finish(choice, FinishReason::Length);
        }
        match self.choose(choice, logits, tools.scratch) {
            Ok(token) => self.accept(choice, token, logits, tools),
            Err(outcome) => outcome,
        }
    }

    /// Samples parked choices whose token mask has come, and ends choices whose grammar is complete. Called once a
    /// step, after [`sweep`](Self::sweep): it uses up some of the quota.
    pub(crate) fn resume(&mut self, tools: &mut Tools<'_>) -> Vec<(u32, Outcome)> {
        let mut resumed = Vec::new();
        if self.prepared.constraint.is_none() {
            return resumed;
        }
        for (choice, index) in (0..).zip(0..self.choices.len()) {
            let Choice::Begun(begun) = &mut self.choices[index] else {
                continue;
            };
            let Some(guide) = &mut begun.guide else {
                continue;
            };
            let outcome = match guide.walk.ahead() {
                Next::Pending => continue,
                Next::Allowed(_) if self.quota == 0 => continue,
                Next::Allowed(_) => match guide.parked.take() {
                    Some(logits) => {
                        self.quota -= 1;
                        self.sample(choice, &logits, tools)
                    }
                    None => continue,
                },
                Next::End => self.finish(choice, FinishReason::Stop),
                Next::Failed(failure) => self.break_off(self.cannot_go_on(failure)),
            };
            resumed.push((choice, outcome));
        }
        resumed
    }

    fn choose(
        &mut self,
        choice: u32,
        logits: &[f32],
        scratch: &mut Scratch,
    ) -> Result<Token, Outcome> {
        let Choice::Begun(begun) = &mut self.choices[choice as usize] else {
            // The request was broken off by another of its choices in the same step.
            return Err(Outcome::Ended);
        };
        let guided = match begun
            .guide
            .as_mut()
            .map(|guide| (guide.walk.ahead(), &mut guide.parked))
        {
            None => None,
            Some((Next::Allowed(allowed), _)) => Some(allowed),
            Some((Next::End, _)) => return Err(self.finish(choice, FinishReason::Stop)),
            Some((Next::Pending, parked)) => {
                parked.get_or_insert_with(|| logits.into());
                return Err(Outcome::Parked);
            }
            Some((Next::Failed(failure), _)) => {
                return Err(self.break_off(self.cannot_go_on(failure)));
            }
        };
        let limits = &self.prepared.limits;
        let forced = begun.budget.as_ref().and_then(ThinkingBudget::forced);
        let allowed = self.allowed.of(limits.allowed.as_deref(), guided, forced);
        let banned = begun.banned.now(&self.prepared, begun.generated);
        if allowed.is_none() && banned.is_empty() {
            return Ok(begun.sampler.sample(logits, scratch));
        }
        begun
            .sampler
            .sample_without(logits, allowed, banned, scratch)
            .ok_or_else(|| self.break_off(self.nothing_left()))
    }

    fn accept(
        &mut self,
        choice: u32,
        token: Token,
        logits: &[f32],
        tools: &mut Tools<'_>,
    ) -> Outcome {
        let Tools {
            scratch, tokenizer, ..
        } = tools;
        let tokenizer = *tokenizer;
        let Choice::Begun(begun) = &mut self.choices[choice as usize] else {
            unreachable!("only choices that go on are sampled");
        };
        begun.generated += 1;
        self.generated += 1;
        self.sender.meter().add_completion(1);
        if self.prepared.request.token_ids {
            begun.ids.push(token);
        }
        let stop = &self.prepared.request.stop;
        // With a format, an answer is complete where the model ends it.
        let ignores_end = stop.ignores_model && begun.guide.is_none();
        if tokenizer.is_end(token) && !ignores_end {
            return self.finish(choice, FinishReason::Stop);
        }
        let is_stop = stop.tokens().contains(&token);
        if is_stop && !stop.is_shown {
            return self.finish(choice, FinishReason::Stop);
        }
        begun.banned.push(token, &self.prepared.limits.bad_words);
        begun.unsent += 1;
        if let Some(wanted) = self.prepared.request.logprobs {
            let score = score::token(token, logits, wanted, scratch, tokenizer);
            begun.scored.push((begun.text.position(), score));
        }
        self.bytes.clear();
        tokenizer.token_bytes(token, &mut self.bytes);
        if self.bytes.is_empty() {
            let name = match &self.prepared.shown {
                ShownTokens::All => tokenizer.specials().name(token),
                ShownTokens::Some(shown) => {
                    let shown = shown.iter().find(|(shown, _)| *shown == token);
                    shown.map(|(_, name)| *name)
                }
            };
            self.bytes
                .extend_from_slice(name.unwrap_or_default().as_bytes());
        }
        if let Some(budget) = &mut begun.budget {
            budget.advance(&self.bytes);
        }
        let pushed = match begun.generated > self.prepared.request.stop.min_tokens {
            true => begun.text.push(&self.bytes),
            false => begun.text.push_unsearched(&self.bytes),
        };
        let mut text = pushed.text;
        let outcome = if pushed.stopped {
            Some(FinishReason::Stop)
        } else if is_stop {
            text.push_str(&begun.text.finish());
            Some(FinishReason::Stop)
        } else if begun.generated == self.prepared.output_max {
            text.push_str(&begun.text.finish());
            Some(FinishReason::Length)
        } else {
            None
        };
        // A stop string cuts tokens off the text; any other end doesn't.
        let scored = match outcome {
            Some(_) if !pushed.stopped => begun.scored.len(),
            _ => begun.scored_text(),
        };
        let event = begun.say(choice, text, scored);
        let event = event.or_else(|| outcome.and_then(|_| begun.say_ids(choice)));
        if let Some(event) = event {
            self.sender.send(event);
        }
        if let Some(reason) = outcome {
            return self.end(choice, reason);
        }
        if let Some(guide) = &mut begun.guide {
            let mut masks = MasksOf {
                masks: tools.masks,
                account: &self.prepared.account,
            };
            guide.walk.advance(token, &mut masks);
        }
        Outcome::Token(token)
    }

    /// Ends a choice, after sending the text that it still holds back.
    pub(crate) fn finish(&mut self, choice: u32, reason: FinishReason) -> Outcome {
        match &mut self.choices[choice as usize] {
            Choice::Ended => return Outcome::Ended,
            Choice::Waiting => {}
            Choice::Begun(begun) => {
                let text = begun.text.finish();
                let event = begun.say(choice, text, begun.scored.len());
                let event = event.or_else(|| begun.say_ids(choice));
                if let Some(event) = event
                    && self.room() > 0
                {
                    self.sender.send(event);
                }
            }
        }
        self.end(choice, reason)
    }

    pub(crate) fn fail(self, error: EngineError) {
        self.sender.send(Event::Failed(error));
    }

    /// The whole request fails because of one of its choices.
    fn break_off(&mut self, error: EngineError) -> Outcome {
        tracing::warn!("a constrained request failed: {error}");
        self.choices.fill_with(|| Choice::Ended);
        self.unfinished = 0;
        self.sender.send(Event::Failed(error));
        Outcome::Over
    }

    /// The error of a request for which no token is left to choose: its own limits forbid all, or the model is broken.
    fn nothing_left(&self) -> EngineError {
        if self.prepared.limits != TokenLimits::default() {
            return EngineError::Invalid(Invalid::new(
                "allowed_token_ids",
                "allowed_token_ids, bad_words and min_tokens leave no token that may come next",
            ));
        }
        let bias = self.prepared.request.sampling.logit_bias();
        if bias.iter().any(|&(_, bias)| bias <= BIAS_MIN) {
            return EngineError::Invalid(Invalid::new(
                "logit_bias",
                "logit_bias forbids every token that the format allows next",
            ));
        }
        EngineError::Fault("no token that the format allows has a probability".to_owned())
    }

    fn end(&mut self, choice: u32, reason: FinishReason) -> Outcome {
        self.choices[choice as usize] = Choice::Ended;
        self.unfinished -= 1;
        self.sender.send(Event::Finished { choice, reason });
        if self.unfinished > 0 {
            return Outcome::Ended;
        }
        self.sender.send(Event::Done(self.sender.meter().usage()));
        Outcome::Over
    }

    /// Makes a choice's state when its first token comes, not before: thousands may wait.
    fn begin(&mut self, choice: u32, tokenizer: &dyn Tokenizer) {
        if !matches!(self.choices[choice as usize], Choice::Waiting) {
            return;
        }
        let prompt = self.prompt_of(choice);
        let (prepared, scores) = (&self.prepared, &self.prompt_scores[prompt]);
        let Request { sampling, stop, .. } = &*prepared.request;
        self.choices[choice as usize] = Choice::Begun(Box::new(Begun {
            sampler: Sampler::new(sampling, &prepared.prompts[prompt], choice),
            guide: prepared.constraint.as_ref().map(|constraint| Guide {
                walk: constraint.begin(),
                parked: None,
            }),
            banned: BannedTokens::default(),
            budget: prepared.thinking.as_ref().map(ThinkingBudget::new),
            text: TextStream::new(stop),
            ids: Vec::new(),
            generated: 0,
            unsent: 0,
            wants_scores: prepared.request.logprobs.is_some(),
            scored: Vec::new(),
            echo: Echo::new(prepared, prompt, scores, tokenizer),
        }));
    }

    /// The error of a request whose grammar has failed.
    fn cannot_go_on(&self, failure: Failure) -> EngineError {
        let constraint = self.prepared.constraint.as_ref();
        let param = constraint.map_or("response_format", |constraint| constraint.param());
        match failure {
            Failure::TooComplex => EngineError::Invalid(Invalid::new(
                param,
                format!(
                    "{param} takes more work to enforce than is allowed for a token; fewer or shorter alternatives take less"
                ),
            )),
            Failure::Broken(why) => EngineError::Fault(why),
        }
    }

    fn tell_prompt(&mut self, prompt: usize, tokenizer: &dyn Tokenizer) {
        let request = &self.prepared.request;
        if !tells_prompts(request) {
            return;
        }
        let tokens = Arc::clone(&self.prepared.prompts[prompt]);
        let logprobs = request.prompt_logprobs.map_or_else(Vec::new, |wanted| {
            let mut logprobs = vec![score::first(&tokens, tokenizer)];
            logprobs.extend(score::cut(&self.prompt_scores[prompt], wanted));
            logprobs
        });
        self.prompts_unsaid -= 1;
        self.sender.send(Event::Prompt {
            prompt: u32::try_from(prompt).expect("prompts are few"),
            tokens,
            logprobs,
        });
    }

    fn prompt_of(&self, choice: u32) -> usize {
        (choice / self.prepared.request.choices.get()) as usize
    }

    /// Called before a choice is sampled. The first sampled choice of a prompt shows that the prompt is computed,
    /// `cached` tokens of it from the prefix cache: the prompt is counted, and its event goes before any event of its
    /// choices.
    pub(crate) fn count_prompt(&mut self, choice: u32, cached: u32, tokenizer: &dyn Tokenizer) {
        let prompt = self.prompt_of(choice);
        if !std::mem::replace(&mut self.prompts_computed[prompt], true) {
            self.sender
                .meter()
                .add_prompt(self.prepared.prompts[prompt].len() as u64, cached.into());
            self.tell_prompt(prompt, tokenizer);
        }
    }

    /// The number of tokens that may be sampled now: each may become an event, beside which the last events of all
    /// choices have to fit.
    fn quota_now(&self) -> u32 {
        // With `output_max` 0 nothing is sampled; one token of quota lets the prompt be computed.
        let allowed = if self.prepared.output_max == 0 {
            1
        } else {
            self.allowed()
        };
        u32::try_from(allowed.min(self.room())).unwrap_or(u32::MAX)
    }

    fn allowed(&self) -> u64 {
        self.prepared
            .allowance
            .tokens()
            .saturating_sub(self.generated)
    }

    /// The number of events that can be sent beside those about prompts and the last ones of all choices.
    fn room(&self) -> u64 {
        let last = u64::from(self.unfinished) + 1 + u64::from(self.prompts_unsaid);
        (self.sender.room() as u64).saturating_sub(last)
    }
}

/// Whether events tell about the prompts.
fn tells_prompts(request: &Request) -> bool {
    request.token_ids || request.prompt_logprobs.is_some()
}

/// The log-probabilities that are wanted of the prompts' tokens, for `echo` or `prompt_logprobs`.
fn scores_wanted(request: &Request) -> Option<Logprobs> {
    let echoed = request.logprobs.filter(|_| request.echo);
    let wanted = [echoed, request.prompt_logprobs];
    wanted
        .into_iter()
        .flatten()
        .max_by_key(|logprobs| logprobs.top())
}

impl Begun {
    /// An event with the ids that no text event has had, at the end of a choice.
    fn say_ids(&mut self, choice: u32) -> Option<Event> {
        let ids = std::mem::take(&mut self.ids);
        (!ids.is_empty()).then_some(Event::Text {
            choice,
            channel: Channel::Content,
            text: String::new(),
            tokens: 0,
            logprobs: Vec::new(),
            ids,
        })
    }

    /// The number of scored tokens that begin in text that is out.
    fn scored_text(&self) -> usize {
        let out = self.text.out();
        self.scored.partition_point(|&(place, _)| place < out)
    }

    /// The event to send now, if any: text that is decided, with the ids and the first `scored` log-probabilities that
    /// waited for it.
    fn say(&mut self, choice: u32, text: String, scored: usize) -> Option<Event> {
        let Echo {
            text: mut whole,
            mut logprobs,
        } = std::mem::take(&mut self.echo);
        whole.push_str(&text);
        logprobs.extend(self.scored.drain(..scored).map(|(_, score)| score));
        if whole.is_empty() && logprobs.is_empty() {
            return None;
        }
        // With log-probabilities, a token is counted as sent with its own, otherwise as soon as any text is sent.
        let tokens = match self.wants_scores {
            true => u32::try_from(scored).expect("a choice's tokens fit a u32"),
            false => self.unsent,
        };
        self.unsent -= tokens;
        Some(Event::Text {
            choice,
            channel: Channel::Content,
            text: whole,
            tokens,
            logprobs,
            ids: std::mem::take(&mut self.ids),
        })
    }
}
