//! The choice of the inputs that a step of embeddings computes.

use std::collections::VecDeque;

use super::Job;
use crate::model::EmbedderFacts;

/// The inputs for a step: one of each account in turn, and within an account one of each job in turn, as long as they
/// fit; a single input always does. Each is a job's index in `jobs`, and an input's index in the job.
pub(super) fn choose(facts: &EmbedderFacts, jobs: &VecDeque<Job>) -> Vec<(usize, usize)> {
    let mut accounts = accounts(jobs, facts.inputs as usize);
    let mut chosen = Vec::new();
    let mut rows = 0;
    while !accounts.is_empty() {
        let mut full = false;
        accounts.retain_mut(|inputs| {
            let Some(&(job, input)) = inputs.front() else {
                return false;
            };
            let length = jobs[job].inputs[input].len();
            let fits = rows + length <= facts.rows as usize && chosen.len() < facts.inputs as usize;
            if full || (!chosen.is_empty() && !fits) {
                full = true;
                return true;
            }
            rows += length;
            chosen.push((job, input));
            inputs.pop_front();
            true
        });
        if full {
            break;
        }
    }
    chosen
}

/// The inputs that each account has left, up to `most`, in the order in which its jobs take turns.
fn accounts(jobs: &VecDeque<Job>, most: usize) -> Vec<VecDeque<(usize, usize)>> {
    let mut names: Vec<&str> = Vec::new();
    for job in jobs {
        if !names.contains(&&*job.account) {
            names.push(&job.account);
        }
    }
    let left = |job: &Job| job.inputs.len() - job.vectors.len();
    let own = |name: &str| {
        let own = jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| *job.account == *name);
        let own: Vec<_> = own.collect();
        let rounds = own.iter().map(|(_, job)| left(job)).max().unwrap_or(0);
        let rounds = (0..rounds).flat_map(|round| own.iter().map(move |own| (round, own)));
        let inputs = rounds.filter(|(round, (_, job))| *round < left(job));
        inputs
            .map(|(round, (at, job))| (*at, job.vectors.len() + round))
            .take(most)
            .collect()
    };
    names.into_iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Jobs as `account` and lengths of inputs; those chosen as `account:length`.
    fn check(jobs: &[(&str, &[usize])], expected: &str) {
        let facts = EmbedderFacts {
            dimensions: 1,
            input_tokens_max: 100,
            rows: 20,
            inputs: 6,
            last: None,
        };
        let jobs: VecDeque<Job> = jobs
            .iter()
            .map(|(account, lengths)| Job {
                account: (*account).into(),
                inputs: lengths
                    .iter()
                    .map(|&length| vec![0; length].into())
                    .collect(),
                vectors: Vec::new(),
                answer: oneshot::channel().0,
            })
            .collect();
        let chosen = choose(&facts, &jobs);
        let shown = chosen.iter().map(|&(job, input)| {
            format!("{}:{}", jobs[job].account, jobs[job].inputs[input].len())
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn accounts_take_turns_and_so_do_their_jobs() {
        check(&[], "");
        check(&[("a", &[1, 2, 3])], "a:1 a:2 a:3");
        check(&[("a", &[1, 2, 3]), ("a", &[4, 5])], "a:1 a:4 a:2 a:5 a:3");
        check(
            &[("a", &[1, 2]), ("a", &[3, 4]), ("b", &[5, 6])],
            "a:1 b:5 a:3 b:6 a:2",
        );
        check(
            &[("a", &[1; 50]), ("b", &[1, 1])],
            "a:1 b:1 a:1 b:1 a:1 a:1",
        );
        // A single input always fits.
        check(&[("a", &[90, 1])], "a:90");
        check(&[("a", &[19, 1]), ("b", &[2])], "a:19");
    }
}
