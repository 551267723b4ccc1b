//! Prompts of common words in a random order from a seed, so that no two begin alike: a prefix cache finds nothing in them
//! unless the load wants it to.

use crate::torture::Random;

/// Common words, each of which is one token in most vocabularies, together with the space before it.
const WORDS: &str = "able above across action after again against age air all almost along already also always among \
and animal another answer any area arm around ask away back bad ball bank base bear beautiful because become before \
begin behind believe below best better between beyond big bird black blue board boat body book born both bottom box boy \
bread break bring brother brown build burn business busy but buy call came camp can capital car card care carry case \
catch cause center century certain chair chance change character charge check child choose church circle city claim \
class clean clear climb close clothes cloud coast cold collect color come common complete consider contain control cook \
cool copy corn corner cost count country course cover cross crowd cry current cut dance dark daughter day dead deal \
death decide deep degree depend describe desert design develop did difference dinner direct discover discuss distance \
divide doctor dog dollar door double down draw dream dress drink drive drop dry during each early earth east easy eat \
edge effect egg eight electric element else end enemy energy engine enough enter equal even evening event ever every \
exact example except expect experience explain eye face fact fall family famous far farm fast father fear feel";

/// A text of `count` words.
pub(super) fn words(random: &mut Random, count: usize) -> String {
    let all: Vec<&str> = WORDS.split(' ').collect();
    let picked: Vec<&str> = (0..count).map(|_| random.pick(&all)).collect();
    picked.join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn prompts_follow_from_the_seed_and_begin_differently() {
        let of = |seed| words(&mut Random::new(seed), 110);
        assert_eq!(of(7), of(7));
        assert_eq!(of(7).split(' ').count(), 110);
        let beginnings: BTreeSet<String> = (0..1000)
            .map(|seed| words(&mut Random::new(seed), 4))
            .collect();
        assert_eq!(beginnings.len(), 1000);
    }
}
