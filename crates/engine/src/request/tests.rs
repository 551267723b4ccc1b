use super::*;

/// The checked parameters after `change`, or the name of the field that is refused.
fn sampling(change: impl FnOnce(&mut SamplingFields)) -> Result<Sampling, String> {
    let mut fields = SamplingFields::default();
    change(&mut fields);
    Sampling::new(fields).map_err(|invalid| {
        assert!(
            invalid.message.contains(&invalid.param),
            "the message names the field: {invalid}"
        );
        invalid.param
    })
}

#[test]
fn absent_fields_have_the_contracts_defaults() {
    let sampling = Sampling::new(SamplingFields::default()).unwrap();
    assert_eq!(sampling, Sampling::default());
    assert_eq!(
        (
            sampling.temperature(),
            sampling.top_p(),
            sampling.top_k(),
            sampling.min_p()
        ),
        (1.0, 1.0, 0, 0.0)
    );
    assert_eq!(
        (sampling.presence_penalty(), sampling.frequency_penalty()),
        (0.0, 0.0)
    );
    assert_eq!(
        (
            sampling.repetition_penalty(),
            sampling.logit_bias(),
            sampling.seed()
        ),
        (1.0, &[][..], None)
    );
}

#[test]
fn numbers_are_within_their_ranges() {
    type Field = (
        &'static str,
        fn(&mut SamplingFields, f64),
        fn(&Sampling) -> f32,
    );
    let check = |(name, set, get): Field, inside: &[f64], outside: &[f64]| {
        for &value in inside {
            let sampling = sampling(|fields| set(fields, value)).unwrap();
            assert_eq!(get(&sampling), value as f32, "{name} {value}");
        }
        for &value in outside
            .iter()
            .chain(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY])
        {
            assert_eq!(
                sampling(|fields| set(fields, value)),
                Err(name.to_owned()),
                "{value}"
            );
        }
    };
    let below_zero = -f64::MIN_POSITIVE;
    let above = |bound: f64| bound.next_up();
    check(
        (
            "temperature",
            |fields, value| fields.temperature = Some(value),
            Sampling::temperature,
        ),
        &[0.0, -0.0, 0.7, 2.0],
        &[below_zero, above(2.0), -1.0],
    );
    check(
        (
            "top_p",
            |fields, value| fields.top_p = Some(value),
            Sampling::top_p,
        ),
        &[1e-30, 0.5, 1.0],
        &[0.0, -0.0, below_zero, above(1.0)],
    );
    check(
        (
            "min_p",
            |fields, value| fields.min_p = Some(value),
            Sampling::min_p,
        ),
        &[0.0, 0.5, 1.0],
        &[below_zero, above(1.0)],
    );
    check(
        (
            "presence_penalty",
            |fields, value| fields.presence_penalty = Some(value),
            Sampling::presence_penalty,
        ),
        &[-2.0, 0.0, 2.0],
        &[-above(2.0), above(2.0)],
    );
    check(
        (
            "frequency_penalty",
            |fields, value| fields.frequency_penalty = Some(value),
            Sampling::frequency_penalty,
        ),
        &[-2.0, 0.0, 2.0],
        &[-above(2.0), above(2.0)],
    );
    check(
        (
            "repetition_penalty",
            |fields, value| fields.repetition_penalty = Some(value),
            Sampling::repetition_penalty,
        ),
        &[1e-30, 1.0, 2.0],
        &[0.0, below_zero, above(2.0)],
    );
}

#[test]
fn an_excluded_zero_stays_excluded_when_rounded() {
    let tiny = sampling(|fields| {
        fields.top_p = Some(f64::MIN_POSITIVE);
        fields.repetition_penalty = Some(f64::MIN_POSITIVE);
    });
    let tiny = tiny.unwrap();
    assert!(tiny.top_p() > 0.0 && tiny.repetition_penalty() > 0.0);
}

#[test]
fn top_k_is_all_or_at_least_one() {
    let check = |value: i64, expected: Result<u32, &str>| {
        let top_k = sampling(|fields| fields.top_k = Some(value)).map(|sampling| sampling.top_k());
        assert_eq!(top_k, expected.map_err(str::to_owned), "{value}");
    };
    check(-1, Ok(0));
    check(0, Ok(0));
    check(1, Ok(1));
    check(i64::from(u32::MAX), Ok(u32::MAX));
    check(i64::MAX, Ok(u32::MAX));
    check(-2, Err("top_k"));
    check(i64::MIN, Err("top_k"));
}

#[test]
fn logit_bias_is_sorted_and_within_its_range() {
    let check = |pairs: &[(Token, f64)], expected: Option<&[(Token, f32)]>| {
        let sampling = sampling(|fields| fields.logit_bias = pairs.to_vec());
        match expected {
            Some(expected) => assert_eq!(sampling.unwrap().logit_bias(), expected),
            None => assert_eq!(sampling, Err("logit_bias".to_owned()), "{pairs:?}"),
        }
    };
    check(&[(7, 100.0), (3, -100.0)], Some(&[(3, -100.0), (7, 100.0)]));
    check(&[(7, 100.0_f64.next_up())], None);
    check(&[(7, (-100.0_f64).next_down())], None);
    check(&[(7, f64::NAN)], None);
    check(&[(7, 1.0), (3, 0.0), (7, 1.0)], None);
    let pairs = |count: usize| {
        (0..count)
            .map(|token| (token as Token, 1.0))
            .collect::<Vec<_>>()
    };
    let most = (0..BIASES_MAX)
        .map(|token| (token as Token, 1.0))
        .collect::<Vec<_>>();
    check(&pairs(BIASES_MAX), Some(&most));
    check(&pairs(BIASES_MAX + 1), None);
}

#[test]
fn a_callers_seed_stays() {
    assert_eq!(Sampling::default().or_seed(5).seed(), Some(5));
    let sampling = sampling(|fields| fields.seed = Some(i64::MIN)).unwrap();
    assert_eq!(sampling.or_seed(5).seed(), Some(i64::MIN));
}

#[test]
fn choices_are_between_one_and_the_most() {
    let check = |n: i64, expected: Option<u32>| {
        assert_eq!(Choices::new(n).ok().map(Choices::get), expected, "{n}");
    };
    check(1, Some(1));
    check(128, Some(128));
    check(0, None);
    check(129, None);
    check(-1, None);
    check(i64::from(u32::MAX) + 2, None);
    assert_eq!(Choices::new(0).unwrap_err().param, "n");
}

#[test]
fn stop_strings_are_few_and_not_empty() {
    let check = |strings: &[&str], accepted: bool| {
        let strings: Vec<String> = strings.iter().map(|&string| string.to_owned()).collect();
        match Stop::new(strings.clone()) {
            Ok(stop) => assert!(accepted && stop.strings() == strings, "{strings:?}"),
            Err(invalid) => assert!(!accepted && invalid.param == "stop", "{strings:?}"),
        }
    };
    check(&[], true);
    check(&["a", "b", "c", "d"], true);
    check(&["a", "b", "c", "d", "e"], false);
    check(&["a", ""], false);
}
