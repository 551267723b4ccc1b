mod frequencies;
mod noise;
mod reference;

use proptest::prelude::*;
use reference::Reference;
use weir_engine::request::SamplingFields;

use super::*;

/// The tokens that the sampler may choose, by id.
fn support(sampling: &Sampling, logits: &[f32], overrides: &[(Token, f32)]) -> Vec<Token> {
    let logits = Logits::new(logits, overrides);
    let mut buffers = Buffers::default();
    let best = logits.best(&mut buffers.maxima);
    let softmax = Softmax {
        max: best.logit,
        scale: sampling.temperature().recip(),
    };
    filter::support(sampling, &logits, softmax, &mut buffers);
    let mut tokens: Vec<Token> = buffers
        .candidates
        .iter()
        .map(|candidate| candidate.token)
        .collect();
    tokens.sort_unstable();
    tokens
}

fn sampling(change: impl FnOnce(&mut SamplingFields)) -> Sampling {
    let mut fields = SamplingFields::default();
    change(&mut fields);
    Sampling::new(fields).unwrap()
}

fn sample_once(sampling: &Sampling, prompt: &[Token], logits: &[f32]) -> Token {
    Sampler::new(sampling, prompt, 0).sample(logits, &mut Scratch::default())
}

fn sample_many(sampling: &Sampling, choice: u32, logits: &[f32], count: usize) -> Vec<Token> {
    let mut sampler = Sampler::new(sampling, &[], choice);
    let mut scratch = Scratch::default();
    (0..count)
        .map(|_| sampler.sample(logits, &mut scratch))
        .collect()
}

/// Logits of a vocabulary, some of them equal, some masked, some broken.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        8 => -20.0_f32..20.0,
        4 => (-8_i32..8).prop_map(|logit| logit as f32),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ];
    // Within a group, about a group, about a block, and of several blocks.
    prop_oneof![
        1_usize..20,
        60_usize..70,
        1000_usize..1100,
        2000_usize..3000
    ]
    .prop_flat_map(move |length| prop::collection::vec(logit.clone(), length))
}

fn fields() -> impl Strategy<Value = SamplingFields> {
    (
        prop_oneof![Just(None), (0.05..2.0).prop_map(Some)],
        prop_oneof![Just(None), (0.01..1.0).prop_map(Some)],
        prop_oneof![
            Just(None),
            (1_i64..200).prop_map(Some),
            (200_i64..10_000).prop_map(Some)
        ],
        prop_oneof![
            Just(None),
            (0.0..1.0).prop_map(Some),
            (0.0..0.01).prop_map(Some)
        ],
        (
            prop_oneof![Just(None), (-2.0..2.0).prop_map(Some)],
            prop_oneof![Just(None), (-2.0..2.0).prop_map(Some)],
        ),
        prop_oneof![Just(None), (0.1..2.0).prop_map(Some)],
        prop::collection::btree_map(0_u32..3000, prop_oneof![-100.0..100.0, Just(-100.0)], 0..10),
    )
        .prop_map(
            |(temperature, top_p, top_k, min_p, (presence, frequency), repetition, bias)| {
                SamplingFields {
                    temperature,
                    top_p,
                    top_k,
                    min_p,
                    presence_penalty: presence,
                    frequency_penalty: frequency,
                    repetition_penalty: repetition,
                    logit_bias: bias.into_iter().collect(),
                    seed: None,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_same_tokens_may_be_chosen_as_by_the_definition(
        logits in logits(),
        fields in fields(),
        prompt in prop::collection::vec(0_u32..3000, 0..50),
        generated in prop::collection::vec(0_u32..300, 0..50),
    ) {
        let sampling = Sampling::new(fields).unwrap();
        let mut adjustments = Adjustments::new(&sampling, &prompt);
        generated.iter().for_each(|&token| adjustments.record(token));
        let mut overrides = Vec::new();
        adjustments.apply(&logits, &mut overrides);

        let reference = Reference::new(&sampling, &logits, &prompt, &generated);
        let best = Logits::new(&logits, &overrides).best(&mut Vec::new());
        prop_assert_eq!(best.token, reference.best());
        if best.logit.is_finite() && !filter::keeps_all(&sampling) {
            let support = support(&sampling, &logits, &overrides);
            prop_assert!(reference.allows(&support), "{} tokens of {:?}", support.len(), reference.sizes());
        }
    }

    #[test]
    fn nothing_outside_the_set_is_chosen(logits in logits(), fields in fields(), seed in any::<i64>()) {
        // Without penalties, so that the set stays the same from token to token.
        let fields = SamplingFields {
            presence_penalty: None, frequency_penalty: None, repetition_penalty: None, seed: Some(seed), ..fields
        };
        let sampling = Sampling::new(fields).unwrap();
        let reference = Reference::new(&sampling, &logits, &[], &[]);
        for token in sample_many(&sampling, 0, &logits, 20) {
            prop_assert!(reference.may_be(token));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn groups_that_are_passed_over_have_no_winner(
        logits in logits(),
        temperature in 0.1_f32..2.0,
        random in any::<u64>(),
    ) {
        let all = Logits::new(&logits, &[]);
        let mut buffers = Buffers::default();
        let best = all.best(&mut buffers.maxima);
        prop_assume!(best.logit.is_finite());
        let (key, softmax) = (Key::new(random), Softmax { max: best.logit, scale: temperature.recip() });
        let mut race = exponential_race::Race::new(key);
        for (token, &logit) in (0..).zip(&logits) {
            race.run(token, softmax.weight(logit));
        }
        prop_assert_eq!(all.draw(softmax, &buffers.maxima, key, &mut buffers.times), race.first());
    }
}

#[test]
fn greedy_takes_the_lowest_of_the_best() {
    let check = |logits: &[f32], expected: Token| {
        let greedy = sampling(|fields| fields.temperature = Some(0.0));
        assert_eq!(sample_once(&greedy, &[], logits), expected, "{logits:?}");
        let one = sampling(|fields| fields.top_k = Some(1));
        assert_eq!(sample_once(&one, &[], logits), expected, "{logits:?}");
    };
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    check(&[1.0, 3.0, 3.0, 2.0], 1);
    check(&[-0.0, 0.0], 0);
    check(&[nan, -5.0, nan, -4.0], 3);
    check(&[low, -5.0], 1);
    check(&[1.0, f32::INFINITY, f32::INFINITY], 1);
    // Without a token to choose there is no panic.
    check(&[nan, nan], 0);
    check(&[low, low], 0);
    check(&[], 0);
    for token in [0, 63, 64, 1023, 1024, 1087, 2999] {
        let mut logits = vec![-1.0; 3000];
        logits[token as usize] = 1.0;
        check(&logits, token);
    }
}

#[test]
fn where_no_token_has_a_chance_the_first_is_named() {
    for logits in [[f32::NAN, f32::NEG_INFINITY], [f32::NEG_INFINITY; 2]] {
        let best = Logits::new(&logits, &[]).best(&mut Vec::new());
        assert_eq!((best.token, best.logit), (0, f32::NEG_INFINITY));
    }
}

#[test]
fn broken_logits_give_a_token_of_the_vocabulary() {
    for logits in [
        [f32::NAN; 100],
        [f32::NEG_INFINITY; 100],
        [f32::INFINITY; 100],
        [f32::MAX; 100],
        [f32::MIN; 100],
    ] {
        for change in [
            |_: &mut SamplingFields| (),
            |fields: &mut SamplingFields| fields.top_p = Some(0.9),
            |fields: &mut SamplingFields| fields.top_k = Some(5),
            |fields: &mut SamplingFields| fields.min_p = Some(0.1),
            |fields: &mut SamplingFields| fields.temperature = Some(1e-5),
            |fields: &mut SamplingFields| fields.temperature = Some(1e-45),
        ] {
            let sampling = sampling(change);
            assert!(
                sample_many(&sampling, 0, &logits, 10)
                    .iter()
                    .all(|&token| token < 100)
            );
        }
    }
}

#[test]
fn bias_and_penalties_change_the_logits_of_their_tokens() {
    let check = |change: fn(&mut SamplingFields), expected: [f32; 4]| {
        let sampling = sampling(change);
        // Token 0 is in the prompt, 1 was generated twice, 2 is both, 3 neither.
        let mut adjustments = Adjustments::new(&sampling, &[0, 2, 2]);
        [1, 2, 1]
            .into_iter()
            .for_each(|token| adjustments.record(token));
        let mut logits = [4.0, -4.0, 2.0, 1.0];
        let mut overrides = Vec::new();
        adjustments.apply(&logits, &mut overrides);
        for (token, logit) in overrides {
            logits[token as usize] = logit;
        }
        assert_eq!(logits, expected);
    };
    check(|_| (), [4.0, -4.0, 2.0, 1.0]);
    // The repetition penalty divides positive logits and multiplies negative ones, of tokens in the prompt and the
    // answer.
    check(
        |fields| fields.repetition_penalty = Some(2.0),
        [2.0, -8.0, 1.0, 1.0],
    );
    check(
        |fields| fields.repetition_penalty = Some(0.5),
        [8.0, -2.0, 4.0, 1.0],
    );
    // Presence and frequency penalties look at the answer alone.
    check(
        |fields| fields.presence_penalty = Some(1.5),
        [4.0, -5.5, 0.5, 1.0],
    );
    check(
        |fields| fields.frequency_penalty = Some(1.5),
        [4.0, -7.0, 0.5, 1.0],
    );
    check(
        |fields| fields.frequency_penalty = Some(-1.5),
        [4.0, -1.0, 3.5, 1.0],
    );
    // The bias is added before the penalties; −100 masks, 100 is a number like others, unknown tokens are ignored.
    check(
        |fields| fields.logit_bias = vec![(3, 100.0), (0, -100.0)],
        [f32::NEG_INFINITY, -4.0, 2.0, 101.0],
    );
    check(
        |fields| fields.logit_bias = vec![(3, -99.0), (4, 1.0), (9999, 1.0)],
        [4.0, -4.0, 2.0, -98.0],
    );
    check(
        |fields| {
            fields.logit_bias = vec![(0, -8.0), (1, 8.0)];
            fields.repetition_penalty = Some(2.0);
            fields.presence_penalty = Some(1.0);
        },
        [-8.0, 1.0, 0.0, 1.0],
    );
}

#[test]
fn a_generated_token_is_penalised_from_the_next_one_on() {
    let greedy = sampling(|fields| {
        fields.temperature = Some(0.0);
        fields.frequency_penalty = Some(0.75);
    });
    assert_eq!(sample_many(&greedy, 0, &[2.0, 1.0], 6), [0, 0, 1, 0, 1, 0]);
}

#[test]
fn random_numbers_depend_on_seed_choice_and_place_alone() {
    let logits: Vec<f32> = (0..500).map(|i| (i % 7) as f32).collect();
    let seeded = |seed| sampling(|fields| fields.seed = Some(seed));
    let text = sample_many(&seeded(1), 0, &logits, 200);
    assert_eq!(sample_many(&seeded(1), 0, &logits, 200), text);
    for (seed, choice) in [(1, 1), (2, 0), (-1, 0), (i64::MIN, 0)] {
        assert_ne!(sample_many(&seeded(seed), choice, &logits, 200), text);
    }
    // Two samplers that take turns on one scratch don't disturb each other.
    let (mut one, mut other) = (
        Sampler::new(&seeded(1), &[], 0),
        Sampler::new(&seeded(2), &[], 3),
    );
    let mut scratch = Scratch::default();
    for &token in &text {
        assert_eq!(one.sample(&logits, &mut scratch), token);
        other.sample(&logits[..100], &mut scratch);
    }
}

#[test]
fn a_set_that_is_short_of_top_p_by_rounding_has_reached_it() {
    for tenths in 1..=9 {
        let sampling = sampling(|fields| fields.top_p = Some(f64::from(tenths) / 10.0));
        assert_eq!(support(&sampling, &[1.5; 10], &[]).len(), tenths as usize);
    }
}

#[test]
fn exp_is_exact_to_the_last_bits() {
    let mut x = 0.0_f32;
    while x > -86.9 {
        let exact = f64::from(x).exp();
        assert!(
            (f64::from(weights::exp(x)) / exact - 1.0).abs() < 2e-7,
            "{x}"
        );
        x -= 0.000_97;
    }
    for x in [-87.1, -1e30, f32::NEG_INFINITY, f32::NAN] {
        assert_eq!(weights::exp(x), 0.0);
    }
    assert_eq!(weights::exp(0.0), 1.0);
}

/// A mask with a bit for each token that may be chosen.
fn mask(allowed: impl Fn(Token) -> bool, length: usize) -> Vec<u32> {
    let mut words = vec![0; length.div_ceil(32)];
    (0..length as Token)
        .filter(|&token| allowed(token))
        .for_each(|token| words[token as usize / 32] |= 1 << (token % 32));
    words
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_not_allowed_has_no_probability(
        logits in logits(),
        fields in fields(),
        kind in 0_u32..4,
        salt in any::<u32>(),
        seed in any::<i64>(),
    ) {
        let allowed = |token: Token| match kind {
            0 => true,
            // Whole blocks and words, single tokens, and tokens beyond the mask's end.
            1 => (token / 700) % 2 == 1,
            2 => token.wrapping_mul(2_654_435_761).wrapping_add(salt) % 50 == 0,
            _ => token.is_multiple_of(3) && token < 1500,
        };
        let length = if kind == 3 { logits.len().min(1500) } else { logits.len() };
        let words = mask(allowed, length);
        let sampling = Sampling::new(SamplingFields { seed: Some(seed), ..fields }).unwrap();
        let masked: Vec<f32> = (0..)
            .zip(&logits)
            .map(|(token, &logit)| if allowed(token) { logit } else { f32::NEG_INFINITY })
            .collect();
        let mut scratch = Scratch::default();
        let mut one = Sampler::new(&sampling, &[1, 2], 0);
        let mut other = Sampler::new(&sampling, &[1, 2], 0);
        for _ in 0..10 {
            let Some(token) = one.sample_allowed(&logits, &words, &mut scratch) else { break };
            prop_assert!(allowed(token));
            prop_assert_eq!(token, other.sample(&masked, &mut scratch));
        }
    }
}

#[test]
fn nothing_is_chosen_where_nothing_is_allowed() {
    let check = |change: fn(&mut SamplingFields), words: &[u32], expected: Option<Token>| {
        let mut sampler = Sampler::new(&sampling(change), &[], 0);
        let token = sampler.sample_allowed(&[1.0; 100], words, &mut Scratch::default());
        assert_eq!(token, expected);
    };
    check(|_| (), &[0, 0, 0, 0], None);
    check(|_| (), &[], None);
    check(|_| (), &[0, 0, 4, 0], Some(66));
    check(
        |fields| fields.temperature = Some(0.0),
        &[0, 0, 4, 0],
        Some(66),
    );
    check(
        |fields| fields.logit_bias = vec![(66, -100.0)],
        &[0, 0, 4, 0],
        None,
    );
}

proptest! {
    /// Banned tokens never come, and the others as if the banned ones had no probability.
    #[test]
    fn banned_tokens_are_as_masked_ones(
        logits in logits(),
        fields in fields(),
        banned in prop::collection::vec(0_u32..3_000, 1..20),
    ) {
        let sampling = Sampling::new(fields).unwrap();
        let mut mask = vec![u32::MAX; logits.len().div_ceil(32)];
        for &token in &banned {
            if let Some(word) = mask.get_mut(token as usize / 32) {
                *word &= !(1 << (token % 32));
            }
        }
        let mut scratch = Scratch::default();
        let (mut one, mut other) = (Sampler::new(&sampling, &[], 0), Sampler::new(&sampling, &[], 0));
        for _ in 0..5 {
            let without = one.sample_without(&logits, None, &banned, &mut scratch);
            let masked = other.sample_allowed(&logits, &mask, &mut scratch);
            prop_assert_eq!(without, masked);
            prop_assert!(without.is_none_or(|token| !banned.contains(&token)));
        }
    }
}

#[test]
fn ranks_count_what_is_as_likely() {
    let logits = [1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY];
    let ranks = [0, 1, 2, 3, 4, 9].map(|token| rank(&logits, token));
    assert_eq!(ranks, [4, 2, 3, 2, 5, 5]);
}
