//! Tokens and their prices: the one table of token classes.
//!
//! A new class is a row of `token_classes`, and a migration that adds its column to `hold`, `usage_record` and
//! `usage_day`. With a price of its own it is also a row of `price_columns`, and a column of `price`.

pub(crate) mod sql;

use crate::db::{Row, StoreError, Value};
use crate::money::Nanos;

/// A price unit is a tenth of a nano-USD per token.
const TENTHS: u128 = 10;

/// Defines [`TokenClass`] and [`Counts`] from the table below.
macro_rules! token_classes {
    ($($(#[$doc:meta])* $class:ident, $count:ident, $part_of:expr, $price:expr;)+) => {
        /// A class of tokens.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum TokenClass {
            $($(#[$doc])* $class,)+
        }

        /// The columns of the database that count tokens by class, in the order of [`TokenClass::ALL`].
        pub(crate) const TOKEN_COLUMNS: [&str; TokenClass::ALL.len()] = [$(stringify!($count)),+];

        impl TokenClass {
            pub const ALL: [TokenClass; [$(stringify!($count)),+].len()] = [$(TokenClass::$class),+];

            /// The name of the class, which is also that of its columns in the database.
            pub fn name(self) -> &'static str {
                match self {
                    $(TokenClass::$class => stringify!($count),)+
                }
            }

            /// The class that the tokens of this class belong to as well.
            fn part_of(self) -> Option<TokenClass> {
                match self {
                    $(TokenClass::$class => $part_of,)+
                }
            }

            /// The price of the class. `None` if its tokens cost as much as the others of the class that they are part of.
            fn price(self) -> Option<PriceColumn> {
                match self {
                    $(TokenClass::$class => $price,)+
                }
            }
        }

        /// Tokens by class.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $count: u64,)+
        }

        impl Counts {
            pub fn get(&self, class: TokenClass) -> u64 {
                match class {
                    $(TokenClass::$class => self.$count,)+
                }
            }

            fn set(&mut self, class: TokenClass, count: u64) {
                match class {
                    $(TokenClass::$class => self.$count = count,)+
                }
            }
        }
    };
}

token_classes! {
    /// Tokens of prompts.
    Prompt, prompt, None, Some(PriceColumn::Input);
    /// The part of the prompt that came from the prefix cache.
    Cached, cached, Some(TokenClass::Prompt), Some(PriceColumn::Cached);
    /// Generated tokens.
    Completion, completion, None, Some(PriceColumn::Output);
    /// The part of the completion that was reasoning.
    Reasoning, reasoning, Some(TokenClass::Completion), None;
}

/// The number of classes.
pub(crate) const CLASSES: usize = TokenClass::ALL.len();

impl Counts {
    /// The counts that `count` returns for each class.
    pub(crate) fn try_from_fn<E>(
        mut count: impl FnMut(TokenClass) -> Result<u64, E>,
    ) -> Result<Self, E> {
        let mut counts = Counts::default();
        for class in TokenClass::ALL {
            counts.set(class, count(class)?);
        }
        Ok(counts)
    }

    /// Reads the columns that begin at `first`.
    pub(crate) fn read(row: &Row, first: usize) -> Result<Self, StoreError> {
        let mut columns = first..;
        Counts::try_from_fn(|_| row.count(columns.next().unwrap_or(first)))
    }

    /// The counts as database integers. No engine reaches a count that is too large for one.
    pub(crate) fn columns(&self) -> [i64; CLASSES] {
        TokenClass::ALL.map(|class| i64::try_from(self.get(class)).unwrap_or(i64::MAX))
    }

    /// The values of a statement's last parameters, after `values`.
    pub(crate) fn after<'a>(&self, values: &[Value<'a>]) -> Vec<Value<'a>> {
        [values, &self.columns().map(Value::from)].concat()
    }

    /// `None` if a count is too large.
    pub(crate) fn checked_add(&self, other: &Counts) -> Option<Self> {
        let sum = |class| self.get(class).checked_add(other.get(class)).ok_or(());
        Counts::try_from_fn(sum).ok()
    }

    pub(crate) fn at_most(&self, most: u64) -> Self {
        let mut counts = *self;
        for class in TokenClass::ALL {
            counts.set(class, self.get(class).min(most));
        }
        counts
    }

    pub(crate) fn saturating_sub(&self, other: &Counts) -> Self {
        let mut left = Counts::default();
        for class in TokenClass::ALL {
            left.set(class, self.get(class).saturating_sub(other.get(class)));
        }
        left
    }

    /// The tokens of a class that cost its own price: without the parts that have a price of their own. More tokens of a
    /// part than the whole has count as all of the whole.
    fn priced(&self, class: TokenClass) -> u64 {
        let whole = class.part_of().unwrap_or(class);
        let mut left = self.get(whole);
        for part in TokenClass::ALL {
            if part.part_of() == Some(whole) && part.price().is_some() {
                let taken = self.get(part).min(left);
                if part == class {
                    return taken;
                }
                left = left.saturating_sub(taken);
            }
        }
        left
    }
}

/// Defines [`PriceColumn`] and its names.
macro_rules! price_columns {
    ($($column:ident, $name:ident, |$price:ident| $value:expr;)+) => {
        /// A column of prices.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum PriceColumn {
            $($column,)+
        }

        /// The columns of the database that have prices.
        pub(crate) const PRICE_COLUMNS: [&str; PRICES] = [$(stringify!($name)),+];

        /// The number of prices.
        pub(crate) const PRICES: usize = [$(stringify!($name)),+].len();

        impl Price {
            /// The prices as database integers.
            pub(crate) fn columns(&self) -> [i64; PRICES] {
                [$(self.of(PriceColumn::$column)),+]
            }

            fn of(&self, column: PriceColumn) -> i64 {
                match column {
                    $(PriceColumn::$column => {
                        let $price = self;
                        $value
                    })+
                }
            }
        }
    };
}

price_columns! {
    Input, input, |price| price.input;
    Output, output, |price| price.output;
    Cached, cached, |price| price.cached.unwrap_or(price.input);
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
    /// Reads the columns that begin at `first`.
    pub(crate) fn read(row: &Row, first: usize) -> Result<Self, StoreError> {
        let column = |nth: usize| row.integer(first.saturating_add(nth));
        Ok(Price {
            input: column(0)?,
            output: column(1)?,
            cached: Some(column(2)?),
        })
    }

    /// The values of a statement's last parameters, after `values`.
    pub(crate) fn after<'a>(&self, values: &[Value<'a>]) -> Vec<Value<'a>> {
        [values, &self.columns().map(Value::from)].concat()
    }

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

    fn tenths(&self, counts: &Counts) -> Option<u128> {
        TokenClass::ALL.into_iter().try_fold(0u128, |sum, class| {
            let Some(price) = class.price() else {
                return Some(sum);
            };
            let tokens = u128::from(counts.priced(class));
            sum.checked_add(tokens.checked_mul(rate(self.of(price))?)?)
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

    /// The price of each class is another power of ten.
    const PRICE: Price = Price {
        input: 10,
        output: 1_000,
        cached: Some(100),
    };

    #[test]
    fn the_table_has_a_name_a_column_and_a_price_for_each_class() {
        let check = |class: TokenClass, name: &str, nanos: i64| {
            let only = |one| Ok::<_, ()>(if one == class { 2 } else { 0 });
            let mut counts = Counts::try_from_fn(only).unwrap();
            assert_eq!(counts.get(class), 2, "{class:?}");
            if let Some(whole) = class.part_of() {
                counts.set(whole, 2);
            }
            assert_eq!(PRICE.cost(&counts), Some(Nanos::new(nanos)), "{class:?}");
            assert_eq!(class.name(), name);
            let place = TokenClass::ALL.iter().position(|other| *other == class);
            assert_eq!(TOKEN_COLUMNS[place.unwrap()], name);
            assert_eq!(counts.columns()[place.unwrap()], 2);
        };
        check(TokenClass::Prompt, "prompt", 2);
        check(TokenClass::Cached, "cached", 20);
        check(TokenClass::Completion, "completion", 200);
        check(TokenClass::Reasoning, "reasoning", 200);
        assert_eq!(PRICE_COLUMNS, ["input", "output", "cached"]);
        assert_eq!(PRICE.columns(), [10, 1_000, 100]);
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let counts = |prompt, cached, completion| Counts {
            prompt,
            cached,
            completion,
            ..Counts::default()
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
