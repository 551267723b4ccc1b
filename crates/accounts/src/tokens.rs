//! Tokens and their prices.

use crate::money::Nanos;

/// A price unit is a tenth of a nano-USD per token.
const TENTHS: u128 = 10;

/// Tokens by class: `cached` is a part of `prompt`, `reasoning` a part of `completion`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub prompt: u64,
    pub cached: u64,
    pub completion: u64,
    pub reasoning: u64,
}

impl Counts {
    /// The counts as database integers. No engine reaches a count that is too large for one.
    pub(crate) fn columns(&self) -> [i64; 4] {
        [self.prompt, self.cached, self.completion, self.reasoning]
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
    }
}

/// The price of tokens, in 0.0001 USD per million tokens, which is 0.1 nano-USD per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Price {
    pub input: i64,
    pub output: i64,
    /// The price of prompt tokens from the prefix cache; `None` is `input`.
    pub cached: Option<i64>,
}

impl Price {
    /// The cost, rounded up once to whole nano-USD. `None` if it is too large to count, or a price is negative.
    pub fn cost(&self, counts: &Counts) -> Option<Nanos> {
        let nanos = self.tenths(counts)?.div_ceil(TENTHS);
        i64::try_from(nanos).ok().map(Nanos::new)
    }

    /// How many output tokens `amount` covers beside what `counts` has: the largest number that can be
    /// added to `completion` without costing more than `amount`. 0 if even `counts` costs more.
    pub fn output_covered(&self, amount: Nanos, counts: &Counts) -> u64 {
        let covered = || {
            let budget = u128::try_from(amount.get()).ok()?.checked_mul(TENTHS)?;
            let rest = budget.checked_sub(self.tenths(counts)?)?;
            let tokens = rest.checked_div(rate(self.output)?).unwrap_or(u128::MAX);
            Some(u64::try_from(tokens).unwrap_or(u64::MAX))
        };
        covered().unwrap_or(0)
    }

    pub(crate) fn cached_or_input(&self) -> i64 {
        self.cached.unwrap_or(self.input)
    }

    fn tenths(&self, counts: &Counts) -> Option<u128> {
        let cached = counts.cached.min(counts.prompt);
        let computed = counts.prompt.checked_sub(cached)?;
        let classes = [
            (computed, self.input),
            (cached, self.cached_or_input()),
            (counts.completion, self.output),
        ];
        classes.into_iter().try_fold(0u128, |sum, (tokens, price)| {
            sum.checked_add(u128::from(tokens).checked_mul(rate(price)?)?)
        })
    }
}

fn rate(price: i64) -> Option<u128> {
    u128::try_from(price).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cost_is_rounded_up_once() {
        let counts = |prompt, cached, completion| Counts {
            prompt,
            cached,
            completion,
            reasoning: completion,
        };
        let check = |input, cached_price, output, counts: Counts, nanos: Option<i64>| {
            let price = Price {
                input,
                output,
                cached: cached_price,
            };
            assert_eq!(
                price.cost(&counts),
                nanos.map(Nanos::new),
                "{price:?} {counts:?}"
            );
        };
        check(200, None, 400, counts(0, 0, 0), Some(0));
        check(200, None, 400, counts(1_000_000, 0, 0), Some(20_000_000));
        check(200, None, 400, counts(10, 0, 5), Some(400));
        check(1, None, 1, counts(1, 0, 0), Some(1));
        // 9 tenths and 9 tenths are 1.8 nano-USD: 2 when rounded once, 2 also when rounded twice…
        check(9, None, 9, counts(1, 0, 1), Some(2));
        // …but three times 0.1 are 1, not 3.
        check(1, Some(1), 1, counts(2, 1, 1), Some(1));
        check(10, Some(1), 0, counts(10, 10, 99), Some(1));
        check(10, Some(0), 0, counts(10, 4, 0), Some(6));
        check(10, None, 0, counts(10, 4, 0), Some(10));
        // More cached tokens than prompt tokens are all of the prompt.
        check(10, Some(1), 0, counts(10, 11, 0), Some(1));
        check(0, None, 0, counts(u64::MAX, 0, u64::MAX), Some(0));
        check(
            10,
            None,
            0,
            counts(9_223_372_036_854_775_807, 0, 0),
            Some(i64::MAX),
        );
        check(10, None, 0, counts(9_223_372_036_854_775_808, 0, 0), None);
        check(
            i64::MAX,
            None,
            i64::MAX,
            counts(u64::MAX, 0, u64::MAX),
            None,
        );
        check(-1, None, 0, counts(1, 0, 0), None);
        check(0, Some(-1), 0, counts(1, 1, 0), None);
    }

    proptest! {
        #[test]
        fn what_is_covered_costs_no_more_and_one_more_token_does(
            input in 0i64..10_000, output in 1i64..10_000, cached in proptest::option::of(0i64..10_000),
            prompt in 0u64..1_000_000, hit in 0u64..1_000_000, amount in 0i64..1_000_000_000_000,
        ) {
            let price = Price { input, output, cached };
            let counts = Counts { prompt, cached: hit, ..Counts::default() };
            let amount = Nanos::new(amount);
            let cost = |completion| price.cost(&Counts { completion, ..counts }).unwrap();
            let covered = price.output_covered(amount, &counts);
            if cost(0) > amount {
                prop_assert_eq!(covered, 0);
            } else {
                prop_assert!(cost(covered) <= amount);
                prop_assert!(cost(covered.checked_add(1).unwrap()) > amount);
            }
        }
    }
}
