//! Bills and what keys have cost: sums of the usage records, however they are cut.

use jiff::Timestamp;
use weir_accounts::{
    BillLine, Cycle, KeyInfo, Nanos, NewHold, Outcome, Page, Price, Settlement, Source, UsageRecord,
};

use crate::fixture::{Fixture, PRICE, at, tokens};

/// The fixture's clock begins on Tuesday 2023-11-14 at 22:13:20 UTC.
const DAY: i64 = 86_400;
const ENDS: [i64; 7] = [0, 10, 3_600, 2 * DAY, 5 * DAY, 17 * DAY, 40 * DAY];
const DEARER: Price = Price {
    input: 11,
    output: 21,
    cached: Some(5),
};

/// Requests of two models that end at these times; from the fifth on one of them is dearer.
async fn used() -> Fixture {
    let fixture = Fixture::with(1_000_000).await;
    for (number, end) in (0u64..).zip(ENDS) {
        for model in ["org/a", "org/b"] {
            let dearer = number >= 4 && model == "org/a";
            let new = NewHold {
                model: model.to_owned(),
                price: if dearer { DEARER } else { PRICE },
                now: at(end),
                expires_at: at(end + 600),
                ..fixture.hold(&format!("{model}{number}"), 10_000)
            };
            let hold = fixture.accounts.hold(new).unwrap().durable().await.unwrap();
            let settlement = Settlement {
                counts: tokens(100 + number, 10 + number),
                outcome: Outcome::Success,
                source: Source::Engine,
                now: at(end),
            };
            fixture.accounts.settle(hold, settlement).await.unwrap();
        }
    }
    fixture
}

async fn bill(fixture: &Fixture, cycle: Cycle, from: i64, to: i64) -> Vec<BillLine> {
    let account = &fixture.caller.account;
    let bill = fixture.accounts.bill(account, cycle, [at(from), at(to)]);
    bill.await.unwrap()
}

fn sum(amounts: impl Iterator<Item = Nanos>) -> i64 {
    amounts.map(Nanos::get).sum()
}

#[tokio::test]
async fn each_line_is_the_sum_of_its_records() {
    let fixture = used().await;
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 100)
        .await
        .unwrap();
    assert_eq!(usage.len(), 2 * ENDS.len());
    let check = async |cycle, lines: usize| {
        let bill = bill(&fixture, cycle, 0, 41 * DAY).await;
        assert_eq!(bill.len(), lines, "{cycle:?}: {bill:#?}");
        for line in &bill {
            let of_line = |record: &&UsageRecord| {
                let within = line.starts_at <= record.ended_at && record.ended_at < line.ends_at;
                within && record.model == line.model && record.price == line.price
            };
            let records: Vec<_> = usage.iter().filter(of_line).collect();
            assert_eq!(line.requests, records.len() as u64, "{line:?}");
            assert_eq!(
                line.cost.get(),
                sum(records.iter().map(|record| record.cost))
            );
            let prompt: u64 = records.iter().map(|record| record.counts.prompt).sum();
            assert_eq!(line.counts.prompt, prompt);
        }
        let total = sum(bill.iter().map(|line| line.cost));
        assert_eq!(
            total,
            sum(usage.iter().map(|record| record.cost)),
            "{cycle:?}"
        );
        // The invoice can be worked out from what it says.
        for line in bill.iter().filter(|line| line.requests == 1) {
            assert_eq!(line.price.cost(&line.counts), Some(line.cost));
        }
    };
    check(Cycle::Hour, 12).await;
    check(Cycle::Day, 10).await;
    check(Cycle::Week, 7).await;
    check(Cycle::Month, 5).await;
}

#[tokio::test]
async fn a_bill_ends_where_it_is_told_to() {
    let fixture = used().await;
    let starts = async |cycle, from, to| -> Vec<Timestamp> {
        let bill = bill(&fixture, cycle, from, to).await;
        let lines = bill.iter().filter(|line| line.model == "org/b");
        lines.map(|line| line.starts_at).collect()
    };
    assert_eq!(starts(Cycle::Hour, 0, 3_600).await.len(), 1);
    assert_eq!(starts(Cycle::Hour, 0, 3_601).await.len(), 2);
    assert_eq!(starts(Cycle::Hour, 11, 3_600).await.len(), 0);
    // Days are whole: this one ends at midnight, in 6,400 seconds.
    assert_eq!(starts(Cycle::Day, 5_000, 6_400).await.len(), 1);
    assert_eq!(starts(Cycle::Day, 6_400, DAY).await.len(), 0);
    assert_eq!(
        starts(Cycle::Month, 39 * DAY, 41 * DAY).await,
        ["2023-12-01T00:00:00Z".parse().unwrap()]
    );
}

/// Pages have every record and every key once, in order.
#[tokio::test]
async fn records_and_keys_in_pages() {
    let fixture = used().await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let all = accounts.usage(account, 100).await.unwrap();
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = accounts
            .usage_page(account, Page { before, limit: 3 })
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        assert!(page.iter().all(|entry| entry.account == *account));
        found.extend(page.into_iter().map(|entry| entry.record));
    }
    assert_eq!(found, all);

    for second in [3, 1, 1, 2, 1] {
        accounts.add_key(account, None, at(second)).await.unwrap();
    }
    let all = accounts.keys(account).await.unwrap();
    let mut found: Vec<KeyInfo> = Vec::new();
    loop {
        let page = accounts.keys_after(account, found.last(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!((found.len(), &found), (6, &all));
}
